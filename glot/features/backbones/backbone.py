"""The name of a backbone in, the backbone out: a frozen network, its hash and the size of the crops it takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from glot.features.backbones.blazepose import FEATURES, LANDMARK_SIZE, features_hash
from glot.features.backbones.blazepose_files import LANDMARK_FILE, network_file
from glot.features.backbones.names import RANDOM_WEIGHTS, check_backbone
from glot.features.backbones.resnet50 import FEATURE_SIZE, RANDOM_SEED, load_resnet50, trunk_hash
from glot.human.crop import CROP_SIZE


@dataclass(frozen=True)
class Backbone:
    """A frozen feature extractor; glot.features.backbones.extractor.Extractor runs it.

    ``module``: normalised crops (B, 3, 224, 224) float32 -> (B, 2048), in evaluation mode, without gradients; None for
    BlazePose, which is no torch module. ``hash`` identifies the weights: the same numbers in another file format have
    the same hash. ``crop_size``: side of the crops it takes, px. ``seed``: of random weights, else None.
    """

    module: nn.Module | None
    name: str
    weights_name: str
    hash: str
    feature_size: int = FEATURE_SIZE
    crop_size: int = CROP_SIZE
    seed: int | None = None

    def describe(self) -> dict[str, Any]:
        """{name, weights, hash, feature_size} for a manifest, and the seed of random weights."""
        described = {
            "name": self.name,
            "weights": self.weights_name,
            "hash": self.hash,
            "feature_size": self.feature_size,
        }
        return described if self.seed is None else described | {"seed": self.seed}


def load_backbone(name: str = "resnet50", weights: Path | None = None) -> Backbone:
    """The backbone called ``name`` with the weights in a file; None is the open weights that come with the project.

    RANDOM_WEIGHTS is a random network of a fixed seed, called "random": good enough to try the pipeline, but its
    features are useless. The weights of "blazepose" are fetched the first time.

    Raises InputError for an unknown name, for a file that does not hold such weights, where the open weights are
    missing (see ``glot.shipped``), and where BlazePose's networks cannot be fetched.
    """
    check_backbone(name, weights=weights)
    if name == "blazepose":
        network_file(LANDMARK_FILE)  # fetched here, so that a failure is reported before any worker starts
        return Backbone(None, name, LANDMARK_FILE, features_hash(), FEATURES, LANDMARK_SIZE)
    module, weights_name = load_resnet50(weights)
    seed = RANDOM_SEED if weights == RANDOM_WEIGHTS else None
    return Backbone(module, name, weights_name, trunk_hash(module.state_dict()), seed=seed)
