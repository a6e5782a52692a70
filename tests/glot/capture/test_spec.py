"""The options of glot.predict and predict_videos: shared, checked at once, with defaults in $GLOT_HOME."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from glot.capture.capture_options import CaptureOptions
from glot.capture.spec import PredictSpec, PredictVideosSpec
from glot.errors import InputError
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from tests.fixtures.places import ROOT

HEAVY = {"torch", "cv2", "scipy", "av", "ray", "torchvision", "onnxruntime"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_results_go_to_runs_by_default(home: Path, tmp_path: Path) -> None:
    assert PredictSpec(video=tmp_path).result == home / "runs" / "bodies"
    assert PredictSpec(features=tmp_path).result == home / "runs" / "bodies.parquet"
    assert PredictSpec(video=tmp_path, out=tmp_path / "out").result == tmp_path / "out"
    assert PredictVideosSpec(root=tmp_path).out == home / "runs" / "bodies"


def test_videos_come_from_data_by_default(home: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"no folder .*data/video; name the folder of videos:\n    python pipelines/predict_videos.py ROOT$",
    ):
        PredictVideosSpec()
    (home / "data" / "video").mkdir(parents=True)
    assert PredictVideosSpec().videos == home / "data" / "video"


def test_in_a_ray_job_relative_folders_are_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("GLOT_HOME", raising=False)
    with pytest.raises(InputError, match="ROOT data/video, --out runs/bodies: must be absolute in a Ray job"):
        PredictVideosSpec()


def test_both_commands_share_their_options() -> None:
    shared = {option.name for option in fields(CaptureOptions)}
    for spec in (PredictSpec, PredictVideosSpec):
        assert issubclass(spec, CaptureOptions) and shared < {option.name for option in fields(spec)}


def test_workers_get_the_shared_options_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("boxes").mkdir()
    options = PredictVideosSpec(root=tmp_path, tracks=Path("boxes"), bvh=True).absolute()
    assert type(options) is CaptureOptions
    assert options == CaptureOptions(tracks=tmp_path / "boxes", bvh=True)  # the checkpoint "open" is not a path
    random = PredictVideosSpec(root=tmp_path, backbone="resnet50", weights=RANDOM_WEIGHTS).absolute()
    assert random.weights == RANDOM_WEIGHTS


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fit": "hands"}, "--fit hands: choose one of limbs, camera, none"),
        ({"focal": 0.0}, "--focal 0: must be more than 0 px"),
        ({"focal": float("nan")}, "--focal nan"),
        ({"tiles": -1}, "--tiles -1"),
        ({"backbone": "vit"}, "--backbone vit: not known"),
        ({"weights": Path("gone.tflite")}, "--weights gone.tflite: there is no such file"),
        ({"weights": Path("random")}, "--weights random: is for resnet50; blazepose needs another"),
        ({"weights": Path("gone.pth"), "backbone": "resnet50"}, "--weights gone.pth: there is no such file"),
        ({"detector_weights": Path("gone.pth")}, "--detector-weights gone.pth: there is no such file"),
        ({"tracks": Path("gone")}, "--tracks gone: there is no such file or folder"),
        ({"body": Path("gone")}, "--body gone: there is no such file or folder"),
        ({"checkpoint": Path("gone")}, "--checkpoint gone: there is no such folder; train one with"),
    ],
)
def test_mistakes_name_the_option_and_its_value(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        CaptureOptions(**options)


@pytest.mark.parametrize("line", ["glot.predict --help", "glot.predict gone.mp4", "pipelines.predict_videos --help"])
def test_help_and_mistakes_need_nothing_heavy(line: str, home: Path) -> None:
    module, *arguments = line.split()
    code = f"import sys; from glot import cli; from {module} import main\ntry: cli.run(main)\n"
    code += f"finally: print(sorted({HEAVY} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == (0 if "--help" in line else 2), ended.stderr
    assert ended.stdout.rstrip().endswith("[]")
