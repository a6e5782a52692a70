"""A Motion in, a calmer or a gapless one out: the one-euro filter, and interpolation over frames that are missing.

The filter (Casiez, Roussel and Vogel, CHI 2012) is a low pass whose cutoff rises with speed: what rests is held still,
what moves fast is let through. It looks at the past only, so a frame's answer never changes as the video goes on.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from glot.body import JOINTS, Body
from glot.model import SMPLParams
from glot.motion import Motion, make_motion, with_bodies

MIN_CUTOFF, BETA = 1.0, 4.0
LEVER = 0.5  # m
SPEED_CUTOFF = 1.0  # Hz, of the speed that sets the cutoff: jitter has no lasting speed


def smooth(motion: Motion, body: Body, *, min_cutoff: float = MIN_CUTOFF, beta: float = BETA) -> Motion:
    """Rotations, places and shapes filtered; joints, keypoints and cameras follow from them. Frames, boxes stay.

    ``min_cutoff`` Hz: what remains of something at rest; lower is calmer. ``beta`` Hz per rad/s: higher follows fast
    moves more closely; moving at speed w, what comes out lags behind by w / (2 pi (min_cutoff + beta w)). Places take
    ``beta`` per half metre a second, about what a limb's end does at 1 rad/s. Where a person is seen is known better
    than how far away, so depth is filtered apart, as a logarithm. Shapes have no speed: they get ``min_cutoff`` only.
    """
    times = motion.frames / motion.fps
    depth = motion.transl[:, 2:].astype(np.float64)
    usual = float(np.median(depth))
    across = motion.transl[:, :2] / depth * usual  # m at that depth
    across = one_euro(across, times, min_cutoff=min_cutoff, beta=beta / LEVER) / usual
    depth = np.exp(one_euro(np.log(depth), times, min_cutoff=min_cutoff, beta=beta))
    return with_bodies(
        motion,
        body,
        rotmats=one_euro_rotations(motion.rotmats, times, min_cutoff=min_cutoff, beta=beta),
        betas=one_euro(motion.betas, times, min_cutoff=min_cutoff, beta=0),
        transl=np.concatenate((across * depth, depth), axis=1),
    )


def fill_gaps(motion: Motion, body: Body) -> Motion:
    """Every frame from the first to the last: rotations by slerp, the rest linearly; what was there stays.

    What is filled in counts as not seen, score 0.
    """
    frames = np.arange(motion.frames[0], motion.frames[-1] + 1)
    if len(frames) == len(motion):
        return motion
    there = np.isin(frames, motion.frames)

    def between(values: NDArray) -> NDArray[np.float32]:
        columns = [np.interp(frames, motion.frames, column) for column in values.reshape(len(motion), -1).T]
        return np.stack(columns, axis=1).reshape(len(frames), *values.shape[1:]).astype(np.float32)

    rotmats = np.empty((len(frames), JOINTS, 3, 3), np.float32)
    for joint in range(JOINTS):
        known = Rotation.from_matrix(motion.rotmats[:, joint])
        rotmats[:, joint] = Slerp(motion.frames, known)(frames).as_matrix()
    rotmats[there] = motion.rotmats
    seen, scores = np.zeros(len(frames), np.bool_), np.zeros(len(frames), np.float32)
    seen[there], scores[there] = motion.seen, motion.scores
    return make_motion(
        SMPLParams(*map(torch.from_numpy, (rotmats, between(motion.betas), between(motion.cam)))),
        body,
        person=motion.person,
        frames=frames,
        bbox=between(motion.bbox),
        crop_scale=between(motion.crop_scale),
        seen=seen,
        scores=scores,
        fps=motion.fps,
        width=motion.width,
        height=motion.height,
        focal=motion.focal,
    )


def one_euro(values: NDArray, times: NDArray, *, min_cutoff: float, beta: float) -> NDArray[np.float64]:
    """values (N, K) at times (N,) s, rising -> filtered (N, K), each column by its own speed."""
    out = np.array(values, np.float64)
    speed = np.zeros(out.shape[1:])
    for i in range(1, len(out)):
        step = times[i] - times[i - 1]
        change = (np.asarray(values[i], np.float64) - values[i - 1]) / step
        speed += _share(SPEED_CUTOFF, step) * (change - speed)
        out[i] = out[i - 1] + _share(min_cutoff + beta * np.abs(speed), step) * (values[i] - out[i - 1])
    return out


def one_euro_rotations(rotmats: NDArray, times: NDArray, *, min_cutoff: float, beta: float) -> NDArray[np.float64]:
    """rotmats (N, J, 3, 3) at times (N,) s, rising -> filtered, each joint by its own angular speed.

    Steps are taken along the shortest arc from the last answer, so no choice of axes or quaternion sign matters.
    """
    count, joints = rotmats.shape[:2]
    turns = Rotation.from_matrix(rotmats.reshape(-1, 3, 3))
    changes = (turns[:-joints].inv() * turns[joints:]).as_rotvec().reshape(-1, joints, 3)  # in the joint's own frame
    out = turns.as_quat().reshape(count, joints, 4)
    velocity = np.zeros((joints, 3))  # rad/s
    for i, change in enumerate(changes, start=1):
        step = times[i] - times[i - 1]
        velocity += _share(SPEED_CUTOFF, step) * (change / step - velocity)
        speed = np.sqrt((velocity**2).sum(axis=-1, keepdims=True))
        out[i] = _on_the_way(out[i - 1], out[i], _share(min_cutoff + beta * speed, step))
    return Rotation.from_quat(out.reshape(-1, 4)).as_matrix().reshape(rotmats.shape)


def _on_the_way(start: NDArray, end: NDArray, share: float | NDArray) -> NDArray:
    """Slerp of unit quaternions (J, 4) the shorter way; scipy's takes one series of rotations at a time."""
    end = np.where((start * end).sum(axis=-1, keepdims=True) < 0, -end, end)
    sizes = (np.sqrt((each**2).sum(axis=-1, keepdims=True)) for each in (end - start, end + start))
    angle = 2 * np.arctan2(*sizes)
    small = angle < 1e-6  # where sines are as good as straight
    sine = np.where(small, 1, np.sin(angle))
    first, second = (np.where(small, part, np.sin(part * angle) / sine) for part in (1 - share, share))
    out = first * start + second * end
    return out / np.sqrt((out**2).sum(axis=-1, keepdims=True))


def _share(cutoff: float | NDArray, step: float) -> float | NDArray:
    """Of a new value in a first-order low pass of ``cutoff`` Hz, ``step`` s after the last one."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
