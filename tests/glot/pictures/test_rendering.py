"""The command render draws what its options ask for, chooses the median track, and names mistakes in one message."""

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
from glot.human.body import Body
from glot.model_configs import TCMRConfig
from glot.pictures.rendering import median_track, render
from glot.pictures.spec import RenderSpec
from glot.render import main
from glot.scoring.track_errors import track_truth
from tests.fixtures.places import ROOT
from tests.fixtures.rendering import SMALL, write_checkpoint, write_folder


def spec_for(folder: Path, **options) -> RenderSpec:
    """The spec that renders from ``folder``, which tests.fixtures.rendering.write_folder made."""
    places = {"checkpoint": folder / "best", "features": folder / "features", "root": folder / "pictures"}
    return RenderSpec(**{**places, "out": folder / "none", **options})


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
    out = folder / "seen"
    options = {"track": "clip01_0", "max_frames": 3, "attention": True, "compare": True, "frame": 20}
    done = render(spec_for(folder, out=out, **options))
    names = ["clip01_0_attention.npz", "clip01_0_attention.png", "clip01_0_compare.mp4", "clip01_0_compare.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in done.files) == names
    with np.load(out / names[0]) as maps:
        assert maps["frame_index"].tolist() == [
            *range(12, 24),
            *[23] * 4,
        ]  # frame 20 in the middle, the last one repeated
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
    with pytest.raises(InputError, match="the global branch only"):
        render(spec_for(folder, track="clip00_0", compare=True))
    render(spec_for(folder, out=folder / "out", track="clip00_0", attention=True))  # without masking, one block
    with np.load(folder / "out" / "clip00_0_attention.npz") as maps:
        assert not [name for name in maps.files if "hidden" in name]


def test_branches_are_those_of_glot(folder: Path, store: FeatureStore, body: Body) -> None:
    config = TCMRConfig(feature_size=32, frames=8, gru_width=8, gru_layers=1, attention_width=8, hidden=16)
    write_checkpoint(folder / "tcmr", config, body, store.manifest.backbone)
    options = {"checkpoint": folder / "tcmr", "track": "clip00_0"}
    for option in ("attention", "compare"):
        with pytest.raises(InputError, match=f"--{option}: draws the branches of GLoT, and this model is TCMR"):
            render(spec_for(folder, **options, **{option: True}))
    done = render(spec_for(folder, **options, out=folder / "of_tcmr", max_frames=1))
    assert [path.name for path in done.files] == ["clip00_0.png", "clip00_0.mp4"]


def test_mistakes_are_reported(folder: Path, store: FeatureStore) -> None:
    def mistake(match: str, **settings) -> None:
        with pytest.raises(InputError, match=match):
            main(spec_for(folder, **settings))

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
