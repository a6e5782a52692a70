"""A backbone, a device and a precision in; a function from crops to features out."""

import numpy as np
from numpy.typing import NDArray

from glot.features.backbones.backbone import Backbone
from glot.features.backbones.backbone_kinds import check_precision


class Extractor:
    """``extractor(crops (N, S, S, 3) uint8 RGB) -> (N, F) float32``; S is the crop rule's size, F the feature size.

    The values of a first guess, if the backbone gives one, follow the features of each crop. A precision other than
    float32 is faster and changes the features; ``deviation`` measures by how much. A backbone that has no use for a GPU
    runs on the CPU, whatever ``device`` says.

    Raises InputError for a precision that the backbone does not have; ValueError for crops of another shape.
    """

    def __init__(self, backbone: Backbone, *, device: str = "cpu", precision: str = "float32") -> None:
        check_precision(backbone.kind, precision)
        self.size, self.values = backbone.crop_rule.size, backbone.feature_size + backbone.guess_size
        self.network = backbone.network(device=device if "gpu" in backbone.kind.devices else "cpu", precision=precision)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if crops.ndim != 4 or crops.shape[1:] != (self.size, self.size, 3) or crops.dtype != np.uint8:
            raise ValueError(f"crops must be (N, {self.size}, {self.size}, 3) uint8, got {crops.shape} {crops.dtype}")
        if not len(crops):
            return np.zeros((0, self.values), np.float32)
        features = self.network(crops)
        if features.shape != (len(crops), self.values) or features.dtype != np.float32:
            wanted = (len(crops), self.values)
            raise ValueError(f"a backbone gave {features.shape} {features.dtype}, not {wanted} float32")
        return features


def deviation(exact: Extractor, other: Extractor, crops: NDArray[np.uint8]) -> float:
    """How far the features of ``other`` are from those of ``exact`` on ``crops`` (N, S, S, 3).

    The norm of the difference, divided by the norm of the exact features relative to their mean.
    """
    wanted = exact(crops)
    return float(np.linalg.norm(other(crops) - wanted) / np.linalg.norm(wanted - wanted.mean(0)))
