"""Sweeps with Ray Tune into an MLflow store: complete, pruned, killed, and two at the same time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import Run

from glot.errors import InputError
from glot.human.body import load_body
from glot.training.record import mlflow_runs
from glot.training.record.mlflow_store import default_uri
from tests.fixtures.browser import chromium, page
from tests.fixtures.features import write_training_sets
from tests.fixtures.mlflow_server import MlflowServer
from tests.fixtures.places import ROOT
from tests.glot.training.test_driver import SMALL
from tuning import report
from tuning.registry import children, read_sweep
from tuning.results import markdown
from tuning.search import main
from tuning.spaces import SPACES
from tuning.spec import ReportSpec, SearchSpec

QUICK = [*SMALL, "epochs=2", "steps_per_epoch=6"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


def runs(uri: str, experiment: str = "glot-search") -> tuple[Run, list[Run]]:
    """The run of the only sweep of an experiment, and the runs of its trials."""
    client = MlflowClient(uri)
    (parent,) = [
        run
        for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        if mlflow_runs.PARENT_TAG not in run.data.tags
    ]
    return parent, children(uri, parent.info.run_id)


def results(trials: list[Run]) -> dict[tuple[str, str], float]:
    """The error of each trial, by (mask ratio, seed)."""
    found = {(r.data.params["model.mask_ratio"], r.data.params["seed"]): r.data.metrics for r in trials}
    assert len(found) == len(trials)
    return {key: metrics.get("best_val_pa_mpjpe", 0) for key, metrics in found.items()}


def search(features: Path, out: Path, uri: str, *settings: str, **options: Any) -> int:
    """The exit code of the command with these options."""
    return main(SearchSpec(features=features, out=out, mlflow=uri, settings=settings, **options))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_sweep_is_one_parent_with_a_child_for_every_value_and_seed(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, out = default_uri(tmp_path), tmp_path / "sweep"
    assert search(features, out, uri, *QUICK, values="0,0.5", seeds=2) == 0
    parent, trials = runs(uri)
    assert set(results(trials)) == {(value, seed) for value in ("0.0", "0.5") for seed in ("1", "2")}
    assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
    assert {run.info.run_name for run in trials} >= {"mask_ratio=0, seed 1", "mask_ratio=0.5, seed 2"}
    client = MlflowClient(uri)
    assert {"report.png", "report.md", "report.csv", "table.json"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    (version,) = client.search_model_versions("name = 'glot-mask_ratio'")
    errors = results(trials)
    best = next(run for run in trials if run.info.run_id == version.run_id)
    assert best.data.metrics["best_val_pa_mpjpe"] == min(errors.values())
    fetched = Path(client.download_artifacts(version.run_id, "best", str(tmp_path)))
    assert (fetched / "model.safetensors").stat().st_size > 10_000 and "best" in version.source

    # The page written from MLflow alone is the same, except for its list of folders.
    report.main(ReportSpec(mlflow=uri, out=tmp_path / "report"))
    ours = (out / "report.md").read_text().split("| | |")[0]
    assert (tmp_path / "report" / "mask_ratio" / "report.md").read_text().split("| | |")[0] == ours
    assert (tmp_path / "report" / "mask_ratio" / "report.csv").read_text() == (out / "report.csv").read_text()
    assert "| 0.5 |" in ours and "50.6" in ours

    # A finished sweep does not run again, and takes more values.
    capsys.readouterr()
    assert search(features, out, uri, *QUICK, values="0,0.5", seeds=2) == 0
    assert "nothing to do" in capsys.readouterr().out and len(runs(uri)[1]) == 4
    assert search(features, out, uri, *QUICK, values="0.5,0.75", seeds=2, resume=True) == 0
    assert "2 trials to go" in capsys.readouterr().out
    more = results(runs(uri)[1])
    assert {key: more[key] for key in errors} == errors and len(more) == 6
    with pytest.raises(InputError, match="holds a sweep with .*lr=0.1"):
        search(features, out, uri, *QUICK, "lr=0.1", values="0,0.5", resume=True)
    with pytest.raises(InputError, match="--sweep colour: .*choose one of mask_ratio"):
        report.main(ReportSpec(mlflow=uri, out=tmp_path / "report", sweep="colour"))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_pruned_and_failed_trials_end_and_free_what_they_held(features: Path, tmp_path: Path) -> None:
    space = tmp_path / "rates.yaml"  # from hardly any training to divergence
    space.write_text("axes: [{field: lr, values: [2e-3, 1e-9, 1e12, 1e-8, 1e-7, 1e-6]}]")
    uri, out = default_uri(tmp_path), tmp_path / "sweep"
    settings = [*(each for each in QUICK if not each.startswith("lr=")), "epochs=6", "warmup_epochs=1"]
    assert search(features, out, uri, *settings, space=str(space), prune=True) == 0
    parent, trials = runs(uri)
    by_rate = {float(run.data.params["lr"]): run for run in trials}
    assert by_rate[2e-3].info.status == "FINISHED" and by_rate[1e12].info.status == "FAILED"
    assert "diverged" in by_rate[1e12].data.tags["glot.reason"]
    stopped = [run for run in trials if run.data.tags["glot.outcome"] == "stopped early"]
    assert stopped and {run.info.status for run in stopped} == {"KILLED"} and len(trials) == 6
    assert all(run.data.metrics["best_val_pa_mpjpe"] > 0 for run in stopped)
    assert parent.info.status == "FINISHED" and "stopped early after epoch" in markdown(read_sweep(uri, parent))
    assert not list(out.glob("trials/*/steps")) and not (out / "tune").exists()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_trial_with_as_many_workers_as_there_are_cores_runs(features: Path, tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    assert search(features, tmp_path / "sweep", uri, *QUICK, values="0.5", workers_per_trial=2) == 0
    (_, (trial,)) = runs(uri)
    assert trial.info.status == "FINISHED"


def command(features: Path, out: Path, uri: str, *more: str) -> list[str]:
    settings = [part for setting in [*SMALL, "epochs=3"] for part in ("--set", setting)]
    where = ["--features", str(features), "--out", str(out), "--mlflow", uri]
    return [sys.executable, "-m", "tuning.search", *where, *settings, *more]


@pytest.mark.slow
def test_a_sweep_killed_midway_ends_with_the_same_runs_as_an_undisturbed_one(features: Path, tmp_path: Path) -> None:
    what = ["--values", "0,0.25,0.5,0.75"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    whole, cut = default_uri(tmp_path / "whole"), default_uri(tmp_path / "cut")
    (tmp_path / "whole").mkdir()
    subprocess.run(
        command(features, tmp_path / "whole" / "out", whole, *what), env=environment, check=True, timeout=300
    )
    undisturbed, trials = runs(whole)

    out = tmp_path / "cut" / "out"
    killed = command(features, out, cut, *what)
    with subprocess.Popen(killed, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as driver:
        deadline = time.monotonic() + 240
        while len(list(out.glob("trials/*/outcome.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        while not list(out.glob("trials/*/steps/*")) and time.monotonic() < deadline:  # the next ones are under way
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    assert 2 <= len(list(out.glob("trials/*/outcome.json"))) < 4
    again = subprocess.run(killed, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "--resume goes on" in again.stderr and again.stderr.startswith("error: ")
    subprocess.run([*killed, "--resume"], env=environment, check=True, timeout=300)
    parent, resumed = runs(cut)
    assert results(resumed) == results(trials)  # the same runs, and bitwise the same errors
    assert {run.info.status for run in (parent, *resumed)} == {undisturbed.info.status} == {"FINISHED"}
    for run in resumed:
        points = MlflowClient(cut).get_metric_history(run.info.run_id, "val_pa_mpjpe")
        assert [point.step for point in points] == [12, 24, 36]


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_continue(features: Path, tmp_path: Path) -> None:
    """Ctrl-C while trials run: the second one never began, and a trial that was interrupted is not stopped early."""
    out, uri = tmp_path / "out", default_uri(tmp_path)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    line = command(features, out, uri, "--values", "0.25,0.5", "--concurrent", "1", "--prune")
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        deadline = time.monotonic() + 200
        while not list(out.glob("trials/*/steps/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGINT)
        printed, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, printed
    assert "2 of the trials are unfinished; the same command with --resume continues them" in printed
    assert "Traceback" not in printed and "ray.tune" not in printed and "INFO" not in printed, printed
    assert not list(out.glob("trials/*/outcome.json"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server."""
    made = MlflowServer(tmp_path_factory.mktemp("server"))
    made.start()
    yield made.uri
    made.kill()


