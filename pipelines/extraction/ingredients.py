"""What a feature set is made with: loaded once on the driver, and described for the manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glot.features.backbones.backbone import Backbone, load_backbone
from glot.human.body import Body, load_body
from glot.human.body_files import OPEN_BODY
from pipelines.decoders.clips import Decoder, Unit
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.occlusion import Occlusion, load_occlusion
from pipelines.extraction.precision import describe_deviation, hash_of, int8_network, sample_crops
from pipelines.jobs.job_progress import say


@dataclass(frozen=True)
class Ingredients:
    """The networks, the body and the occluders for all splits of a dataset."""

    spec: DatasetSpec
    decoder: Decoder
    backbone: Backbone
    backbone_hash: str  # of the weights, and of the int8 network if there is one
    body: Body
    occlusion: Occlusion | None
    int8_network: Path | None

    def settings(self, split: str) -> dict[str, Any]:
        """What a split is made with. Two runs may share a folder only if their settings are equal."""
        spec, backbone, body = self.spec, self.backbone, self.body
        crop = {
            "size": backbone.crop_size,
            "scale": self.decoder.crop_scale,
            "box": self.decoder.box_rule,
            "rule": "square of side scale * width, bilinear, black outside",
            "preprocessing": spec.preprocessing,
            "reference": self.decoder.reference if spec.preprocessing == "reference" else "",
            "occluders": self.occlusion.describe() if self.occlusion else None,
        }
        if spec.jitter:
            crop["jitter"] = spec.seed
        return {
            "dataset": spec.dataset,
            "split": split,
            "backbone": {
                **backbone.describe(),
                "hash": self.backbone_hash,
                "precision": spec.precision,
                **({"dtype": spec.feature_dtype} if spec.feature_dtype != "float32" else {}),
            },
            "precision": spec.precision,  # repeated here, because two backbones are compared by their hashes only
            "body": {"name": (spec.body or OPEN_BODY).name, "hash": body.file_hash, "open": body.is_open},
            "crop": crop,
        }


def load_ingredients(spec: DatasetSpec, decoder: Decoder, splits: Sequence[str]) -> Ingredients:
    """Loads the files that the spec names. InputError for a file that cannot be used.

    Crops of some sources of the ``splits`` calibrate a precision other than float32. Prints how many occluders there
    are, and how much the precision changes the features.
    """
    occlusion = load_occlusion(spec)
    if occlusion:
        say(f"occluders: {len(occlusion.objects)} objects of {spec.occluders}, pasted per {occlusion.per}")
    if spec.feature_dtype == "float16":
        say("float16: a feature differs from its float32 value by at most 0.05 %")
    backbone, body = load_backbone(spec.backbone, spec.weights), load_body(spec.body)
    network, content = None, b""
    if spec.precision != "float32":
        units: list[Unit] = [unit for split in splits for unit in decoder.find(spec.root, split)]
        crops = sample_crops(decoder, spec.root, units, body)
        network = int8_network(backbone, crops, spec.out) if spec.precision == "int8" else None
        content = network.read_bytes() if network else b""
        say(describe_deviation(backbone, crops, precision=spec.precision, network=content))
    return Ingredients(spec, decoder, backbone, hash_of(backbone, content), body, occlusion, network)
