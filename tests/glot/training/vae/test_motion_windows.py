"""Windows of motions: the same for the same step, possible motions when mirrored, turned or played backwards."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.motion_sets import MotionSet, motion_file
from glot.human.joints import SMPL_JOINTS, SMPL_MIRROR
from glot.human.rotation import axis_angle_to_rotmat
from glot.training.vae.motion_errors import angles, errors_of_mean_pose, errors_of_still_pose, mean_rotation, rotmats_of
from glot.training.vae.motion_windows import FRAMES, Clip, MotionWindows, held_out, windows_of
from tests.fixtures.motion_sets import write_motion_set

NO, YES = np.zeros(1, bool), np.ones(1, bool)


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> MotionSet:
    folder = tmp_path_factory.mktemp("motions")
    write_motion_set(folder, lengths=(70, 64, 200, 95))
    return MotionSet.open(motion_file(folder, "real"))


@pytest.fixture(scope="module")
def clip(motions: MotionSet) -> Clip:
    return Clip("clip", motions.pose, *motions.motions[2][1:])


def rotmats(clip: Clip, begin: int = 0, *, turn: tuple[float, float] = (0.3, 0.7), **given: np.ndarray) -> torch.Tensor:
    options = {"mirrors": NO, "backwards": NO} | given
    return rotmats_of(windows_of([clip], [begin], np.array([turn]), **options))[0]


def test_a_step_has_its_windows_whoever_asks(motions: MotionSet) -> None:
    windows = MotionWindows([motions], seed=3, reverses=True)
    batch = windows.batch(5, 6)
    assert batch.shape == (6, FRAMES, 144) and batch.dtype == torch.float32
    assert torch.equal(batch, MotionWindows([motions], seed=3, reverses=True).batch(5, 6))
    assert not torch.equal(batch, windows.batch(6, 6))
    assert not torch.equal(batch, MotionWindows([motions], seed=4, reverses=True).batch(5, 6))
    matrices = rotmats_of(batch)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand_as(matrices), rtol=0, atol=1e-5)


def test_turns_change_nothing_but_the_root_and_put_its_first_pose_where_the_release_does(clip: Clip) -> None:
    poses = axis_angle_to_rotmat(torch.from_numpy(clip.poses[clip.start : clip.stop].copy()))
    found = rotmats(clip, 40)
    torch.testing.assert_close(found[:, 1:], poses[40 : 40 + FRAMES, 1:], rtol=0, atol=1e-5)
    steps = poses[40:129, 0].mT @ poses[41:130, 0]
    torch.testing.assert_close(found[:-1, 0].mT @ found[1:, 0], steps, rtol=0, atol=1e-5)
    about_x = axis_angle_to_rotmat(torch.tensor([np.deg2rad(180 + 0.3 * 60), 0, 0], dtype=torch.float32))
    about_y = axis_angle_to_rotmat(torch.tensor([0, np.deg2rad(0.7 * 360), 0], dtype=torch.float32))
    torch.testing.assert_close(rotmats(clip)[0, 0], about_x @ about_y, rtol=0, atol=1e-5)


def test_backwards_and_forth_and_back(clip: Clip) -> None:
    torch.testing.assert_close(rotmats(clip, 7, backwards=YES), rotmats(clip, 7).flip(0), rtol=0, atol=1e-5)
    short = clip._replace(stop=clip.start + 40)
    assert short.windows == 78 and clip.windows == 111
    rows = short.rows(10) - clip.start
    assert rows.tolist() == [*range(10, 40), *range(38, -1, -1), *range(1, 22)]
    assert set(np.abs(np.diff(short.rows(77)))) == {1}


def test_mirrored_twice_is_the_motion(clip: Clip) -> None:
    assert SMPL_JOINTS[SMPL_MIRROR[SMPL_JOINTS.index("left_knee")]] == "right_knee"
    assert SMPL_MIRROR[0] == 0 and [SMPL_MIRROR[i] for i in SMPL_MIRROR] == list(range(24))
    flip = torch.diag(torch.tensor([-1.0, 1, 1]))  # the world in a mirror, left and right of the body exchanged
    mirrored = rotmats(clip, 3, mirrors=YES)
    expected = flip @ rotmats(clip, 3) @ flip
    torch.testing.assert_close(mirrored[:, 1:], expected[:, SMPL_MIRROR][:, 1:], rtol=0, atol=1e-5)


def test_held_out_motions_do_not_depend_on_the_others_and_are_not_trained_on(motions: MotionSet) -> None:
    clips = [Clip(f"walk{number}", motions.pose, 0, 95) for number in range(200)]
    names = {clip.name for clip in held_out(clips)}
    assert 8 <= len(names) <= 35
    assert {clip.name for clip in held_out(clips[:100])} == {clip.name for clip in clips[:100]} & names
    windows = MotionWindows([motions], seed=1, reverses=False)
    assert len(windows.held) == 1 and len(windows.train) == 3 and windows.held[0] not in windows.train
    assert len(windows.held_windows()) >= 1
    assert torch.equal(windows.held_windows(), windows.held_windows())


def test_motions_of_the_same_name_in_two_sets_are_held_out_together(motions: MotionSet, tmp_path: Path) -> None:
    write_motion_set(tmp_path, lengths=(71, 64, 200, 95))
    windows = MotionWindows([motions, MotionSet.open(motion_file(tmp_path, "real"))], seed=1, reverses=False)
    held, train = ({clip.name for clip in clips} for clips in (windows.held, windows.train))
    assert len(windows.held) == 2 and len(windows.train) == 6 and not held & train


def test_too_few_motions_are_one_line(motions: MotionSet, tmp_path: Path) -> None:
    write_motion_set(tmp_path, lengths=(70, 64, 95))
    few = MotionSet.open(motion_file(tmp_path, "real"))
    assert len(MotionWindows([motions], seed=1, reverses=False, long_only=True).train) == 1
    with pytest.raises(InputError, match="1 motions of 90 frames, at least 2 are needed.*drop --long-only"):
        MotionWindows([few], seed=1, reverses=False, long_only=True)


def test_angles_and_mean_rotations() -> None:
    degrees = torch.tensor([0.0, 30, 179.9, 90])
    turned = axis_angle_to_rotmat(torch.deg2rad(degrees)[:, None] * torch.tensor([0.0, 0.6, 0.8]))
    torch.testing.assert_close(angles(torch.eye(3).expand(4, 3, 3), turned), degrees, rtol=0, atol=0.05)
    around = axis_angle_to_rotmat(torch.tensor([[0.0, 0.5, 0], [0.0, 0.9, 0]]))
    middle = axis_angle_to_rotmat(torch.tensor([0.0, 0.7, 0]))
    torch.testing.assert_close(mean_rotation(around, 0), middle, rtol=0, atol=1e-6)
    still = torch.randn(2, 1, 144).expand(2, 5, 144)
    assert float(errors_of_still_pose(still).max()) < 0.1 and float(errors_of_mean_pose(still, still).mean()) > 10
