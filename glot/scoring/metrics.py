"""Joint or vertex positions in metres in; the paper's four errors of each frame in metres out (float64 numpy).

N frames, J joints, V vertices. Nothing is averaged over frames here, and no meaning is guessed from array sizes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glot.human.joints import L_HIP, R_HIP

FloatArray = NDArray[np.float64]

HIPS = (R_HIP, L_HIP)  # indices among the 14 common joints; their mean is the pelvis


def centred(joints: ArrayLike, pelvis: Sequence[int] = HIPS) -> FloatArray:
    """Joints (N, J, 3) relative to the mean of the joints listed in ``pelvis``."""
    values = np.asarray(joints, np.float64)
    return values - values[:, list(pelvis)].mean(axis=1, keepdims=True)


def mpjpe(pred: ArrayLike, target: ArrayLike, *, pelvis: Sequence[int] = HIPS) -> FloatArray:
    """Mean per joint position error (N,). ``pred`` and ``target`` (N, J, 3) are each centred on their pelvis first."""
    p, t = _pair(pred, target)
    return np.linalg.norm(centred(p, pelvis) - centred(t, pelvis), axis=-1).mean(axis=-1)


def pa_mpjpe(pred: ArrayLike, target: ArrayLike) -> FloatArray:
    """Procrustes-aligned MPJPE (N,): each predicted frame is moved, turned and scaled onto its target first."""
    p, t = _pair(pred, target)
    return np.linalg.norm(procrustes_aligned(p, t) - t, axis=-1).mean(axis=-1)


def procrustes_aligned(pred: ArrayLike, target: ArrayLike) -> FloatArray:
    """``pred`` (N, J, 3), each frame moved, turned and scaled (never reflected) as close to ``target`` as possible.

    A frame whose predicted joints all coincide has no scale. It is moved to the target's centroid; the official code
    gives NaN. The official function decides by the *batch size* whether to transpose, and is wrong for batches of 2 and
    3. This function does not depend on the batch size.
    """
    p, t = _pair(pred, target)
    mean_p, mean_t = p.mean(axis=1, keepdims=True), t.mean(axis=1, keepdims=True)
    p0, t0 = p - mean_p, t - mean_t
    covariance = np.einsum("nji,njk->nik", p0, t0)
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.ones((len(p), 3))
    signs[:, 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = np.einsum("nij,nj,nkj->nik", vt.transpose(0, 2, 1), signs, u)  # V diag(signs) U^T
    spread = (p0**2).sum(axis=(1, 2))
    scale = np.divide((singular * signs).sum(axis=1), spread, out=np.zeros(len(p)), where=spread > 0)
    return scale[:, None, None] * np.einsum("nik,njk->nji", rotation, p0) + mean_t


def accel_error(pred: ArrayLike, target: ArrayLike, *, pelvis: Sequence[int] = HIPS) -> FloatArray:
    """Acceleration error (N - 2,) of frames 1 ... N - 2, in m / frame^2; the frame rate is not used, as in the paper.

    Mean over joints of |a_pred - a_target| with a_i = x_{i-1} - 2 x_i + x_{i+1} of the pelvis-centred joints
    (N, J, 3). Fewer than three frames give an empty array.
    """
    p, t = _pair(pred, target)
    difference = centred(p, pelvis) - centred(t, pelvis)
    if len(difference) < 3:
        return np.empty(0)
    return np.linalg.norm(difference[:-2] - 2 * difference[1:-1] + difference[2:], axis=-1).mean(axis=-1)


def mpvpe(pred: ArrayLike, target: ArrayLike) -> FloatArray:
    """Mean per vertex position error (N,) of vertices (N, V, 3), *without* alignment: both have the same origin."""
    p, t = _pair(pred, target)
    return np.linalg.norm(p - t, axis=-1).mean(axis=-1)


def _pair(pred: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, t = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if p.shape != t.shape or p.ndim != 3 or p.shape[2] != 3:
        raise ValueError(f"prediction {p.shape} and target {t.shape}: both must be (frames, points, 3) of one size")
    return p, t
