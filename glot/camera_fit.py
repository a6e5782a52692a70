"""Predicted bodies and 2D landmarks in, cameras that put the bodies on the landmarks out; poses and shapes stay.

N frames, J joints. The model guesses the camera from the crop alone, and was trained on pictures of another world;
where the limbs are in this one is known from the landmarks. Bodies are moved and scaled as a whole, nothing else.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from glot.crop import keypoints_to_crop
from glot.joints import SMPL_JOINTS

# SMPL's joints and the landmarks (names of glot.people.JOINTS) that mean the same places.
PAIRS = tuple(
    (SMPL_JOINTS.index(f"{side}_{joint}"), f"{side[0]}{joint}")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)
FEWEST = 4.0  # joints, counted by visibility, that a camera is fitted to
LEAST_VISIBLE = 0.3
OUTLIER = 0.05  # half crop sides; from there on a joint pulls no harder
ROUNDS = 10
SMOOTH_SECONDS = 0.1


def fit_cameras(
    joints: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    *,
    bbox: NDArray[np.floating],
    crop_scale: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Cameras (N, 3: s, tx, ty) of the crops (``bbox`` (N, 4), ``crop_scale`` (N,)), frame by frame; NaN where the
    landmarks do not say.

    joints (N, J, 3) m about the body's own origin, landmarks (N, J, 3) x, y px of the picture and visibility, both in
    the order of PAIRS. Least squares of s (x + tx), s (y + ty) with Huber's weights, as limbs the model has wrong must
    not draw the body along.
    """
    points = keypoints_to_crop(landmarks, bbox, crop_scale)
    sure = np.where(points[..., 2] >= LEAST_VISIBLE, points[..., 2], 0.0)
    xy, target = joints[..., :2].astype(np.float64), points[..., :2]
    weights = sure
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(ROUNDS):
            fitted = _solved(xy, target, weights)
            off = np.linalg.norm(fitted[:, None, :1] * (xy + fitted[:, None, 1:]) - target, axis=-1)
            weights = sure * np.minimum(1, OUTLIER / np.maximum(off, 1e-9))
    usable = (sure.sum(1) >= FEWEST) & np.isfinite(fitted).all(1) & (fitted[:, 0] > 0)
    return np.where(usable[:, None], fitted, np.nan)


def steady_cameras(fitted: NDArray[np.floating], cam: NDArray[np.floating], *, fps: float) -> NDArray[np.float32]:
    """Cameras of all N frames of a track, smooth over time: ``fitted`` (N, 3), NaN where they could not be, and
    ``cam`` (N, 3), what the model said. Between frames that were fitted, how far the model was off there is carried
    over; where none was, ``cam`` stays."""
    known = np.flatnonzero(np.isfinite(fitted).all(1))
    if not len(known):
        return cam.astype(np.float32)
    rows = np.arange(len(cam))
    change = np.column_stack([np.log(fitted[known, 0] / cam[known, 0]), fitted[known, 1:] - cam[known, 1:]])
    every = np.column_stack([np.interp(rows, known, column) for column in change.T])
    out = np.column_stack([cam[:, 0] * np.exp(every[:, 0]), cam[:, 1:] + every[:, 1:]])
    out[:, 0] = np.exp(gaussian_filter1d(np.log(out[:, 0]), SMOOTH_SECONDS * fps, mode="nearest"))
    out[:, 1:] = gaussian_filter1d(out[:, 1:], SMOOTH_SECONDS * fps, axis=0, mode="nearest")
    return out.astype(np.float32)


def _solved(xy: NDArray, target: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """(N, 3) s, tx, ty of the weighted least squares; NaN where the points do not say."""
    total = weights.sum(1, keepdims=True)[..., None]
    middle, wanted = ((weights[..., None] * values).sum(1, keepdims=True) / total for values in (xy, target))
    here, there = xy - middle, target - wanted
    scale = (weights[..., None] * here * there).sum((1, 2)) / (weights[..., None] * here**2).sum((1, 2))
    return np.column_stack([scale, wanted[:, 0] / scale[:, None] - middle[:, 0]])
