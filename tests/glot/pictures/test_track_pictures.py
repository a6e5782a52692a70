"""Bodies stand where the people are, videos are videos, pictures are found, mistakes are one line."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.pictures.track_pictures import Pictures, fit_cam
from glot.render import main, median_track, strip, write_video
from glot.scoring.track_errors import track_truth
from tests.fixtures.clip import HEIGHT, SMALL, WIDTH, true_clip, write_folder
from tests.fixtures.places import ROOT


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Path:
    return write_folder(tmp_path_factory.mktemp("render"), body)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("GLOT_CACHE", str(folder / "cache"))
    return FeatureStore.open(folder / "features" / "3dpw" / "test")


def test_fitted_camera_is_the_one_that_made_the_keypoints() -> None:
    rng = np.random.default_rng(0)
    joints, cam = rng.normal(size=(5, 49, 3)), np.array([0.9, 0.1, -0.2])
    keypoints = np.concatenate([cam[0] * (joints[..., :2] + cam[1:]), rng.random((5, 49, 1)) + 0.1], axis=-1)
    np.testing.assert_allclose(fit_cam(joints, keypoints), np.tile(cam, (5, 1)), atol=1e-9)
    keypoints[:, :30] = [1e4, 1e4, 0]  # joints nobody saw do not pull
    keypoints[3, :, 2] = 0
    np.testing.assert_allclose(fit_cam(joints, keypoints), np.tile(cam, (5, 1)), atol=1e-9)
    keypoints[..., 2] = 0
    with pytest.raises(InputError, match="two known 2D joints"):
        fit_cam(joints, keypoints)


def test_overlay_of_the_truth_stands_on_the_person(store: FeatureStore, body: Body, folder: Path) -> None:
    clip = true_clip(store, body, folder / "pictures")
    for i in (0, 13):
        vertices, row = clip.posed(i)[0], store.track("clip01_0").start + i
        # The fixture's camera: 150 px a metre, the origin where its keypoints say.
        joints = body.joints(clip.params.rotmats[i : i + 1], clip.params.betas[i : i + 1])[0].numpy()
        origin = (store.keypoints2d[row, :, :2] - 150 * joints[:, :2]).mean(axis=0)
        pixels = 150 * vertices[:, :2] + origin
        black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        drawn = clip.overlay(i, black, np.eye(2, 3)).max(axis=2) > 30
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        found = [columns[0], rows[0], columns[-1], rows[-1]]
        np.testing.assert_allclose(found, [*pixels.min(axis=0), *pixels.max(axis=0)], atol=2.5)
        near = cv2.dilate(drawn.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        inside = near[tuple(np.clip(np.round(pixels).astype(int), 0, [WIDTH - 1, HEIGHT - 1]).T[::-1])]
        assert inside.mean() > 0.99
        # The same body in a crop twice as large.
        zoom = np.array([[2.0, 0, -200], [0, 2.0, -250]])
        zoomed = clip.overlay(i, black, zoom).max(axis=2) > 30
        columns = np.flatnonzero(zoomed.any(axis=0))
        assert columns[0] == pytest.approx(2 * found[0] - 200, abs=4)


def test_side_view_shows_the_body_where_the_true_bones_are(store: FeatureStore, body: Body, folder: Path) -> None:
    clip = true_clip(store, body, folder / "pictures")
    with_bones = clip.side_view(5, 200)
    clip.truth.scored[:] = False
    without = clip.side_view(5, 200)
    bones = (with_bones != without).any(axis=2)
    on_body = (without != 245).any(axis=2)
    assert bones.sum() > 100
    assert on_body[bones].mean() > 0.9


def test_strip_has_a_row_for_each_kind(store: FeatureStore, body: Body, folder: Path) -> None:
    clip = true_clip(store, body, folder / "pictures")
    full = strip(clip, title="truth")
    clip.true_cam = None
    assert strip(clip, title="no truth").shape[0] == full.shape[0] - 260


def test_command_writes_a_strip_and_an_h264_video(folder: Path) -> None:
    out = folder / "out"
    arguments = ["--checkpoint", folder / "best", "--features", folder / "features", "--root", folder / "pictures"]
    done = subprocess.run(
        [sys.executable, "-m", "glot.render", *map(str, arguments), "--out", str(out), "--max-frames", "5"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "GLOT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "median of 2" in done.stdout
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".mp4", ".png"]
    picture = cv2.imread(str(next(out.glob("*.png"))))
    assert picture is not None
    with av.open(str(next(out.glob("*.mp4")))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 30
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_attention_and_comparison_are_drawn_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(folder / "cache"))
    out, where = folder / "seen", {"features": folder / "features", "root": folder / "pictures"}
    main(folder / "best", out=out, track="clip01_0", max_frames=3, attention=True, compare=True, frame=20, **where)
    names = ["clip01_0_attention.npz", "clip01_0_attention.png", "clip01_0_compare.mp4", "clip01_0_compare.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    with np.load(out / names[0]) as maps:
        assert maps["frame_index"].tolist() == [*range(12, 24), *[23] * 4]  # frame 20 amid them, the last one repeated
        for name in ("window/visible/encoder 1", "mean/hidden/decoder 1"):
            assert maps[name].shape == (2, 16, 16)
            np.testing.assert_allclose(maps[name].sum(axis=-1), 1, atol=1e-5)
        assert int(maps["hidden"].sum()) == 8
        assert int(maps["windows"]) == 24 - 16 + 1
    for name in (names[1], names[3]):
        picture = cv2.imread(str(out / name))
        assert picture is not None
        assert picture.std() > 10
    with av.open(str(out / names[2])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_a_model_of_one_branch_has_no_correction_to_show(tmp_path: Path, body: Body) -> None:
    config = replace(SMALL, modules="gmm", mask_ratio=0.0)
    folder = write_folder(tmp_path, body, config=config)
    where = {"features": folder / "features", "root": folder / "pictures", "track": "clip00_0"}
    with pytest.raises(InputError, match="the global branch only"):
        main(folder / "best", out=folder / "out", compare=True, **where)
    main(folder / "best", out=folder / "out", attention=True, **where)  # and without masking, there is one block
    with np.load(folder / "out" / "clip00_0_attention.npz") as maps:
        assert not [name for name in maps.files if "hidden" in name]


def test_mistakes_are_one_line(folder: Path, store: FeatureStore) -> None:
    def mistake(match: str, **settings) -> None:
        defaults = {"checkpoint": folder / "best", "features": folder / "features", "root": folder / "pictures"}
        with pytest.raises(InputError, match=match):
            main(**{**defaults, "out": folder / "none", **settings})

    mistake("--root .*: there is no such folder", root=folder / "nowhere")
    mistake("track 'bob': not in .*clip00_0", track="bob")
    mistake("no readable picture; --root", root=folder, track="clip00_0")
    mistake("--frame 99: not among this track's frames, 0 to 19", attention=True, frame=99, track="clip00_0")
    mistake("no such folder; train one", checkpoint=folder / "worst")
    (folder / "file").write_text("")
    mistake("cannot be written", out=folder / "file", track="clip00_0")
    assert not (folder / "none" / "clip00_0.mp4").exists()


def test_median_track_has_the_middle_error(store: FeatureStore, body: Body) -> None:
    truth = {track.stop - track.start: track_truth(store, track, body).smpl for track in store.tracks}

    def predict(features: np.ndarray):
        params = truth[len(features)]
        assert params is not None
        bend = torch.eye(3).repeat(len(features), 24, 1, 1) if len(features) == 24 else params.rotmats
        return params._replace(rotmats=bend)

    chosen, why = median_track(predict, store, body, 16)
    assert (chosen.track_id, why) == ("clip00_0", "median of 2")


def test_pictures_of_a_video_come_by_frame_number(tmp_path: Path) -> None:
    greys = [np.full((64, 96, 3), 10 * i, np.uint8) for i in range(12)]
    write_video(tmp_path / "film.mp4", iter(greys), fps=25)
    pictures = Pictures(tmp_path, [f"film.mp4#{i}" for i in (0, 3, 4, 9, 2)])
    assert pictures.size == (64, 96)
    for i, frame in ((1, 3), (2, 4), (3, 9), (4, 2), (1, 3)):
        assert abs(float(pictures[i].mean()) - 10 * frame) < 3
    with pytest.raises(InputError, match="ends before frame 40"):
        Pictures(tmp_path, ["film.mp4#40"])
    with pytest.raises(InputError, match="no readable video"):
        Pictures(tmp_path, ["other.mp4#0"])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
