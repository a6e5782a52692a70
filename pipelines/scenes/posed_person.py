"""A motion, a body and its colours in, a Person in the world out: posed vertices and joints, standing on the floor."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, minimum_filter1d
from scipy.spatial.transform import Rotation

from glot.human.body import Body
from glot.human.joints import SMPL_JOINTS
from pipelines.motions.mocap import PELVIS, Motion, is_cycle, join, mirror, resample, turned

BATCH = 32
HIPS = [SMPL_JOINTS.index(name) for name in ("left_hip", "right_hip")]
ANKLES = [SMPL_JOINTS.index(name) for name in ("left_ankle", "right_ankle")]
CAPTURED_LEGS = (
    0.82  # metres from hip to ankle of the people the shipped clips were recorded with; strides scale with it
)
MISMATCH = 0.15  # metres; gaps below the feet much smaller than this are closed, much larger ones stay
UPPER = [
    SMPL_JOINTS.index(name)
    for name in SMPL_JOINTS
    if any(part in name for part in ("collar", "shoulder", "elbow", "wrist", "hand", "neck", "head"))
]


@dataclass(frozen=True)
class Person:
    """One person of a clip of N frames. World frame, y up, the floor at y = 0, metres, radians.

    ``poses`` (N, 24, 3), ``trans`` (N, 3) as SMPL's transl (added after posing about SMPL's own origin),
    ``betas`` (10,), ``vertices`` (N, V, 3), ``smpl_joints`` (N, 24, 3), ``joints`` (N, 49, 3), ``colours`` (V, 3).
    """

    poses: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    vertices: np.ndarray
    smpl_joints: np.ndarray
    joints: np.ndarray
    colours: np.ndarray


def random_betas(rng: np.random.Generator) -> np.ndarray:
    """(10,) standard normal, clipped to 2."""
    return np.clip(rng.standard_normal(10), -2, 2).astype(np.float32)


def random_chain(rng: np.random.Generator, clips: dict[str, Motion], *, first: str, frames: int) -> Motion:
    """``frames`` of motion that open with clip ``first`` (mirrored half of the time, a little faster or slower) and go
    on with it again if it is a cycle, else with other clips. Starts anywhere in them, facing anywhere."""
    flip, pace = rng.random() < 0.5, rng.uniform(0.85, 1.15)

    def played(name: str) -> Motion:
        motion = mirror(clips[name]) if flip else clips[name]
        times = np.arange(0, (len(motion) - 1) / motion.fps, pace / motion.fps)
        return resample(motion, times=times)

    names = sorted(clips)
    name, motion = first, turned(played(first), yaw=rng.uniform(-np.pi, np.pi))
    while len(motion) < frames:
        if not (is_cycle(clips[name]) and rng.random() < 0.8):
            name = names[rng.integers(len(names))]
        motion = join(motion, played(name))
    start = int(rng.integers(len(motion) - frames + 1))
    return Motion(motion.poses[start : start + frames], motion.trans[start : start + frames], motion.fps)


def random_pose(rng: np.random.Generator, clips: dict[str, Motion]) -> Motion:
    """One frame of a clip, every second time with the arms and head of another: many more poses than were recorded."""
    names = sorted(clips)
    lower, upper = (clips[names[rng.integers(len(names))]] for _ in range(2))
    pose = lower.poses[rng.integers(len(lower))].copy()
    if rng.random() < 0.5:
        pose[UPPER] = upper.poses[rng.integers(len(upper))][UPPER]
    pose[1:] += rng.normal(0, 0.06, (23, 1)) * rng.standard_normal((23, 3))
    motion = Motion(pose[None].astype(np.float32), np.array([[0, 0.9, 0]], dtype=np.float32))
    motion = mirror(motion) if rng.random() < 0.5 else motion
    return turned(motion, yaw=rng.uniform(-np.pi, np.pi))


def place(body: Body, motion: Motion, *, betas: np.ndarray, colours: np.ndarray) -> Person:
    """Poses ``body`` with every frame of ``motion`` and stands it on the floor."""
    count = len(motion)
    rotmats = Rotation.from_rotvec(motion.poses.reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    parts = []
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            turns = torch.as_tensor(rotmats[start : start + BATCH], dtype=torch.float32)
            out = body(turns, torch.as_tensor(betas).expand(len(turns), 10))
            parts.append((out.vertices.numpy(), out.smpl_joints.numpy(), out.joints.numpy()))
    vertices, smpl_joints, joints = (np.concatenate(p) for p in zip(*parts, strict=True))
    root = smpl_joints[:1, PELVIS]  # the pelvis stays where it is at rest, whatever the pose
    legs = np.linalg.norm(smpl_joints[0, HIPS].mean(0) - smpl_joints[0, ANKLES], axis=-1).max()
    scale = np.clip(max(legs, 0.6) / CAPTURED_LEGS, 0.7, 1.3)
    trans = motion.trans * scale - root
    trans[:, 1] += floor_lift((vertices[..., 1] + trans[:, None, 1]).min(1))
    trans = trans.astype(np.float32)
    move = trans[:, None]
    return Person(motion.poses, trans, betas, vertices + move, smpl_joints + move, joints + move, colours)


def floor_lift(lowest: np.ndarray) -> np.ndarray:
    """What to add to the height of each frame so that people stand on the floor, from its lowest vertex's height (N,).

    The recorded person's legs are not this body's. The ground is taken to be the lowest point within half a second, and
    small gaps above it for the mismatch that they are; jumps stay jumps, and nobody sinks in by more than a centimetre.
    """
    ground = gaussian_filter1d(minimum_filter1d(lowest.astype(np.float64), size=31, mode="nearest"), 6, mode="nearest")
    gap = np.maximum(lowest - ground, 0)
    closed = gap - gap * gap / (gap + MISMATCH)
    lift = -ground - gaussian_filter1d(closed, 1.5, mode="nearest")
    sunk = np.maximum(0, -(lowest + lift) - 0.01)
    # Spread each frame's remaining rescue over its neighbours, never below what it needs itself.
    return lift + np.maximum(sunk, gaussian_filter1d(sunk, 2, mode="nearest"))
