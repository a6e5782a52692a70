"""Predicted bodies and 2D landmarks in, cameras that put the bodies on the landmarks out; poses and shapes stay.

N frames, J joints. The model guesses the camera from the crop alone, as if from far away, and was trained on pictures
of another world; where the limbs are in this one is known from the landmarks. Bodies are moved as a whole, nothing
else.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from glot.human.camera import crop_cam, full_image_translation
from glot.human.joints import SMPL_JOINTS

# SMPL's joints and the landmarks (names of glot.people.landmarks.LANDMARKS) that mean the same places.
PAIRS = tuple(
    (SMPL_JOINTS.index(f"{side}_{joint}"), f"{side[0]}{joint}")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)
FEWEST = 4.0  # joints, counted by visibility, that a camera is fitted to
LEAST_VISIBLE = 0.3
OUTLIER = 0.03  # box sides; from there on a joint pulls no harder
ROUNDS = 10
NEAREST = 0.3  # m from the camera to a joint
MOST_OFF = 1.6  # times larger or smaller than the model said: landmarks that want more are squashed or somebody else's
SMOOTH_SECONDS = 0.1


def fit_cameras(
    joints: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    cam: NDArray[np.floating],
    *,
    boxes: NDArray[np.floating],
    width: int,
    height: int,
    focal: float,
) -> NDArray[np.float64]:
    """Cameras (N, 3: s, tx, ty) of the crops ``boxes`` (N, 3: centre and side, px), frame by frame; NaN where the
    landmarks do not say. ``cam`` (N, 3) is where to begin.

    joints (N, J, 3) m about the body's own origin, landmarks (N, J, 3) x, y px of the picture and visibility, both in
    the order of PAIRS. Least squares, through a pinhole camera of ``focal`` px: a body seen from above and close by has
    a large head and small feet. Huber's weights, as limbs the model has wrong must not draw the body along.
    """
    where: dict[str, Any] = {"width": width, "height": height, "focal": focal}
    crops = torch.from_numpy(np.asarray(boxes, np.float64))
    places = full_image_translation(torch.from_numpy(cam.astype(np.float64)), crops, **where).numpy()
    points = joints.astype(np.float64)
    rays = (landmarks[..., :2].astype(np.float64) - [width / 2, height / 2]) / focal
    sure = np.where(landmarks[..., 2] >= LEAST_VISIBLE, landmarks[..., 2], 0.0)
    weights = sure
    for _ in range(ROUNDS):
        places = _solved(points, rays, weights / np.maximum(points[..., 2] + places[:, None, 2], NEAREST) ** 2)
        placed = points + places[:, None]
        off = np.linalg.norm(placed[..., :2] / np.maximum(placed[..., 2:], NEAREST) - rays, axis=-1) * focal
        weights = sure * np.minimum(1, OUTLIER * boxes[:, 2:] / np.maximum(off, 1e-9))
    usable = (sure.sum(1) >= FEWEST) & (placed[..., 2].min(1) > NEAREST)
    fitted = crop_cam(torch.from_numpy(places), crops, **where).numpy()
    return np.where(usable[:, None], fitted, np.nan)


def steady_cameras(fitted: NDArray[np.floating], cam: NDArray[np.floating], *, fps: float) -> NDArray[np.float32]:
    """Cameras of all N frames of a track, smooth over time: ``fitted`` (N, 3), NaN where they could not be, and
    ``cam`` (N, 3), what the model said. Between frames that were fitted well, how far the model was off there is
    carried over; where none was, ``cam`` stays."""
    with np.errstate(invalid="ignore"):
        known = np.flatnonzero(np.abs(np.log(fitted[:, 0] / cam[:, 0])) <= np.log(MOST_OFF))
    if not len(known):
        return cam.astype(np.float32)
    rows = np.arange(len(cam))
    change = np.column_stack([np.log(fitted[known, 0] / cam[known, 0]), fitted[known, 1:] - cam[known, 1:]])
    every = np.column_stack([np.interp(rows, known, column) for column in change.T])
    out = np.column_stack([cam[:, 0] * np.exp(every[:, 0]), cam[:, 1:] + every[:, 1:]])
    out[:, 0] = np.exp(gaussian_filter1d(np.log(out[:, 0]), SMOOTH_SECONDS * fps, mode="nearest"))
    out[:, 1:] = gaussian_filter1d(out[:, 1:], SMOOTH_SECONDS * fps, axis=0, mode="nearest")
    return out.astype(np.float32)


def _solved(points: NDArray, rays: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """(N, 3) m, places t that bring points (N, J, 3) + t onto rays (N, J, 2: x/z, y/z): x + t_x = ray (z + t_z) is
    linear in t. The origin where no point counts."""
    rows = np.zeros((*rays.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -rays
    wanted = rays * points[..., 2:] - points[..., :2]
    left = np.einsum("njki,nj,njkl->nil", rows, weights, rows) + 1e-12 * np.eye(3)
    right = np.einsum("njki,nj,njk->ni", rows, weights, wanted)
    return np.linalg.solve(left, right[..., None])[..., 0]