@pytest.mark.slow
def test_two_sweeps_at_once_into_one_server_and_what_a_browser_shows(
    features: Path, tmp_path: Path, server: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sweeps = {"mask_ratio": "0.25,0.5", "nearby_frames": "3,4"}
    started = [
        subprocess.Popen(
            command(features, tmp_path / space, server, "--space", space, "--values", values, "--concurrent", "1"),
            env=environment,
        )
        for space, values in sweeps.items()
    ]
    assert [process.wait(timeout=400) for process in started] == [0, 0]
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("glot-search").experiment_id
    everything = client.search_runs([experiment])
    parents = {run.data.params["space"]: run for run in everything if mlflow_runs.PARENT_TAG not in run.data.tags}
    assert set(parents) == set(sweeps) and len(everything) == 6
    assert {run.info.status for run in everything} == {"FINISHED"}
    for space, values in sweeps.items():
        field, own = SPACES[space].axes[0].field, children(server, parents[space].info.run_id)
        assert sorted(run.data.params[field] for run in own) == values.split(",")
        report_of = json.loads((tmp_path / space / "sweep.json").read_text())
        assert report_of["status"] == "finished" and len(client.search_model_versions(f"name = 'glot-{space}'")) == 1

    chromium()
    with page(width=1500, height=1000) as view:
        view.goto(f"{server}/#/experiments/{experiment}/runs")
        for space in sweeps:
            view.get_by_text(f"{space} sweep", exact=True).wait_for(timeout=60_000)
        view.goto(f"{server}/#/experiments/{experiment}/runs/{parents['mask_ratio'].info.run_id}")
        for value in ("0.25", "0.5"):
            view.get_by_text(f"mask_ratio={value}, seed 1").first.wait_for(timeout=60_000)
        view.get_by_text("The paper's errors (Table 4)").first.wait_for(timeout=60_000)
