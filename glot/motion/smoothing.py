"""A Motion in; a smoother one (one-euro filter), or one without gaps (interpolation), out.

The filter (Casiez, Roussel and Vogel, CHI 2012) is a low pass whose cutoff rises with speed. So a body at rest is held
still, and fast movement passes. It uses past frames only: later frames never change its output.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from glot.human.body import Body
from glot.human.joints import JOINTS
from glot.models.smpl_params import SMPLParams
from glot.motion.person_motion import Motion, make_motion, with_bodies

MIN_CUTOFF, BETA = 1.0, 4.0  # Hz, Hz per rad/s
LEVER = 0.5  # length of a limb, m: when it turns at 1 rad/s, its end moves at this many m/s
SPEED_CUTOFF = (
    1.0  # Hz, cutoff of the low pass for the speed, so that jitter, which has no lasting speed, changes it little
)


class Smoother:
    """Filters rotations, places and shapes of one person's motion, given in consecutive pieces.

    Joints, keypoints and cameras are computed from the filtered bodies; frames and boxes stay. The result does not
    depend on how the motion is cut into pieces.

    ``min_cutoff`` Hz is the cutoff at rest; lower is smoother. ``beta`` Hz per rad/s raises it with speed; higher lags
    less: at speed w the output lags by w / (2 pi (min_cutoff + beta w)). For places, ``beta`` is Hz per LEVER metres a
    second. The logarithm of the depth is filtered separately from the direction, because depth is less exact. Shapes do
    not move, so their cutoff is ``min_cutoff``.
    """

    def __init__(self, body: Body, *, min_cutoff: float = MIN_CUTOFF, beta: float = BETA) -> None:
        self.body = body
        self.turns = OneEuroRotations(min_cutoff=min_cutoff, beta=beta)
        self.shapes = OneEuro(min_cutoff=min_cutoff, beta=0)
        self.depths = OneEuro(min_cutoff=min_cutoff, beta=beta)
        self.across = OneEuro(min_cutoff=min_cutoff, beta=beta / LEVER)

    def __call__(self, piece: Motion) -> Motion:
        times = piece.frames / piece.fps
        depth = np.exp(self.depths(np.log(piece.transl[:, 2:].astype(np.float64)), times))
        # Directions x / z, y / z; their speed counts in metres a second at that depth.
        across = self.across(piece.transl[:, :2] / piece.transl[:, 2:].astype(np.float64), times, metres=depth)
        return with_bodies(
            piece,
            self.body,
            rotmats=self.turns(piece.rotmats, times),
            betas=self.shapes(piece.betas, times),
            transl=np.concatenate((across * depth, depth), axis=1),
        )


def fill_gaps(motion: Motion, body: Body) -> Motion:
    """The motion at every frame from the first to the last. Its own frames do not change.

    Rotations are interpolated by slerp, all other values linearly. Interpolated frames have seen = False and score 0.
    """
    frames = np.arange(motion.frames[0], motion.frames[-1] + 1)
    if len(frames) == len(motion):
        return motion
    present = np.isin(frames, motion.frames)

    def between(values: NDArray) -> NDArray[np.float32]:
        columns = [np.interp(frames, motion.frames, column) for column in values.reshape(len(motion), -1).T]
        return np.stack(columns, axis=1).reshape(len(frames), *values.shape[1:]).astype(np.float32)

    rotmats = np.empty((len(frames), JOINTS, 3, 3), np.float32)
    for joint in range(JOINTS):
        turns = Rotation.from_matrix(motion.rotmats[:, joint])
        rotmats[:, joint] = Slerp(motion.frames, turns)(frames).as_matrix()
    rotmats[present] = motion.rotmats
    seen, scores = np.zeros(len(frames), np.bool_), np.zeros(len(frames), np.float32)
    seen[present], scores[present] = motion.seen, motion.scores
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


class OneEuro:
    """values (n, K) at times (n,) s, rising from call to call -> filtered (n, K), each column by its speed.

    ``metres`` (n, 1): the length in metres of a unit of the values at that time, if ``beta`` is per metre a second.
    """

    def __init__(self, *, min_cutoff: float, beta: float) -> None:
        self.min_cutoff, self.beta = min_cutoff, beta
        self.time, self.value, self.speed, self.output = -np.inf, np.zeros(0), np.zeros(0), np.zeros(0)

    def __call__(
        self, values: NDArray[np.floating], times: NDArray, *, metres: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        out = np.array(values, np.float64)
        units = np.ones((len(out), 1)) if metres is None else metres
        for i, (value, time, unit) in enumerate(zip(out.copy(), times.tolist(), units, strict=True)):
            if np.isinf(self.time):
                self.speed, self.output = np.zeros(out.shape[1:]), value
            else:
                step = time - self.time
                self.speed = self.speed + _share(SPEED_CUTOFF, step) * ((value - self.value) / step - self.speed)
                cutoff = self.min_cutoff + self.beta * np.abs(self.speed) * unit
                self.output = self.output + _share(cutoff, step) * (value - self.output)
            self.time, self.value = time, value
            out[i] = self.output
        return out


class OneEuroRotations:
    """rotmats (n, J, 3, 3) at times (n,) s, rising from call to call -> filtered, each joint by its angular speed.

    Each step goes along the shortest arc from the last output, so the choice of axes or of a quaternion's sign has no
    effect.
    """

    def __init__(self, *, min_cutoff: float, beta: float) -> None:
        self.min_cutoff, self.beta = min_cutoff, beta
        self.time, self.turns, self.velocity, self.output = -np.inf, Rotation.identity(1), np.zeros(0), np.zeros(0)

    def __call__(self, rotmats: NDArray[np.floating], times: NDArray) -> NDArray[np.float64]:
        count, joints = rotmats.shape[:2]
        turns = Rotation.from_matrix(rotmats.reshape(-1, 3, 3))
        series = Rotation.concatenate([turns[:joints] if np.isinf(self.time) else self.turns, turns])
        # Rotation vectors in the frame of the joint.
        changes = (series[:-joints].inv() * series[joints:]).as_rotvec().reshape(-1, joints, 3)
        out = turns.as_quat().reshape(count, joints, 4)
        for i, (change, time) in enumerate(zip(changes, times.tolist(), strict=True)):
            if np.isinf(self.time):
                self.velocity, self.output = np.zeros((joints, 3)), out[0]  # rad/s
            else:
                step = time - self.time
                self.velocity = self.velocity + _share(SPEED_CUTOFF, step) * (change / step - self.velocity)
                speed = np.sqrt((self.velocity**2).sum(axis=-1, keepdims=True))
                self.output = _slerp(self.output, out[i], _share(self.min_cutoff + self.beta * speed, step))
            self.time = time
            out[i] = self.output
        self.turns = turns[-joints:]
        return Rotation.from_quat(out.reshape(-1, 4)).as_matrix().reshape(rotmats.shape)


def _slerp(start: NDArray, end: NDArray, share: float | NDArray) -> NDArray:
    """Slerp of unit quaternions (J, 4) along the shorter arc. (scipy's takes one series of rotations at a time.)"""
    end = np.where((start * end).sum(axis=-1, keepdims=True) < 0, -end, end)
    sizes = (np.sqrt((each**2).sum(axis=-1, keepdims=True)) for each in (end - start, end + start))
    angle = 2 * np.arctan2(*sizes)
    small = angle < 1e-6  # here the sine of an angle is the angle itself
    sine = np.where(small, 1, np.sin(angle))
    first, second = (np.where(small, part, np.sin(part * angle) / sine) for part in (1 - share, share))
    out = first * start + second * end
    return out / np.sqrt((out**2).sum(axis=-1, keepdims=True))


def _share(cutoff: float | NDArray, step: float) -> float | NDArray:
    """The share of a new value, ``step`` s after the last one, in a first-order low pass of ``cutoff`` Hz."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
