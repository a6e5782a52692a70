"""What is trained is published until MLflow has all of it: after outages, kills and failures, by the same command."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from glot.errors import InputError, NotNowError
from glot.human.body import load_body
from glot.training.driver import fit
from glot.training.record import tracking
from glot.training.record.curve_points import PointWriter
from glot.training.record.mlflow_runs import client_of, prepare
from glot.training.record.mlflow_store import RunCard, database_of, default_uri
from glot.training.run_state import POINTS, read_state
from glot.training.spec import TrainSpec
from glot.training.workers import ThisProcess
from tests.fixtures.features import write_training_sets
from tests.fixtures.mlflow_server import MlflowServer
from tests.fixtures.places import ROOT
from tests.glot.training.test_driver import SMALL, small_spec

EPOCHS = 3
SHORT = (f"epochs={EPOCHS}", "steps_per_epoch=10", "data.batch_size=4")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits for a store."""
    monkeypatch.setattr(tracking, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def short_spec(features: Path, out: Path, uri: str, *settings: str, **changes: object) -> TrainSpec:
    return small_spec(features, out, *SHORT, *settings, workers=0, mlflow=uri, **changes)


@dataclass
class Reports:
    """Keeps the epochs that were trained, and does something after each."""

    epochs: list[int] = field(default_factory=list)

    def __call__(self, metrics: dict[str, float]) -> None:
        self.epochs.append(int(metrics["epoch"]))


@contextmanager
def away(uri: str) -> Iterator[None]:
    """Within it, the database of an sqlite store cannot be opened."""
    database = database_of(uri)
    assert database is not None
    aside = database.with_name("aside")
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists():
        database.rename(aside)
    database.mkdir()
    yield
    database.rmdir()
    if aside.exists():
        aside.rename(database)


def the_run(uri: str) -> Run:
    client = client_of(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("glot").experiment_id])
    return run


def curves(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    """The points of all curves that do not depend on the time."""
    names = sorted(name for name in run.data.metrics if name not in ("windows_per_s", "data_wait"))
    return {name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names}


def check_complete(uri: str, out: Path, *, like: str, tolerance: float = 0.0) -> None:
    """The run in a store is as that in the store ``like``, which nothing disturbed."""
    run, client, undisturbed = the_run(uri), client_of(uri), the_run(like)
    assert run.info.status == "FINISHED"
    ours, theirs = curves(client, run), curves(client_of(like), undisturbed)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=tolerance, err_msg=name)
    assert run.data.params == undisturbed.data.params
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"best", "epochs.csv", "epochs.png"}
    stored = {Path(file.path).name: file.file_size for file in client.list_artifacts(run.info.run_id, "best")}
    assert stored == {path.name: path.stat().st_size for path in (out / "best").iterdir()}
    assert read_state(out)["mlflow"] == {"uri": uri, "run_id": run.info.run_id}


