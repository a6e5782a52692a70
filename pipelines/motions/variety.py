"""Recorded clips in, random poses and motions similar to them out.

A dozen clips contain few poses. A network has to learn how limbs look and move in any combination.
"""

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from glot.human.joints import SMPL_JOINTS
from pipelines.motions.motion_clip import PELVIS, MotionClip, heading, mirror

SLACK = 0.15  # radians by which a joint may go beyond the range in the clips
# Most people in videos stand, but most clips are acrobatics.
UPRIGHT = 0.7  # share of the poses that are put upright
CALM = 0.7  # share of the upright poses that are also moved towards STANDING
CALMED = (0.3, 0.95)  # range of the distance that they are moved; 1 is all the way to STANDING
TILT = 0.12  # standard deviation of the lean of the whole body, radians
# Random movement of joints: standard deviation at full strength, radians; 0.1 for joints that are not listed.
SPREAD = {"hip": 0.25, "knee": 0.25, "ankle": 0.15, "shoulder": 0.35, "elbow": 0.35, "wrist": 0.2}
SPREAD |= {"neck": 0.15, "head": 0.15}
ARM, LEG = ("collar", "shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot")
LIMBS = [
    [SMPL_JOINTS.index(f"{side}_{part}") for part in parts] for side in ("left", "right") for parts in (ARM, LEG)
] + [[SMPL_JOINTS.index(name) for name in ("spine1", "spine2", "spine3", "neck", "head")]]


STANDING = np.zeros((24, 3))  # somebody who stands with the arms down; axis-angle, radians
for _side, _sign in (("left", -1.0), ("right", 1.0)):
    STANDING[SMPL_JOINTS.index(f"{_side}_shoulder")] = [0, 0, _sign * 1.2]
    STANDING[SMPL_JOINTS.index(f"{_side}_elbow")] = [0, _sign * 0.3, 0]


class Variety:
    """Random poses and motions from some clips: limbs of different frames are combined, joints moved, bodies tilted.

    No joint leaves its range in the clips and their mirror images by more than ``SLACK``, so no knee bends forwards.
    """

    def __init__(self, clips: dict[str, MotionClip]) -> None:
        poses = np.concatenate([clips[name].poses for name in sorted(clips)])
        mirrored = mirror(MotionClip(poses, np.zeros((len(poses), 3), np.float32))).poses
        self.frames = np.concatenate([poses, mirrored]).astype(np.float64)
        self.low, self.high = self.frames.min(0) - SLACK, self.frames.max(0) + SLACK
        spread = [next((s for part, s in SPREAD.items() if part in name), 0.1) for name in SMPL_JOINTS]
        self.spread = np.array(spread)[:, None]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A random pose (24, 3), axis-angle, radians; fully determined by the state of ``rng``."""
        pose = self._frame(rng).copy()
        if rng.random() < 0.35:
            other, share = self._frame(rng), rng.uniform(0.2, 0.8)
            for joint in range(1, 24):
                pair = Rotation.from_rotvec(np.stack([pose[joint], other[joint]]))
                pose[joint] = Slerp([0, 1], pair)(share).as_rotvec()
        for limb in LIMBS:
            if rng.random() < 0.3:
                pose[limb] = self._frame(rng)[limb]
        strength = rng.uniform(0, 0.8)
        pose[1:] += strength * self.spread[1:] * rng.standard_normal((23, 3))
        pose[1:] = np.clip(pose[1:], self.low[1:], self.high[1:])
        lean = Rotation.from_rotvec(rng.normal(0, TILT, 3) * [1, 0, 1])
        if rng.random() < UPRIGHT:
            pose[PELVIS] = lean.as_rotvec()  # facing +z: cameras look from all sides
            if rng.random() < CALM:
                pose[1:] += rng.uniform(*CALMED) * (STANDING[1:] - pose[1:])
        else:
            pose[PELVIS] = (lean * Rotation.from_rotvec(pose[PELVIS])).as_rotvec()
        return pose.astype(np.float32)

    def vary(self, clip: MotionClip, other: MotionClip, rng: np.random.Generator) -> MotionClip:
        """``clip`` with some limbs moving as in ``other`` (of the same length) and with joints that drift slowly.

        Most people are also put upright, turn slowly, and are moved towards ``STANDING``. The result is as smooth as
        the two clips, except where a joint reaches the end of its range.
        """
        poses = clip.poses.astype(np.float64)
        for limb in LIMBS:
            if rng.random() < 0.35:
                poses[:, limb] = other.poses[:, limb]
        seconds = np.arange(len(clip)) / clip.fps
        strength = rng.uniform(0, 0.8)
        for joint in range(1, 24):
            drift = rng.standard_normal(3) + self._wave(seconds, rng)
            poses[:, joint] += strength * self.spread[joint] * drift
        poses[:, 1:] = np.clip(poses[:, 1:], self.low[1:], self.high[1:])
        lean = Rotation.from_rotvec(rng.normal(0, TILT, 3) * [1, 0, 1])
        root = Rotation.from_rotvec(poses[:, PELVIS])
        if rng.random() < UPRIGHT:
            yaw = heading(clip.poses[0]) + rng.normal(0, 0.5) * seconds + 0.3 * self._wave(seconds, rng)[:, 0]
            root = Rotation.from_euler("y", yaw[:, None])
            if rng.random() < CALM:
                poses[:, 1:] += rng.uniform(*CALMED) * (STANDING[1:] - poses[:, 1:])
        poses[:, PELVIS] = (lean * root).as_rotvec()
        return MotionClip(poses.astype(np.float32), clip.trans, clip.fps)

    @staticmethod
    def _wave(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N, 3) sine waves with periods of 1.5 to 4 seconds and random phases."""
        return np.sin(2 * np.pi * (seconds[:, None] / rng.uniform(1.5, 4, 3) + rng.random(3)))

    def draw_clip(self, rng: np.random.Generator) -> MotionClip:
        """A random pose as a clip of one frame."""
        return MotionClip(self.draw(rng)[None], np.zeros((1, 3), np.float32))

    def _frame(self, rng: np.random.Generator) -> np.ndarray:
        return self.frames[rng.integers(len(self.frames))]
