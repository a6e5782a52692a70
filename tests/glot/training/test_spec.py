"""A run's spec: its defaults, and mistakes that are reported in one message before torch, Ray or MLflow is imported."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST
from glot.recipes import recipe_named
from glot.training.feature_sets import check_sets
from glot.training.record.mlflow_store import default_uri
from glot.training.spec import TrainSpec
from tests.fixtures.features import write_feature_set
from tests.fixtures.places import ROOT

# Runs a module as a command, and fails where that imported something heavy.
LIGHT = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    heavy = {"torch", "ray", "mlflow", "matplotlib", "scipy", "optuna"} & set(sys.modules)
    assert not heavy, heavy
"""


def run_light(module: str, *options: str, home: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", LIGHT, module, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOT_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=home,
    )


@pytest.mark.parametrize("module", ["glot.train_ray", "tuning.search", "tuning.report"])
def test_help_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    ended = run_light(module, "--help", home=tmp_path)
    assert ended.returncode == 0 and "--mlflow" in ended.stdout, ended.stderr


@pytest.mark.parametrize("module", ["glot.train_ray", "tuning.search"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--resume", "--fresh"], "--resume --fresh"),
        (["--recipe", "table3"], "--recipe table3"),
        (["--set", "model.mask_rato=0.2"], "mask_rato"),
        (["--body", "nowhere"], "--body nowhere"),
        (["--experiment", ""], "--experiment"),
    ],
)
def test_mistakes_are_one_line_and_import_nothing_heavy(
    module: str, options: list[str], named: str, tmp_path: Path
) -> None:
    ended = run_light(module, *options, home=tmp_path)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1, ended.stderr
    assert named in ended.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gpus": 2, "workers": 1}, "--gpus 2 --workers 1"),
        ({"gpus": -1}, "--gpus -1"),
        ({"save_every": -1}, "--save-every -1"),
        ({"max_seconds": -1.0}, "--max-seconds -1"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
        ({"spin_regressor": Path("nowhere.pth.tar")}, "--spin-regressor nowhere.pth.tar"),
        ({"start": Path("nowhere")}, "--start nowhere"),
        ({"vae": Path("nowhere")}, "--vae nowhere: is for MEVA"),
        ({"vae": Path("nowhere"), "settings": ("model=meva",)}, "--vae nowhere: there is no such motion VAE"),
        (
            {"vae": Path(__file__), "start": Path(__file__), "settings": ("model=meva",)},
            "give one; MEVA's checkpoint holds its VAE",
        ),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        TrainSpec(**options)


def test_defaults_are_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    for split in ("train", "validation"):
        write_feature_set(tmp_path / "features" / "3dpw" / split, tracks=[20])
    spec = TrainSpec(recipe="open_start", gpus=8)
    spec.check_places()
    assert spec.features == tmp_path / "features" and spec.run_folder == tmp_path / "runs" / "open_start"
    assert spec.worker_count == 8
    assert spec.tracking_uri == default_uri(tmp_path / "runs")
    assert TrainSpec().worker_count == 1 and not TrainSpec(mlflow="none").tracking_uri


def test_all_missing_sets_of_the_sample_are_in_one_message(tmp_path: Path) -> None:
    ended = run_light("glot.train_ray", "--gpus", "8", home=tmp_path)
    assert ended.returncode == 2 and ended.stderr.count("error: ") == 1
    features = tmp_path / "features" / "3dpw"
    assert f"{features / 'train'} and {features / 'validation'}: no finished feature set" in ended.stderr
    assert ended.stderr.splitlines()[1:] == [
        "    python pipelines/make_sample.py",
        "    python pipelines/extract_features.py",
    ]


def test_only_what_is_missing_is_named_and_only_what_is_needed_is_to_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    (tmp_path / "data" / "sample").mkdir(parents=True)
    other = tmp_path / "my features"
    write_feature_set(other / "3dpw" / "train", tracks=[20])
    (other / "3dpw" / "validation").mkdir()  # a set that is not finished has no manifest
    with pytest.raises(InputError) as error:
        check_sets(recipe_named("open_video"), other)
    message = str(error.value)
    assert str(other / "3dpw" / "train") not in message and "validation: no finished feature set" in message
    assert message.splitlines()[1:] == [
        f"    python pipelines/extract_features.py --backbone blazepose --out '{other}'"
    ]


def test_all_missing_datasets_of_a_papers_recipe_are_in_one_message(tmp_path: Path) -> None:
    ended = run_light("glot.train_ray", "--gpus", "8", "--recipe", "table2_3dpw", home=tmp_path)
    assert ended.returncode == 2 and ended.stderr.startswith("error: 4 things are missing")
    for dataset in ("insta_variety", "mpi_inf_3dhp", "human36m", "3dpw"):
        assert f"python pipelines/extract_features.py --dataset {dataset}\n" in ended.stderr
    assert str(tmp_path / "features" / "3dpw" / "validation") in ended.stderr
    assert str(tmp_path / "features" / "3dpw" / "train") not in ended.stderr  # not trained on in Table 2


@pytest.mark.parametrize("module", ["glot.train_ray", "tuning.search"])
def test_relative_paths_in_a_ray_job_are_refused_in_one_message(module: str, tmp_path: Path) -> None:
    options = {"GLOT_HOME": "", "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    ended = run_light(module, "--body", str(ROOT), home=tmp_path, **options)
    assert ended.returncode == 2 and "--features features, --out runs/" in ended.stderr and "--body" not in ended.stderr
    assert "GLOT_HOME" in ended.stderr and MANIFEST not in ended.stderr
