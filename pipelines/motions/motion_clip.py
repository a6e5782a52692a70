"""Clips of human motion: resample, mirror, turn, compare and join them.

A clip has SMPL's 24 joints (local rotations, T-pose at rest). y is up; at rest a person faces +z.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from glot.human.joints import SMPL_JOINTS, SMPL_MIRROR

FPS = 30.0
PELVIS = SMPL_JOINTS.index("pelvis")
# The blend between two clips turns joints by at most this much a frame (1.8 rad/s), averaged over the joints.
BLEND_RADIANS = 0.06
# If the first and the last pose of a clip are closer than this, averaged over the joints, it can be played in a loop.
CYCLE_RADIANS = 0.12


@dataclass(frozen=True)
class MotionClip:
    """``poses`` (N, 24, 3) axis-angle, radians; ``trans`` (N, 3) of the pelvis, metres, up to a constant.

    ``subject``: the person, and ``split``: train, validation or test, where the files say so; else "". Clips that are
    made from others (mirrored, joined, resampled) have neither.
    """

    poses: np.ndarray
    trans: np.ndarray
    fps: float = FPS
    subject: str = ""
    split: str = ""

    def __len__(self) -> int:
        return len(self.poses)


def resample(clip: MotionClip, *, fps: float = FPS, times: np.ndarray | None = None) -> MotionClip:
    """The clip at another frame rate, or at ``times`` (seconds): slerp for rotations, linear for translation."""
    clip_times = np.arange(len(clip)) / clip.fps
    if times is None:
        if abs(clip.fps / fps - 1) < 1e-3:  # files round their frame time
            return MotionClip(clip.poses, clip.trans, fps)
        times = np.arange(int(clip_times[-1] * fps + 0.01) + 1) / fps
    times = np.clip(times, clip_times[0], clip_times[-1])
    poses = np.stack(
        [Slerp(clip_times, Rotation.from_rotvec(clip.poses[:, j]))(times).as_rotvec() for j in range(24)], axis=1
    )
    trans = np.stack([np.interp(times, clip_times, clip.trans[:, k]) for k in range(3)], axis=1)
    return MotionClip(poses.astype(np.float32), trans.astype(np.float32), fps)


def mirror(clip: MotionClip) -> MotionClip:
    """Left and right exchanged, which is another possible human motion. Mirrored twice, a clip is the original."""
    flip = np.array([1, -1, -1], dtype=np.float32)  # rotation vectors are pseudovectors: x stays, y and z change sign
    return MotionClip(clip.poses[:, SMPL_MIRROR] * flip, clip.trans * np.array([-1, 1, 1], dtype=np.float32), clip.fps)


def turned(clip: MotionClip, *, yaw: float, to: np.ndarray | None = None) -> MotionClip:
    """The clip turned by ``yaw`` radians about the vertical and moved: its first frame is above ``to`` (x, z; None:
    the origin)."""
    turn = Rotation.from_euler("y", yaw)
    poses = clip.poses.copy()
    poses[:, PELVIS] = (turn * Rotation.from_rotvec(poses[:, PELVIS])).as_rotvec()
    trans = turn.apply(clip.trans - clip.trans[0] * [1, 0, 1])
    trans[:, [0, 2]] += np.zeros(2) if to is None else to
    return MotionClip(poses, trans.astype(np.float32), clip.fps)


def heading(pose: np.ndarray) -> float:
    """Where a pose (24, 3) faces: radians about the vertical, from +z. Lying down: where the head points."""
    forward, up = Rotation.from_rotvec(pose[PELVIS]).apply([[0, 0, 1], [0, 1, 0]])
    level = forward if abs(forward[1]) < 0.8 else -np.sign(forward[1]) * up
    return float(np.arctan2(level[0], level[2]))


def pose_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean angle (radians) between the joints of two poses (24, 3), regardless of where they face."""
    a, b = a.copy(), b.copy()
    for pose in (a, b):
        pose[PELVIS] = (Rotation.from_euler("y", -heading(pose)) * Rotation.from_rotvec(pose[PELVIS])).as_rotvec()
    return float((Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude().mean())


def is_cycle(clip: MotionClip) -> bool:
    """Whether the clip ends as it began (a walk, a run, a dance figure) and can be played in a loop without a jump."""
    return pose_distance(clip.poses[0], clip.poses[-1]) < CYCLE_RADIANS


def join(first: MotionClip, second: MotionClip) -> MotionClip:
    """``first``, then ``second``, which continues from the place and the direction in which ``first`` ends.

    Unless the two poses are nearly equal, slerped frames are put between them.
    """
    assert first.fps == second.fps
    last = first.poses[-1]
    second = turned(second, yaw=heading(last) - heading(second.poses[0]), to=first.trans[-1][[0, 2]])
    gap = pose_distance(last, second.poses[0])
    count = 0 if gap < BLEND_RADIANS else int(np.ceil(gap / BLEND_RADIANS))
    # During the blend, the body moves at the mean speed of the two ends, so that nobody stops abruptly.
    step = 0.5 * (first.trans[-1] - first.trans[-2] + second.trans[1] - second.trans[0]) * [1, 0, 1]
    shift = (step * (count + 1)).astype(np.float32)
    second = MotionClip(second.poses, second.trans + shift, second.fps)
    if count == 0:
        return MotionClip(
            np.concatenate([first.poses, second.poses]), np.concatenate([first.trans, second.trans]), first.fps
        )
    share = np.linspace(0, 1, count + 2)[1:-1]
    ease = share * share * (3 - 2 * share)
    middle = np.stack(
        [
            Slerp([0, 1], Rotation.from_rotvec(np.stack([last[j], second.poses[0, j]])))(ease).as_rotvec()
            for j in range(24)
        ],
        axis=1,
    ).astype(np.float32)
    path = first.trans[-1] + ease[:, None] * (second.trans[0] - first.trans[-1])
    return MotionClip(
        np.concatenate([first.poses, middle, second.poses]),
        np.concatenate([first.trans, path.astype(np.float32), second.trans]),
        first.fps,
    )
