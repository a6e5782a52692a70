"""What a feature set is made with, described for its manifest: networks, body, occluders and how crops are made."""

import multiprocessing
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glot.human.body_files import OPEN_BODY
from glot.human.crop_rules import CropRule
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.jobs.job_progress import say


@dataclass(frozen=True)
class Ingredients:
    """``settings`` by split: two runs may share a folder only if their settings are equal."""

    settings: Mapping[str, dict[str, Any]]
    int8_network: Path | None = None


def load_ingredients(spec: DatasetSpec, splits: Sequence[str], occluders: dict[str, Any] | None) -> Ingredients:
    """Describes the files that the spec names. InputError for a file that cannot be used.

    Crops of some sources of the ``splits`` calibrate a precision other than float32. Prints how much the precision
    changes the features. ``occluders``: the description of the objects that are pasted.

    The driver, which may run for days, needs no network. So a process of its own loads it, and its 700 MB, unless this
    one has PyTorch already.
    """
    if "torch" in sys.modules:
        return _load(spec, splits, occluders)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as process:
        return process.submit(_load, spec, splits, occluders).result()


def _load(spec: DatasetSpec, splits: Sequence[str], occluders: dict[str, Any] | None) -> Ingredients:
    from glot.human.body import load_body
    from pipelines.extraction.precision import describe_deviation, int8_network, load_for, sample_crops

    decoder = load_decoder(spec.dataset, spec.tracks)
    backbone, body = load_for(spec), load_body(spec.body)
    network = None
    if spec.precision != "float32":
        units: list[Unit] = [unit for split in splits for unit in decoder.find(spec.root, split)]
        crops = sample_crops(decoder, spec.root, units, body, backbone.crop_rule)
        if spec.precision == "int8":
            network = int8_network(backbone, crops, spec.out)
            backbone = load_for(spec, network)
        say(describe_deviation(backbone, crops, precision=spec.precision))
    bodies = {"name": (spec.body or OPEN_BODY).name, "hash": body.file_hash, "open": body.is_open}
    crop = describe_crops(spec, decoder, backbone.crop_rule, occluders)
    described = backbone.describe()
    if backbone.guess_size:
        described["guess_size"] = backbone.guess_size
    return Ingredients({split: describe_set(spec, split, described, bodies, crop) for split in splits}, network)


def describe_set(
    spec: DatasetSpec, split: str, backbone: dict[str, Any], body: dict[str, Any], crop: dict[str, Any]
) -> dict[str, Any]:
    """What a split is made with. ``backbone``: its name, weights, hash and feature size."""
    half = {"dtype": spec.feature_dtype} if spec.feature_dtype != "float32" else {}
    return {
        "dataset": spec.dataset,
        "split": split,
        "backbone": {**backbone, "precision": spec.precision, **half},
        "precision": spec.precision,  # repeated here, because two backbones are compared by their hashes only
        "body": body,
        "crop": crop,
    }


def describe_crops(
    spec: DatasetSpec, decoder: Decoder, rule: CropRule, occluders: dict[str, Any] | None
) -> dict[str, Any]:
    """How crops are made. ``cut``: the backbone's own rule, where it does not follow the dataset's crop scale."""
    crop: dict[str, Any] = {
        "size": rule.size,
        "scale": decoder.crop_scale,
        "box": decoder.box_rule,
        "rule": rule.words(),
        "preprocessing": spec.preprocessing,
        "reference": decoder.reference if spec.preprocessing == "reference" else "",
        "occluders": occluders,
    }
    if not rule.follows_dataset:
        crop["cut"] = rule.to_dict()
    return crop | {"jitter": spec.seed} if spec.jitter else crop
