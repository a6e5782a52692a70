"""Targets are rounded as in the reference's loaders: to float16, in the same units, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from glot.human.crop import keypoints_to_crop
from pipelines.decoders.clips import Clip
from pipelines.extraction.reference import round_targets


@pytest.fixture
def clip() -> Clip:
    rng = np.random.default_rng(0)
    keypoints2d = np.concatenate([rng.uniform(0, 1900, (5, 49, 2)), np.ones((5, 49, 1))], -1)
    keypoints2d[:, 25:] = 0
    return Clip(
        track_id="a_0",
        fps=30.0,
        crop_scale=1.2,
        gender="female",
        frame_index=np.arange(5),
        image=["a.jpg"] * 5,
        bbox=np.column_stack([rng.uniform(300, 900, (5, 2)), np.tile(rng.uniform(1, 300, (5, 1)), 2)]),
        keypoints2d=keypoints2d,
        joints3d=rng.normal([0.3, -1.2, 5.2], 0.3, (5, 49, 3)),
        joints3d_valid=np.ones((5, 49), bool),
        pose=rng.normal(size=(5, 24, 3)),
        betas=rng.normal(size=(5, 10)),
        has_3d=np.ones(5, bool),
        has_smpl=np.ones(5, bool),
        valid=np.ones(5, bool),
    )


def test_targets_are_what_a_float16_holds(clip: Clip) -> None:
    rounded = round_targets(clip)
    for name in ("joints3d", "pose", "betas"):
        before, after = getattr(clip, name), getattr(rounded, name)
        assert np.array_equal(after, before.astype(np.float16)) and not np.array_equal(after, before)
    error = np.abs(rounded.joints3d - clip.joints3d).max((0, 1))
    assert 0.5e-3 < error[2] <= 2e-3 and error[0] < 0.5e-3  # half of a step of float16, which is 4 mm between 4 and 8 m


def test_2d_targets_are_rounded_in_crop_units_and_stored_in_pixels(clip: Clip) -> None:
    rounded = round_targets(clip)
    stored = [values.astype(np.float32) for values in (rounded.keypoints2d, rounded.bbox)]
    targets = keypoints_to_crop(*stored, clip.crop_scale)[:, :25, :2]
    wanted = keypoints_to_crop(clip.keypoints2d, clip.bbox, clip.crop_scale)[:, :25, :2].astype(np.float16)
    assert np.allclose(targets, wanted, atol=1e-4 * np.abs(wanted).max())
    near = np.abs(wanted) < 1
    assert np.abs(targets - wanted)[near].max() < 1e-4
    assert 0 < np.abs(rounded.keypoints2d - clip.keypoints2d)[..., :2].max() < 2
    assert np.array_equal(rounded.keypoints2d[..., 2], clip.keypoints2d[..., 2])


def test_missing_joints_stay_zero_and_finite_however_far_outside(clip: Clip) -> None:
    tiny = replace(clip, bbox=np.tile([1900.0, 1000.0, 0.01, 0.01], (5, 1)))  # the point (0, 0) is 300,000 crops away
    assert (round_targets(tiny).keypoints2d[:, 25:] == 0).all()


def test_nothing_else_changes_and_rounding_twice_is_rounding_once(clip: Clip) -> None:
    rounded = round_targets(clip)
    changed = ("keypoints2d", "joints3d", "pose", "betas")
    assert all(value is vars(rounded)[name] for name, value in vars(clip).items() if name not in changed)
    for name in changed:
        assert np.allclose(getattr(round_targets(rounded), name), getattr(rounded, name), atol=1e-9)
