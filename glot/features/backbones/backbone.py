"""What a backbone is, and the choice of one in, the backbone out: a frozen network, its hash and its crop rule.

Extraction, prediction and checkpoints use nothing else of a backbone. N crops, S px, F features, G values of a guess.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind, kind_of
from glot.features.schema import GUESS_SIZE
from glot.human.crop_rules import CropRule

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # crops (N, S, S, 3) uint8 RGB -> (N, F + G) float32
MOST_FEATURES = 65536  # numbers of a crop


class Backbone(ABC):
    """A frozen feature extractor; ``glot.features.backbones.extractor.Extractor`` runs it.

    ``weights_name``: name of the weights' file. ``hash``: 16 hex digits that identify the weights and all else that
    features depend on: the same numbers in another file format have the same hash. ``guess_size``: G, how many numbers
    of a first guess follow the features of a crop (see ``glot.features.schema.GUESS``), else 0. ``seed``: of random
    weights, else None.
    """

    def __init__(
        self,
        kind: BackboneKind,
        *,
        weights_name: str,
        hash: str,
        feature_size: int,
        crop_rule: CropRule,
        guess_size: int = 0,
        seed: int | None = None,
    ) -> None:
        if not 1 <= feature_size <= MOST_FEATURES:
            raise InputError(f"backbone {kind.name}: {feature_size} features of a crop; at most {MOST_FEATURES} fit")
        if guess_size not in (0, GUESS_SIZE):
            raise InputError(
                f"backbone {kind.name}: a first guess of {guess_size} numbers; it has {GUESS_SIZE}, or none"
            )
        self.kind, self.weights_name, self.hash = kind, weights_name, hash
        self.feature_size, self.crop_rule, self.guess_size, self.seed = feature_size, crop_rule, guess_size, seed

    @property
    def name(self) -> str:
        """The name of its kind."""
        return self.kind.name

    @abstractmethod
    def network(self, *, device: str, precision: str) -> Network:
        """The function that runs it, on "cpu" or "cuda", in one of the precisions of its kind.

        Crops of size ``crop_rule.size`` come as uint8, so normalisation is part of the network. A CPU is used with
        torch's number of threads. A feature must not depend on the other crops beside it.
        """

    def describe(self) -> dict[str, Any]:
        """{name, weights, hash, feature_size} for a manifest; the crop rule where there is a choice; the seed."""
        described: dict[str, Any] = {
            "name": self.name,
            "weights": self.weights_name,
            "hash": self.hash,
            "feature_size": self.feature_size,
        }
        if self.kind.crop_rules:
            described["crop_rule"] = self.crop_rule.name
        return described if self.seed is None else described | {"seed": self.seed}


def load_backbone(
    name: str = "resnet50", weights: Path | None = None, *, crop_rule: str | None = None, first_guess: bool = False
) -> Backbone:
    """The backbone called ``name`` (NAME, or NAME:FILE) with the weights in a file; None: those that come with it.

    For resnet50 RANDOM_WEIGHTS is a random network of a fixed seed, called "random": good enough to try the pipeline,
    but its features are useless. The weights of "blazepose" are fetched the first time. ``crop_rule`` is one of the
    kind's; ``first_guess`` also gives a first guess of the body.

    Raises InputError for an unknown name, for options that it does not have, for a file that does not hold such
    weights, and where its weights are missing (see ``glot.shipped``) or cannot be fetched.
    """
    choice = BackboneChoice(name, weights, crop_rule, first_guess)
    backbone = kind_of(name).loader()(choice)
    if not isinstance(backbone, Backbone):
        raise InputError(f"--backbone {name}: its package gives a {type(backbone).__name__}, no Backbone")
    return backbone
