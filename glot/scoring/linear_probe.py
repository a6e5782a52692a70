"""Features and joints in; a linear map from features to joints out. It measures how much of the pose one frame shows.

N frames, F feature size, J joints. Where a video model has smaller errors, the difference comes from the other frames.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from glot.features.moments import Moments
from glot.scoring.metrics import pa_mpjpe

STRENGTHS = np.logspace(-1, 5, 13)  # strengths of the regularisation to try

# Features (n, F) and joints (n, J, 3), metres from the pelvis, in the camera frame; n may differ from block to block.
Blocks = Iterable[tuple[NDArray, NDArray]]
Fit = tuple[NDArray[np.float64], NDArray[np.float64]]  # weights (F, 3 J), bias (3 J,)


class LinearProbe:
    """Ridge regression from features to joints.

    Fitted on ``train`` with the strength out of STRENGTHS that gives the smallest PA-MPJPE on ``validation``. Both are
    read once, block after block. ValueError where one of them has no frames.
    """

    def __init__(self, train: Blocks, validation: Blocks) -> None:
        moments: Moments | None = None
        for x, y in train:
            size, self.shape = x.shape[1], y.shape[1:]
            moments = moments or Moments(size + y[0].size)
            moments.add(np.concatenate((x, y.reshape(len(y), -1)), axis=1, dtype=np.float64))
        if moments is None:
            raise ValueError("no frames to learn from")
        fits = ridge(moments, size, strengths=STRENGTHS)
        errors, frames = np.zeros(len(fits)), 0
        for x, y in validation:
            errors += [pa_mpjpe(self._apply(x, fit), y).sum() for fit in fits]
            frames += len(y)
        if not frames:
            raise ValueError("no frames to choose the strength on")
        self.weights, self.bias = fits[int(errors.argmin())]

    def __call__(self, features: NDArray) -> NDArray[np.float64]:
        """features (N, F) -> joints (N, J, 3)."""
        return self._apply(features, (self.weights, self.bias))

    def _apply(self, features: NDArray, fit: Fit) -> NDArray[np.float64]:
        return (features.astype(np.float64) @ fit[0] + fit[1]).reshape(-1, *self.shape)


def ridge(moments: Moments, size: int, *, strengths: NDArray) -> list[Fit]:
    """(weights (F, K), bias (K,)) for each strength: y (N, K) ~ x @ weights + bias by least squares, x (N, F).

    ``moments`` are those of rows [x, y]; ``size`` is F. The strength regularises the weights of standardised features.
    """
    mean, centre = moments.mean[:size], moments.mean[size:]
    scale = np.sqrt(moments.scatter.diagonal()[:size] / moments.count) + 1e-6
    values, vectors = np.linalg.eigh(moments.scatter[:size, :size] / np.outer(scale, scale))
    projected = vectors.T @ (moments.scatter[:size, size:] / scale[:, None])
    fits = []
    for strength in strengths:
        weights = vectors @ (projected / (np.maximum(values, 0) + strength)[:, None]) / scale[:, None]
        fits.append((weights, centre - mean @ weights))
    return fits
