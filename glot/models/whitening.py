"""An untrained model and feature sets in; the model with input layers that whiten the features out. Not in the paper.

Features of a frozen backbone vary along a few directions (background, clothes) a thousand times more than along the
directions that depend on the pose. With random input layers, a short training is nearly over before the model finds the
directions of the pose.
"""

import numpy as np
import torch
from torch import Tensor, nn

from glot.features.moments import ROWS_AT_ONCE, Moments
from glot.features.store import FeatureStore
from glot.models.glot import GLoT

FRAMES = 50_000  # largest number of frames to use, evenly spaced over all feature sets


def whiten(model: GLoT, stores: list[FeatureStore], *, shrinkage: float, seed: int) -> None:
    """Sets the input layers of the global and the local branch.

    Each layer takes the leading principal components of the features, divides each by sqrt(its variance + ``shrinkage``
    x the mean variance), and rotates them at random (``seed``). The features are read block after block.
    """
    step = max(1, -(-sum(len(store) for store in stores) // FRAMES))
    moments = Moments(model.config.feature_size)
    for store in stores:
        chosen = np.arange(0, len(store), step)
        for start in range(0, len(chosen), ROWS_AT_ONCE):
            moments.add(store.features_of(chosen[start : start + ROWS_AT_ONCE]))
    mean, covariance = torch.from_numpy(moments.mean), torch.from_numpy(moments.scatter / moments.count)
    variances, directions = torch.linalg.eigh(covariance)
    variances = variances.clamp(min=0)
    scales = 1 / (variances + shrinkage * variances.mean()).sqrt()
    projections = [model.motion.project] + ([model.correction.project] if model.correction is not None else [])
    generator = torch.Generator().manual_seed(seed)
    for projection in projections:
        _fill(projection, mean, directions, scales, generator)


@torch.no_grad()
def _fill(layer: nn.Linear, mean: Tensor, directions: Tensor, scales: Tensor, generator: torch.Generator) -> None:
    count = min(layer.out_features, len(scales))
    leading = (directions[:, -count:] * scales[-count:]).T  # (count, F); eigh sorts upwards
    turn = torch.linalg.qr(torch.randn(layer.out_features, count, generator=generator, dtype=torch.float64)).Q
    weight = turn @ leading
    layer.weight.copy_(weight)
    layer.bias.copy_(-(weight @ mean))
