"""Varied poses and motions: within the range of the clips, different from them, and as smooth."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from pipelines.motions import variety
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.motions.random_motion import random_chain


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def clips() -> dict[str, MotionClip]:
    return load_motions()


def test_poses_stay_within_what_the_clips_show_and_vary_beyond_it(clips: dict[str, MotionClip]) -> None:
    poses = variety.Variety(clips)
    rng = np.random.default_rng(0)
    drawn = np.stack([poses.draw(rng) for _ in range(60)])
    low, high = np.minimum(poses.low, variety.STANDING), np.maximum(poses.high, variety.STANDING)
    assert (drawn[:, 1:] >= low[1:] - 1e-6).all() and (drawn[:, 1:] <= high[1:] + 1e-6).all()
    upright = Rotation.from_rotvec(drawn[:, 0]).apply([0, 1, 0])[:, 1] > np.cos(0.5)
    assert 0.6 < upright.mean() < 1, "most people stand"
    nearest = np.abs(drawn[:, None, 1:] - poses.frames[None, ::4, 1:]).mean((2, 3)).min(1)
    assert np.median(nearest) > 0.03


def test_standing_people_have_their_arms_down(body: Body) -> None:
    rotmats = axis_angle_to_rotmat(torch.from_numpy(variety.STANDING).float())[None]
    joints = body(rotmats, torch.zeros(1, 10)).smpl_joints[0]
    names = variety.SMPL_JOINTS
    for side in ("left", "right"):
        shoulder, wrist = (joints[names.index(f"{side}_{part}")] for part in ("shoulder", "wrist"))
        assert wrist[1] < shoulder[1] - 0.3 and abs(wrist[0] - shoulder[0]) < 0.3


def turning(motion: MotionClip) -> np.ndarray:
    """(N - 1, 24) radians from frame to frame."""
    count = len(motion)
    rotations = Rotation.from_rotvec(motion.poses.reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    steps = rotations[:-1].transpose(0, 1, 3, 2) @ rotations[1:]
    return Rotation.from_matrix(steps.reshape(-1, 3, 3)).magnitude().reshape(count - 1, 24)


def test_varied_motions_are_as_smooth_as_their_clips(clips: dict[str, MotionClip]) -> None:
    around, names = variety.Variety(clips), sorted(clips)
    low, high = np.minimum(around.low, variety.STANDING), np.maximum(around.high, variety.STANDING)
    apart = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        two = [random_chain(rng, clips, first=names[(seed * k) % len(names)], frames=60) for k in (1, 5)]
        varied = around.vary(*two, rng)
        assert len(varied) == 60 and varied.fps == two[0].fps
        # Drifts of up to 0.8 * 0.35 rad with periods of 1.5 s and more add a little to the fastest frame.
        assert turning(varied).max() < max(turning(motion).max() for motion in two) + 0.15
        inside = (varied.poses[:, 1:] >= low[1:] - 1e-5) & (varied.poses[:, 1:] <= high[1:] + 1e-5)
        assert inside.all()
        apart.append(np.abs(varied.poses[:, 1:] - two[0].poses[:, 1:]).mean())
    assert np.median(apart) > 0.1


def test_the_same_random_state_gives_the_same_motion(clips: dict[str, MotionClip]) -> None:
    def made() -> MotionClip:
        rng = np.random.default_rng(3)
        chain = random_chain(rng, clips, first=sorted(clips)[0], frames=40)
        return variety.Variety(clips).vary(chain, chain, rng)

    assert np.array_equal(made().poses, made().poses)
