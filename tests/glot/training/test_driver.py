"""Runs with Ray Train, DDP and MLflow on small models: they end, resume, and refuse wrong inputs."""

import itertools
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from glot.config import Recipe
from glot.errors import InputError, NotNowError
from glot.human.body import load_body
from glot.models.checkpoint import load_checkpoint
from glot.recipes import recipe_named
from glot.training.driver import check, conclude, fit, is_published, launch, prepare, publish
from glot.training.feature_sets import feature_lineage
from glot.training.record.mlflow_store import default_uri
from glot.training.run_state import read_epochs, read_state
from glot.training.schedule import cosine_rate
from glot.training.spec import MlflowLabels, TrainSpec, WorkerSpec
from glot.training.workers import RayWorkers, ThisProcess
from tests.fixtures.features import write_feature_set, write_training_sets
from tests.fixtures.interruptions import Interrupted, interrupted_at
from tests.fixtures.places import GOLDEN

SMALL = [
    "model.width=64", "model.decoder_width=32", "model.local_width=32", "model.hidden=64", "model.depth=1",
    "model.local_depth=1", "model.heads=2", "data.batch_size=16", "steps_per_epoch=12", "epochs=3", "lr=0.002",
]  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


def small(*more: str) -> Recipe:
    return recipe_named("open_sample", [*SMALL, *more])