@pytest.fixture(scope="module")
def undisturbed(features: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of a run that nothing disturbed."""
    home = tmp_path_factory.mktemp("undisturbed")
    fit(short_spec(features, home / "run", default_uri(home)), ThisProcess(Reports()))
    logged = curves(client_of(default_uri(home)), the_run(default_uri(home)))
    assert [step for step, _ in logged["step_loss"]] == [10, 20, 30] == [step for step, _ in logged["val_pa_mpjpe"]]
    assert len(logged["best_val_pa_mpjpe"]) == 1
    return default_uri(home)


def test_a_store_that_was_away_for_the_whole_run_gets_everything_from_the_next_start(
    features: Path, undisturbed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, out, reports = default_uri(tmp_path), tmp_path / "run", Reports()
    spec = short_spec(features, out, uri)
    with away(uri):
        for _ in range(2):
            with pytest.raises(NotNowError, match="is trained and all of it is kept there, but MLflow at .* later$"):
                fit(spec, ThisProcess(reports))
    assert reports.epochs == [1, 2, 3]  # the second start trained nothing
    printed = capsys.readouterr()
    assert printed.out.count("training goes on, and its points wait in") == 1 and "Traceback" not in printed.err
    metrics = fit(spec, ThisProcess(reports))
    assert reports.epochs == [1, 2, 3] and metrics == read_state(out)["metrics"]
    check_complete(uri, out, like=undisturbed)
    with away(uri):
        assert fit(spec, ThisProcess(reports)) == metrics  # what is published is not asked for again


def test_an_outage_in_the_middle_leaves_no_gap(
    features: Path, undisturbed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, out = default_uri(tmp_path), tmp_path / "run"
    database, aside = tmp_path / "mlflow.db", tmp_path / "aside"

    def report(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 1:
            database.rename(aside)
            database.mkdir()
            time.sleep(0.5)  # some attempts fail
        if metrics["epoch"] == 2:
            database.rmdir()
            aside.rename(database)
            time.sleep(0.5)

    fit(short_spec(features, out, uri), ThisProcess(report))
    check_complete(uri, out, like=undisturbed)
    printed = capsys.readouterr().out
    assert printed.count("training goes on, and its points wait in") == 1
    assert printed.count("MLflow answers again, and has all points so far") == 1


@pytest.mark.parametrize("call", ["upload", pytest.param("log_points", marks=pytest.mark.slow)])
def test_a_driver_that_is_killed_while_it_publishes(
    features: Path, undisturbed: str, tmp_path: Path, call: str
) -> None:
    uri, out, reports = default_uri(tmp_path), tmp_path / "run", Reports()
    code = (
        "import os, sys; from pathlib import Path\n"
        "from glot.training.record import mlflow_runs, tracking\n"
        "from glot.training.driver import fit\n"
        "from glot.training.workers import ThisProcess\n"
        "from tests.glot.training.test_publishing import short_spec\n"
        "features, out, uri, call = sys.argv[1:]\n"
        "tracking.SEND_SECONDS = 1000\n"
        "setattr(mlflow_runs, call, lambda *a, **o: os.kill(os.getpid(), 9))\n"
        "fit(short_spec(Path(features), Path(out), uri), ThisProcess(print))\n"
    )
    line = [sys.executable, "-c", code, str(features), str(out), uri, call]
    killed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_state(out)["status"] == "finished" and the_run(uri).info.status == "RUNNING"
    fit(short_spec(features, out, uri), ThisProcess(reports))
    assert reports.epochs == []
    check_complete(uri, out, like=undisturbed)


def test_results_that_could_not_be_written_are_written_by_the_next_start(
    features: Path, undisturbed: str, tmp_path: Path
) -> None:
    uri, out = default_uri(tmp_path), tmp_path / "run"
    (out / "epochs.png" / "in the way").mkdir(parents=True)
    spec = short_spec(features, out, uri)
    with pytest.raises(IsADirectoryError):
        fit(spec, ThisProcess(Reports()))
    assert read_state(out)["status"] == "finished"
    shutil.rmtree(out / "epochs.png")
    fit(spec, ThisProcess(Reports()))
    assert (out / "epochs.png").is_file()
    check_complete(uri, out, like=undisturbed)


def test_a_run_that_somebody_deleted_in_mlflow_and_another_store_get_everything(
    features: Path, undisturbed: str, tmp_path: Path
) -> None:
    uri, out, other = default_uri(tmp_path), tmp_path / "run", default_uri(tmp_path / "other")

    def report(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 2:
            client_of(uri).delete_run(the_run(uri).info.run_id)

    fit(short_spec(features, out, uri), ThisProcess(report))
    check_complete(uri, out, like=undisturbed)
    fit(short_spec(features, out, other), ThisProcess(report))
    check_complete(other, out, like=undisturbed)
    fit(short_spec(features, out, "none"), ThisProcess(report))


def test_an_experiment_that_was_deleted_is_said_once_and_nothing_is_trained(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = default_uri(tmp_path)
    client_of(uri).delete_experiment(prepare(uri, "glot"))
    with pytest.raises(InputError, match="--experiment glot: it was deleted in MLflow"):
        fit(short_spec(features, tmp_path / "run", uri), ThisProcess(pytest.fail))
    assert capsys.readouterr().out == ""


def test_a_store_that_is_silent_does_not_hold_up_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with tracking.logging_points(RunCard(uri=uri, experiment="glot", key="k", name="n"), tmp_path):
            opened = time.monotonic()
            writer = PointWriter(tmp_path / POINTS)
            for step in range(1000):
                writer.write({"loss": 1.0, "error": 2.0}, step=step)
            assert time.monotonic() - opened < 30  # not a second a point
        assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(features: Path, undisturbed: str, tmp_path: Path) -> None:
    """It is killed while points are sent, and starts again with the same database."""
    server, out = MlflowServer(tmp_path), tmp_path / "run"
    server.start()
    try:

        def report(metrics: dict[str, float]) -> None:
            server.kill() if metrics["epoch"] == 1 else server.start() if metrics["epoch"] == 3 else None

        fit(short_spec(features, out, server.uri), ThisProcess(report))
        check_complete(server.uri, out, like=undisturbed)
    finally:
        server.kill()


@pytest.mark.slow
def test_the_command_twice_with_a_server_that_was_down_for_the_whole_first_run(
    features: Path, undisturbed: str, tmp_path: Path
) -> None:
    server, out = MlflowServer(tmp_path), tmp_path / "run"
    settings = [part for setting in (*SMALL, *SHORT) for part in ("--set", setting)]
    line = [sys.executable, "-m", "glot.train_ray", "--features", str(features), "--out", str(out), *settings]
    line += ["--mlflow", server.uri, "--workers", "1"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240)

    first = run()
    assert first.returncode == 75, first.stderr
    assert first.stdout.count("warning: ") == 1 and "training goes on, and its points wait in" in first.stdout
    assert first.stderr.startswith(f"error: {out}: the run is trained") and first.stderr.count("\n") == 1
    server.start()
    try:
        second = run()
        assert second.returncode == 0, second.stderr
        assert "already trained" in second.stdout
        # The command uses all cores, which changes the order of sums.
        check_complete(server.uri, out, like=undisturbed, tolerance=1e-3)
    finally:
        server.kill()
