"""An independent reader finds the skeleton where the body is; channels do not jump, and the time is right."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import bvhsdk.bvh as independent
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glot.human.body import Body, load_body
from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS
from glot.motion.bvh import steady_angles, write_bvh
from glot.motion.person_motion import Y_UP, Motion, with_bodies
from glot.motion.smoothing import fill_gaps
from pipelines.motions.bvh_reader import read_bvh
from tests.fixtures.motion import GAPPY, moving


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def of_one_shape(motion: Motion, body: Body) -> Motion:
    betas = np.tile(motion.betas.mean(axis=0), (len(motion), 1))
    return with_bodies(motion, body, rotmats=motion.rotmats, betas=betas, transl=motion.transl)


def read(path: Path) -> tuple[dict[str, np.ndarray], float]:
    """{joint: places (N, 3) cm} and the frame time, read by an independent library."""
    with contextlib.redirect_stdout(io.StringIO()):
        animation = independent.ReadFile(str(path))
    joints = {
        j.name: np.stack([j.getPosition(i) for i in range(animation.frames)]) for j in animation.getlistofjoints()
    }
    return joints, animation.frametime


def test_another_reader_finds_the_joints_where_they_are(body: Body, tmp_path: Path) -> None:
    motion = of_one_shape(moving(body), body)
    write_bvh(tmp_path / "a.bvh", motion, body)
    joints, frame_time = read(tmp_path / "a.bvh")
    assert frame_time == pytest.approx(1 / 25) and set(joints) == set(SMPL_JOINTS)
    there = np.array(GAPPY) - GAPPY[0]
    for index, name in enumerate(SMPL_JOINTS):
        assert len(joints[name]) == GAPPY[-1] - GAPPY[0] + 1
        np.testing.assert_allclose(joints[name][there] / 100, motion.joints3d[:, index] @ Y_UP, rtol=0, atol=1e-4)
    # In the gaps, where the filled motion is.
    full = fill_gaps(motion, body)
    np.testing.assert_allclose(joints["left_wrist"] / 100, full.joints3d[:, 20] @ Y_UP, rtol=0, atol=1e-4)
    assert (joints["head"][:, 1] > joints["left_ankle"][:, 1] + 80).all()  # upright, in centimetres
    assert (joints["head"][:, 2] < 0).all()  # before a camera that looks along -z


def test_changing_betas_leave_the_pelvis_where_it_is(body: Body, tmp_path: Path) -> None:
    motion = moving(body, frames=range(5))
    write_bvh(tmp_path / "a.bvh", motion, body)
    joints, _ = read(tmp_path / "a.bvh")
    np.testing.assert_allclose(joints["pelvis"] / 100, motion.joints3d[:, 0] @ Y_UP, rtol=0, atol=1e-5)


def test_the_projects_reader_finds_the_same_bones(body: Body, tmp_path: Path) -> None:
    """The reader changes any skeleton to straight limbs at rest, so the directions of the limbs must be kept."""
    motion = of_one_shape(moving(body, frames=range(12), seed=2), body)
    write_bvh(tmp_path / "a.bvh", motion, body)
    poses, trans, fps = read_bvh(tmp_path / "a.bvh")
    assert fps == pytest.approx(25) and poses.shape == (12, 72)
    np.testing.assert_allclose(trans, motion.joints3d[:, 0] @ Y_UP, rtol=0, atol=1e-3)
    world: list[Rotation] = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = Rotation.from_rotvec(poses.reshape(-1, 24, 3)[:, joint])
        world.append(world[parent] * local if joint else local)
    for upper, lower, at_rest in (
        ("left_hip", "left_knee", [0, -1, 0]), ("right_knee", "right_ankle", [0, -1, 0]),
        ("left_shoulder", "left_elbow", [1, 0, 0]), ("right_elbow", "right_wrist", [-1, 0, 0]),
    ):  # fmt: skip
        upper_at, lower_at = SMPL_JOINTS.index(upper), SMPL_JOINTS.index(lower)
        bones = (motion.joints3d[:, lower_at] - motion.joints3d[:, upper_at]) @ Y_UP
        bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
        np.testing.assert_allclose(world[upper_at].apply(at_rest), bones, atol=1e-4)


def test_a_single_frame_is_a_file(body: Body, tmp_path: Path) -> None:
    write_bvh(tmp_path / "a.bvh", moving(body, frames=[7]), body)
    assert len(read(tmp_path / "a.bvh")[0]["pelvis"]) == 1


def test_angles_give_back_the_rotation() -> None:
    turns = Rotation.random(600, random_state=0).as_matrix().reshape(50, 12, 3, 3)
    back = Rotation.from_euler("ZXY", steady_angles(turns).reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(back.reshape(turns.shape), turns, atol=1e-12)


def test_channels_do_not_jump_as_a_joint_turns_round_and_round() -> None:
    time = np.linspace(0, 30, 400)
    for axis in np.eye(3):
        angles = steady_angles(Rotation.from_rotvec(time[:, None] * axis).as_matrix()[:, None])[:, 0]
        assert np.abs(np.diff(angles, axis=0)).max() < 0.1
        # Only the hinge's angle changes, also past a quarter turn of the middle angle.
        np.testing.assert_allclose(np.sort(np.abs(angles[-1])), [0, 0, 30], atol=1e-9)


def test_at_a_quarter_turn_of_the_middle_angle_nothing_jumps() -> None:
    """The middle angle at exactly 90 degrees, with float32's noise: the rotation is kept, nothing jumps."""
    wanted = Rotation.from_euler("ZXY", [[0.3 + 0.01 * i, np.pi / 2, 0.2] for i in range(40)])
    turns = wanted.as_matrix().astype(np.float32).astype(np.float64)[:, None]
    back = Rotation.from_euler("ZXY", steady_angles(turns)[:, 0])
    assert (back.inv() * wanted).magnitude().max() < 1e-6


def test_frame_time_is_that_of_the_video(body: Body, tmp_path: Path) -> None:
    motion = replace(moving(body, frames=range(3)), fps=29.97)
    write_bvh(tmp_path / "a.bvh", motion, body)
    assert read(tmp_path / "a.bvh")[1] == pytest.approx(1 / 29.97, abs=1e-9)