def small_spec(features: Path, out: Path, *settings: str, **changes: Any) -> TrainSpec:
    """A run of ``small``, which continues what is in ``out``, and logs nothing unless ``changes`` name a store."""
    options: dict[str, Any] = {"workers": 1, "mlflow": "none", "resume": True} | changes
    return TrainSpec(features=features, out=out, settings=(*SMALL, *settings), **options)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_two_workers_train_report_and_are_done(features: Path, tmp_path: Path) -> None:
    uri, out = default_uri(tmp_path), tmp_path / "run"
    spec = small_spec(features, out, workers=2, mlflow=uri)
    metrics = fit(spec)
    curve = MlflowClient(uri)
    (run,) = curve.search_runs([curve.get_experiment_by_name("glot").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["model.width"] == "64"
    assert len(curve.get_metric_history(run.info.run_id, "val_pa_mpjpe")) == 3
    assert "best" in [file.path for file in curve.list_artifacts(run.info.run_id)]
    assert curve.get_metric_history(run.info.run_id, "step_loss")[-1].value > 0

    best, last = load_checkpoint(out / "best"), load_checkpoint(out / "last")
    assert best.recipe == last.recipe and best.recipe.model.feature_size == 32
    assert metrics["val_pa_mpjpe"] == min(
        point.value for point in curve.get_metric_history(run.info.run_id, "val_pa_mpjpe")
    )
    losses = [point.value for point in curve.get_metric_history(run.info.run_id, "step_loss")]
    assert losses[-1] < losses[0]

    trained = {path: path.stat().st_mtime_ns for name in ("best", "last") for path in (out / name).iterdir()}
    start = time.monotonic()
    assert fit(spec) == metrics
    assert time.monotonic() - start < 30
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "nothing was trained again"
    assert len(curve.search_runs([run.info.experiment_id])) == 1
    with pytest.raises(InputError, match="model.mask_ratio = 0.5, now 0.25"):
        fit(small_spec(features, out, "model.mask_ratio=0.25", workers=2))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_four_workers_take_the_steps_of_one(features: Path, tmp_path: Path) -> None:
    """The batch cannot be shared evenly, and some workers' windows have no 3D targets."""
    exact = ["model.dropout=0", "model.drop_path=0", "model.regressor_dropout=0", "model.hscr_dropout=0"]
    settings = [*exact, "data.batch_size=14", "data.sets_2d=3dpw", "steps_per_epoch=20", "epochs=1"]
    uri, losses, weights = default_uri(tmp_path), {}, {}
    for workers in (1, 4):
        out = tmp_path / str(workers)
        spec = small_spec(features, out, *settings, workers=workers, mlflow=uri, experiment=out.name)
        fit(spec, ThisProcess(lambda metrics: None) if workers == 1 else RayWorkers(cpus_per_worker=0.5))
        client = MlflowClient(uri)
        (run,) = client.search_runs([client.get_experiment_by_name(out.name).experiment_id])
        losses[workers] = [point.value for point in client.get_metric_history(run.info.run_id, "step_loss")]
        weights[workers] = load_checkpoint(out / "last").model.state_dict()
    assert len(losses[1]) > 1
    np.testing.assert_allclose(losses[4], losses[1], rtol=2e-5)
    for name, tensor in weights[4].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("local_ray")
def test_an_error_that_only_a_worker_finds_is_one_line_too(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_feature_set(tmp_path / "3dpw" / split, tracks=[12, 9], body=load_body())
    with pytest.raises(InputError, match="no track has 16 consecutive frames"):
        fit(small_spec(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run" / "best").exists()


def test_a_run_in_this_process_needs_no_ray_and_its_stages_can_be_repeated(features: Path, tmp_path: Path) -> None:
    uri, out, reports = default_uri(tmp_path), tmp_path / "run", []
    spec = small_spec(features, out, "epochs=2", "steps_per_epoch=3", workers=0, mlflow=uri)
    launcher, labels = ThisProcess(reports.append), MlflowLabels(name="in this process", upload=False)
    for _ in range(2):
        run = prepare(check(spec, launcher, labels), launcher)
    for _ in range(2):
        launch(run, launcher)
    assert [report["epoch"] for report in reports] == [1, 2]  # the second launch found nothing left to do
    for _ in range(2):
        conclude(run)
    metrics = read_state(out)["metrics"]
    assert not is_published(run)
    client = MlflowClient(uri)
    for _ in range(2):
        publish(run)
        assert is_published(run)
        (logged,) = client.search_runs([client.get_experiment_by_name("glot").experiment_id])
        assert logged.info.status == "FINISHED" and logged.info.run_name == "in this process"
        assert logged.data.metrics["best_val_pa_mpjpe"] == metrics["val_pa_mpjpe"]
        assert {file.path for file in client.list_artifacts(logged.info.run_id)} == {"epochs.csv", "epochs.png"}
        assert len(client.get_metric_history(logged.info.run_id, "best_val_pa_mpjpe")) == 1
    assert fit(spec, launcher, labels=labels) == metrics and len(reports) == 2


def test_more_gpus_than_there_are_are_refused_at_once(features: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "glot.train_ray", "--features", str(features), "--out", str(tmp_path / "r")]
    ended = subprocess.run([*command, "--gpus", "8"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.startswith("error: --gpus 8") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_sets_of_different_backbones_are_not_mixed(features: Path, tmp_path: Path) -> None:
    write_feature_set(tmp_path / "3dpw" / "train", tracks=[20])
    write_feature_set(tmp_path / "3dpw" / "validation", tracks=[20], backbone_hash="another")
    with pytest.raises(InputError, match="another backbone"):
        feature_lineage(small(), tmp_path)
    with pytest.raises(InputError, match="nowhere/validation: no finished feature set there"):
        feature_lineage(small("data.validation=nowhere"), tmp_path)


def test_learning_rate_is_the_official_schedule() -> None:
    misc = GOLDEN / "golden_misc.json"
    if not misc.is_file():
        pytest.skip(f"no official values at {misc}; set GLOT_GOLDEN")
    official = json.loads(misc.read_text())
    for name, key in (("table1_3dpw", "lr_50_5"), ("table1_h36m_mpii3d", "lr_75_8"), ("table2_3dpw", "lr_80_8")):
        recipe = recipe_named(name)
        assert [cosine_rate(recipe, e) for e in range(recipe.epochs)] == pytest.approx(official[key], rel=1e-9)


def test_learning_rate_rises_to_the_maximum_then_falls() -> None:
    recipe = recipe_named("open_sample", ["epochs=20", "warmup_epochs=4"])
    rates = [cosine_rate(recipe, epoch) for epoch in range(20)]
    assert rates[0] == pytest.approx(recipe.lr / 10) and max(rates) == rates[4] == pytest.approx(recipe.lr)
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)
    assert all(math.isfinite(rate) and rate >= recipe.lr / 10 for rate in rates)


class Stopped(Exception):
    """Ends a run of a test where its workers would start."""


class NoWorkers(ThisProcess):
    """Keeps the names in the run's folder, and ends the run, where the workers would start."""

    def run(self, spec: TrainSpec, worker: WorkerSpec) -> None:
        raise Stopped(sorted(str(path.relative_to(worker.out)) for path in worker.out.rglob("*")))


def names_at_launch(spec: TrainSpec) -> list[str]:
    with pytest.raises(Stopped) as stopped:
        fit(spec, NoWorkers(print))
    return list(stopped.value.args[0])


def test_fresh_leaves_nothing_of_the_run_before(features: Path, tmp_path: Path) -> None:
    spec = small_spec(features, tmp_path, "epochs=1", "steps_per_epoch=2", workers=0)
    fit(spec, ThisProcess(print))
    assert {"best", "last", "epochs.csv", "epochs.png", "epochs.json", "points.jsonl"} <= {
        path.name for path in tmp_path.iterdir()
    }
    (tmp_path / "notes.txt").write_text("the user's")
    assert names_at_launch(replace(spec, fresh=True, resume=False)) == [".lock", "notes.txt", "run.json"]


def test_a_folder_in_which_a_run_is_alive_is_refused(features: Path, tmp_path: Path) -> None:
    refused = []

    def report(metrics: dict[str, float]) -> None:
        for spec in (live, replace(live, resume=False), replace(live, fresh=True, resume=False)):
            with pytest.raises(NotNowError, match=r"this run is running already \(.*, process \d+\); wait until") as no:
                fit(spec, ThisProcess(print))
            refused.append(str(no.value))

    live = small_spec(features, tmp_path, "epochs=2", "steps_per_epoch=2", workers=0)
    fit(live, ThisProcess(report))
    assert len(refused) == 6 and not any("\n" in line for line in refused)
    assert [row["epoch"] for row in read_epochs(tmp_path)] == [1, 2]


def test_what_killed_saves_left_is_tidied_up_by_the_next_start(features: Path, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    left = ["best.host-7", "best.8.part", "best.other-host.example-9.old", "run.json.host-7", "epochs.csv.host-7"]
    kept = [".best_of_mine", ".run.json.1", ".run.json.backup", ".netrc"]
    for name in [*(f".{name}" for name in left), *kept]:
        (tmp_path / name).write_text("")
    (tmp_path / "steps" / ".00000005.host-7" / "part").mkdir(parents=True)
    spec = small_spec(features, tmp_path, "epochs=1", "steps_per_epoch=2", workers=0)
    names = names_at_launch(spec)
    assert names == sorted([".lock", *kept, "best", "run.json", "steps"])


@pytest.mark.slow
def test_a_save_that_is_cut_anywhere_loses_no_checkpoint(features: Path, tmp_path: Path) -> None:
    """It is cut at each rename and removal of a run; the next start ends as an undisturbed run does."""
    settings = ("epochs=3", "steps_per_epoch=1", "data.batch_size=4", "lr=0.0002")
    whole = tmp_path / "whole"
    fit(small_spec(features, whole, *settings, workers=0), ThisProcess(print))
    for number in itertools.count(1):
        spec = small_spec(features, tmp_path / str(number), *settings, workers=0)
        try:
            with interrupted_at(number):
                fit(spec, ThisProcess(print))
            break
        except Interrupted:
            fit(spec, ThisProcess(print))
        for name in ("best", "last"):
            ours, theirs = load_checkpoint(spec.run_folder / name), load_checkpoint(whole / name)
            assert ours.info["step"] == theirs.info["step"], number
            torch.testing.assert_close(ours.model.state_dict(), theirs.model.state_dict(), rtol=0, atol=0)
        assert {path.name for path in spec.run_folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert number > 20
