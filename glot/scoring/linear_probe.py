"""Features and joints in; a linear map from features to joints out. It measures how much of the pose one frame shows.

N frames, F feature size, J joints. Where a video model has smaller errors, the difference comes from the other frames.
"""

import numpy as np
from numpy.typing import NDArray

from glot.scoring.metrics import pa_mpjpe

STRENGTHS = np.logspace(-1, 5, 13)  # strengths of the regularisation to try


class LinearProbe:
    """Ridge regression from features (N, F) to joints (N, J, 3), metres from the pelvis, in the camera frame.

    Fitted on ``train`` with the strength out of STRENGTHS that gives the smallest PA-MPJPE on ``validation``.
    """

    def __init__(self, train: tuple[NDArray, NDArray], validation: tuple[NDArray, NDArray]) -> None:
        x, y = train
        self.shape = y.shape[1:]
        fits = ridge(x.astype(np.float64), y.reshape(len(y), -1).astype(np.float64), strengths=STRENGTHS)
        self.weights, self.bias = min(
            fits, key=lambda fit: pa_mpjpe(self._apply(validation[0], fit), validation[1]).mean()
        )

    def __call__(self, features: NDArray) -> NDArray[np.float64]:
        """features (N, F) -> joints (N, J, 3)."""
        return self._apply(features, (self.weights, self.bias))

    def _apply(self, features: NDArray, fit: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
        return (features.astype(np.float64) @ fit[0] + fit[1]).reshape(-1, *self.shape)


def ridge(x: NDArray, y: NDArray, *, strengths: NDArray) -> list[tuple[NDArray, NDArray]]:
    """(weights (F, K), bias (K,)) for each strength: y (N, K) ~ x @ weights + bias by least squares, x (N, F).

    The strength regularises the weights of standardised features.
    """
    mean, scale = x.mean(0), x.std(0) + 1e-6
    z, centre = (x - mean) / scale, y.mean(0)
    values, vectors = np.linalg.eigh(z.T @ z)
    projected = vectors.T @ (z.T @ (y - centre))
    fits = []
    for strength in strengths:
        weights = vectors @ (projected / (np.maximum(values, 0) + strength)[:, None]) / scale[:, None]
        fits.append((weights, centre - mean @ weights))
    return fits
