"""Predicted bodies and 2D landmarks in; cameras that put the bodies on the landmarks out. Poses and shapes stay.

N frames, J joints. The model estimates the camera from the crop alone, as if it were far away, and was trained on other
pictures. The landmarks show where the limbs are in this picture. Each body is moved as a whole.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from glot.human.camera import crop_cam, full_image_translation
from glot.human.joints import SMPL_JOINTS

# Pairs of SMPL's joints and the landmarks (names in glot.people.landmarks.LANDMARKS) at the same places of the body.
CAMERA_PAIRS = tuple(
    (SMPL_JOINTS.index(f"{side}_{joint}"), f"{side[0]}{joint}")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
)
FEWEST = 4.0  # a camera is fitted if the visibilities of its joints sum to this or more
LEAST_VISIBLE = 0.3  # visibility below which a landmark does not count
OUTLIER = 0.03  # in box sides: the distance from its landmark up to which the pull on a joint grows
ROUNDS = 10  # solutions of the least squares, each with new weights
NEAREST = 0.3  # least distance from the camera to a joint, m
# The scale s of a fitted camera differs from the predicted scale by this factor at most. Landmarks that lead to a
# larger factor are distorted, or belong to another person.
MAX_SCALE_RATIO = 1.6
SMOOTH_SECONDS = 0.1  # standard deviation of the Gaussian that smooths cameras


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
    """Cameras (N, 3: s, tx, ty) of the crops ``boxes`` (N, 3: centre and side, px), frame by frame.

    joints (N, J, 3) m from the body's origin, and landmarks (N, J, 3: x, y px of the picture, visibility), both in the
    order of CAMERA_PAIRS. ``cam`` (N, 3) are the predicted cameras, from which the fit begins. The result is NaN
    in frames with too few visible landmarks.

    Least squares through a pinhole camera of ``focal`` px, because a body seen from above and close by has a large head
    and small feet. Huber's weights, because limbs that the model predicts wrongly must not move the body.
    """
    where: dict[str, Any] = {"width": width, "height": height, "focal": focal}
    crops = torch.from_numpy(np.asarray(boxes, np.float64))
    places = full_image_translation(torch.from_numpy(cam.astype(np.float64)), crops, **where).numpy()
    points = joints.astype(np.float64)
    rays = (landmarks[..., :2].astype(np.float64) - [width / 2, height / 2]) / focal
    sure = np.where(landmarks[..., 2] >= LEAST_VISIBLE, landmarks[..., 2], 0.0)
    weights = sure
    for _ in range(ROUNDS):
        places = _solved_translations(
            points, rays, weights / np.maximum(points[..., 2] + places[:, None, 2], NEAREST) ** 2
        )
        placed = points + places[:, None]
        off = np.linalg.norm(placed[..., :2] / np.maximum(placed[..., 2:], NEAREST) - rays, axis=-1) * focal
        weights = sure * np.minimum(1, OUTLIER * boxes[:, 2:] / np.maximum(off, 1e-9))
    usable = (sure.sum(1) >= FEWEST) & (placed[..., 2].min(1) > NEAREST)
    fitted = crop_cam(torch.from_numpy(places), crops, **where).numpy()
    return np.where(usable[:, None], fitted, np.nan)


def steady_cameras(fitted: NDArray[np.floating], cam: NDArray[np.floating], *, fps: float) -> NDArray[np.float32]:
    """Cameras (N, 3) of all frames of a track, smooth over time.

    ``fitted`` (N, 3) are the cameras of ``fit_cameras``, with NaN; ``cam`` (N, 3) are the predicted cameras. In frames
    without a good fit, the difference between both is interpolated. Without any good fit, the result is ``cam``.
    """
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero(np.abs(np.log(fitted[:, 0] / cam[:, 0])) <= np.log(MAX_SCALE_RATIO))
    if not len(good):
        return cam.astype(np.float32)
    rows = np.arange(len(cam))
    change = np.column_stack([np.log(fitted[good, 0] / cam[good, 0]), fitted[good, 1:] - cam[good, 1:]])
    every = np.column_stack([np.interp(rows, good, column) for column in change.T])
    out = np.column_stack([cam[:, 0] * np.exp(every[:, 0]), cam[:, 1:] + every[:, 1:]])
    out[:, 0] = np.exp(gaussian_filter1d(np.log(out[:, 0]), SMOOTH_SECONDS * fps, mode="nearest"))
    out[:, 1:] = gaussian_filter1d(out[:, 1:], SMOOTH_SECONDS * fps, axis=0, mode="nearest")
    return out.astype(np.float32)


def _solved_translations(points: NDArray, rays: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Translations t (N, 3) m that bring points (N, J, 3) + t onto rays (N, J, 2: x/z, y/z).

    x + t_x = ray (z + t_z) is linear in t. Zero where all weights (N, J) are zero.
    """
    rows = np.zeros((*rays.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -rays
    wanted = rays * points[..., 2:] - points[..., :2]
    left = np.einsum("njki,nj,njkl->nil", rows, weights, rows) + 1e-12 * np.eye(3)
    right = np.einsum("njki,nj,njk->ni", rows, weights, wanted)
    return np.linalg.solve(left, right[..., None])[..., 0]
