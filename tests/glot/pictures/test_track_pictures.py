"""Bodies stand where the people are, and pictures are found in folders and in videos."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body
from glot.pictures.drawing import write_video
from glot.pictures.track_pictures import Pictures, fit_cam
from glot.pictures.track_strip import strip
from tests.fixtures.people import pictures, write_pictures
from tests.fixtures.rendering import HEIGHT, WIDTH, true_track


def test_fitted_camera_is_that_of_the_keypoints() -> None:
    rng = np.random.default_rng(0)
    joints, cam = rng.normal(size=(5, 49, 3)), np.array([0.9, 0.1, -0.2])
    keypoints = np.concatenate([cam[0] * (joints[..., :2] + cam[1:]), rng.random((5, 49, 1)) + 0.1], axis=-1)
    np.testing.assert_allclose(fit_cam(joints, keypoints), np.tile(cam, (5, 1)), atol=1e-9)
    keypoints[:, :30] = [1e4, 1e4, 0]  # joints without confidence do not count
    keypoints[3, :, 2] = 0
    np.testing.assert_allclose(fit_cam(joints, keypoints), np.tile(cam, (5, 1)), atol=1e-9)
    keypoints[..., 2] = 0
    with pytest.raises(InputError, match="two known 2D joints"):
        fit_cam(joints, keypoints)


def test_a_frame_without_keypoints_takes_the_camera_of_the_nearest_with_some() -> None:
    rng = np.random.default_rng(1)
    joints, cams = rng.normal(size=(9, 20, 3)), np.array([[0.9, 0.1, -0.2], [0.8, 0.0, 0.3]])
    keypoints = np.zeros((9, 20, 3))
    for row, cam in zip((2, 6), cams, strict=True):
        keypoints[row] = np.concatenate([cam[0] * (joints[row, :, :2] + cam[1:]), np.ones((20, 1))], axis=-1)
    nearest = [0, 0, 0, 0, 0, 1, 1, 1, 1]  # row 4 is as near to both, and takes the earlier one
    np.testing.assert_allclose(fit_cam(joints, keypoints), cams[nearest], atol=1e-9)


def test_overlay_of_the_truth_stands_on_the_person(store: FeatureStore, body: Body, folder: Path) -> None:
    track = true_track(store, body, folder / "pictures")
    for i in (0, 13):
        vertices, row = track.posed(i)[0], store.track("clip01_0").start + i
        # The fixture's camera: 150 px a metre; its origin follows from the keypoints.
        joints = body.joints(track.params.rotmats[i : i + 1], track.params.betas[i : i + 1])[0].numpy()
        origin = (store.keypoints2d[row, :, :2] - 150 * joints[:, :2]).mean(axis=0)
        pixels = 150 * vertices[:, :2] + origin
        black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        drawn = track.overlay(i, black, np.eye(2, 3)).max(axis=2) > 30
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        found = [columns[0], rows[0], columns[-1], rows[-1]]
        np.testing.assert_allclose(found, [*pixels.min(axis=0), *pixels.max(axis=0)], atol=2.5)
        near = cv2.dilate(drawn.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        inside = near[tuple(np.clip(np.round(pixels).astype(int), 0, [WIDTH - 1, HEIGHT - 1]).T[::-1])]
        assert inside.mean() > 0.99
        # The same body in a crop twice as large.
        zoom = np.array([[2.0, 0, -200], [0, 2.0, -250]])
        zoomed = track.overlay(i, black, zoom).max(axis=2) > 30
        columns = np.flatnonzero(zoomed.any(axis=0))
        assert columns[0] == pytest.approx(2 * found[0] - 200, abs=4)


def test_side_view_shows_the_body_where_the_true_bones_are(store: FeatureStore, body: Body, folder: Path) -> None:
    track = true_track(store, body, folder / "pictures")
    with_bones = track.side_view(5, 200)
    track.truth.scored[:] = False
    without = track.side_view(5, 200)
    bones = (with_bones != without).any(axis=2)
    on_body = (without != 245).any(axis=2)
    assert bones.sum() > 100
    assert on_body[bones].mean() > 0.9


def test_strip_has_a_row_for_each_kind(store: FeatureStore, body: Body, folder: Path) -> None:
    track = true_track(store, body, folder / "pictures")
    full = strip(track, title="truth")
    track.true_cam = None
    assert strip(track, title="no truth").shape[0] == full.shape[0] - 260


def test_pictures_of_a_video_are_found_by_frame_number(tmp_path: Path) -> None:
    greys = [np.full((64, 96, 3), 10 * i, np.uint8) for i in range(12)]
    write_video(tmp_path / "film.mp4", iter(greys), fps=25)
    pictures = Pictures(tmp_path, [f"film.mp4#{i}" for i in (0, 3, 4, 9, 2)])
    assert pictures.size == (64, 96)
    for i, frame in ((1, 3), (2, 4), (3, 9), (4, 2), (1, 3)):
        assert abs(float(pictures[i].mean()) - 10 * frame) < 3
    with pytest.raises(InputError, match="film.mp4#40: the video ends after 12 frames; --root"):
        Pictures(tmp_path, ["film.mp4#40"])
    with pytest.raises(InputError, match="other.mp4#0: No such file.*--root"):
        Pictures(tmp_path, ["other.mp4#0"])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_pictures_of_a_video_are_upright(tmp_path: Path) -> None:
    shown = pictures(2)
    write_pictures(tmp_path / "upright.mp4", shown)
    write_pictures(tmp_path / "sideways.mp4", shown, turned=90)
    upright, sideways = (Pictures(tmp_path, [f"{name}.mp4#0"]) for name in ("upright", "sideways"))
    assert sideways.size == upright.size == shown[0].shape[:2]
    assert np.abs(sideways[0].astype(int) - upright[0]).mean() < 3
