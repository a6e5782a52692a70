"""Clips and a random generator in, motions and poses for rendering out: clips joined, mirrored and turned at random."""

import numpy as np

from glot.human.joints import SMPL_JOINTS
from pipelines.motions.motion_clip import MotionClip, is_cycle, join, mirror, resample, turned

ARMS_AND_HEAD = [
    SMPL_JOINTS.index(name)
    for name in SMPL_JOINTS
    if any(part in name for part in ("collar", "shoulder", "elbow", "wrist", "hand", "neck", "head"))
]


def random_chain(rng: np.random.Generator, clips: dict[str, MotionClip], *, first: str, frames: int) -> MotionClip:
    """``frames`` frames from a chain of clips that begins with ``first``. A clip that is a cycle is mostly repeated.

    Half of the chains are mirrored, and all are a little faster or slower than recorded. They start anywhere in the
    chain and face any direction.
    """
    flip, pace = rng.random() < 0.5, rng.uniform(0.85, 1.15)

    def played(name: str) -> MotionClip:
        clip = mirror(clips[name]) if flip else clips[name]
        times = np.arange(0, (len(clip) - 1) / clip.fps, pace / clip.fps)
        return resample(clip, times=times)

    names = sorted(clips)
    name, chain = first, turned(played(first), yaw=rng.uniform(-np.pi, np.pi))
    while len(chain) < frames:
        if not (is_cycle(clips[name]) and rng.random() < 0.8):
            name = names[rng.integers(len(names))]
        chain = join(chain, played(name))
    start = int(rng.integers(len(chain) - frames + 1))
    return MotionClip(chain.poses[start : start + frames], chain.trans[start : start + frames], chain.fps)


def random_pose(rng: np.random.Generator, clips: dict[str, MotionClip]) -> MotionClip:
    """One frame of a clip, half of the time with the arms and the head of another frame, and with small changes."""
    names = sorted(clips)
    lower, upper = (clips[names[rng.integers(len(names))]] for _ in range(2))
    pose = lower.poses[rng.integers(len(lower))].copy()
    if rng.random() < 0.5:
        pose[ARMS_AND_HEAD] = upper.poses[rng.integers(len(upper))][ARMS_AND_HEAD]
    pose[1:] += rng.normal(0, 0.06, (23, 1)) * rng.standard_normal((23, 3))
    clip = MotionClip(pose[None].astype(np.float32), np.array([[0, 0.9, 0]], dtype=np.float32))
    clip = mirror(clip) if rng.random() < 0.5 else clip
    return turned(clip, yaw=rng.uniform(-np.pi, np.pi))
