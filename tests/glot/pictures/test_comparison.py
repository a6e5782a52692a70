"""Movement by the correction is measured with both pelvises at one place, and coloured where it is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.human.joints import COMMON14, SMPL_JOINTS
from glot.human.rotation import axis_angle_to_rotmat
from glot.pictures.comparison import Comparison, compare, film, joint_in_words, moments, sheet
from glot.pictures.track_pictures import TrackRenderer
from tests.fixtures.rendering import true_track, write_folder

BENT = 9  # the row in which an elbow is bent


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory, body: Body) -> tuple[TrackRenderer, TrackRenderer]:
    """The truth; and the truth somewhere else in the picture, with the left elbow bent by 60 degrees in one row."""
    folder = write_folder(tmp_path_factory.mktemp("comparison"), body)
    store = FeatureStore.open(folder / "features" / "3dpw" / "test")
    before, after = (true_track(store, body, folder / "pictures") for _ in range(2))
    rotmats = after.params.rotmats.clone()
    elbow = SMPL_JOINTS.index("left_elbow")
    rotmats[BENT, elbow] = rotmats[BENT, elbow] @ axis_angle_to_rotmat(torch.tensor([0.0, 1.05, 0.0]))
    after.params = after.params._replace(rotmats=rotmats, cam=after.params.cam + torch.tensor([0.0, 0.3, 0.1]))
    return before, after


@pytest.fixture
def comparison(tracks: tuple[TrackRenderer, TrackRenderer]) -> Comparison:
    return compare(*tracks)


def test_only_the_bent_arm_has_moved(comparison: Comparison, body: Body) -> None:
    wrist = COMMON14.index("lwrist")
    others = np.delete(comparison.moved, wrist, axis=1)
    assert others.max() < 0.01  # the regressed elbow takes a little of the forearm
    assert comparison.moved[BENT, wrist] > 0.15
    assert np.delete(comparison.moved[:, wrist], BENT).max() < 1e-6
    assert comparison.moved_joints(BENT) == f"left wrist {1000 * comparison.moved[BENT, wrist]:.0f} mm"
    assert BENT in moments(comparison)
    # Red vertices are those of the left forearm and hand, everything else stays blue.
    left, still = comparison.colours(BENT), comparison.colours(BENT - 1)
    assert np.ptp(still, axis=0).max() < 1e-6
    hot = np.abs(left - still[0]).max(axis=1) > 0.5
    arm = [SMPL_JOINTS.index(f"left_{name}") for name in ("elbow", "wrist", "hand")]
    share = body.weights[:, arm].sum(dim=1).numpy()
    assert hot.sum() > 100
    assert share[hot].min() > 0.5
    assert not hot[share < 0.01].any()


def test_turning_both_bodies_changes_no_distance(tracks: tuple[TrackRenderer, TrackRenderer]) -> None:
    turn = axis_angle_to_rotmat(torch.tensor([0.3, -1.0, 0.5]))
    expected = compare(*tracks).moved

    def turned(track: TrackRenderer) -> TrackRenderer:
        rotmats = track.params.rotmats.clone()
        rotmats[:, 0] = turn @ rotmats[:, 0]
        other = object.__new__(TrackRenderer)
        other.__dict__.update(track.__dict__, params=track.params._replace(rotmats=rotmats))
        return other

    np.testing.assert_allclose(compare(turned(tracks[0]), turned(tracks[1])).moved, expected, atol=1e-5)


def test_a_correction_that_moves_nothing_is_drawn_all_blue(tracks: tuple[TrackRenderer, TrackRenderer]) -> None:
    same = compare(tracks[0], tracks[0])
    assert same.moved.max() == 0
    assert np.ptp(same.colours(3), axis=0).max() == 0
    assert sheet(same, title="nothing").shape == sheet(compare(*tracks), title="an elbow").shape


def test_sheet_and_film_show_the_moved_arm_in_another_colour(comparison: Comparison) -> None:
    frames = [frame for _, frame in zip(range(BENT + 1), film(comparison), strict=False)]
    half = frames[BENT].shape[1] // 3

    def red(picture: np.ndarray) -> int:
        hue = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        return int(((hue[..., 0] < 15) & (hue[..., 1] > 150)).sum())

    after = slice(frames[BENT].shape[0] // 4, -60)  # without the colour scale
    assert red(frames[BENT][after, half : 2 * half]) > red(frames[BENT - 1][after, half : 2 * half])
    assert frames[0].shape[0] == 400
    one = replace(comparison, moved=comparison.moved[:1])
    assert moments(one) == [0]


def test_joints_are_named_in_words() -> None:
    assert [joint_in_words(name) for name in ("lwrist", "rhip", "neck", "headtop")] == [
        "left wrist",
        "right hip",
        "neck",
        "headtop",
    ]
