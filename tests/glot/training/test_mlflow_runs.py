"""Real MLflow stores on disk: runs are found again and nest; a store that does not answer does not stop training."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from glot.errors import InputError
from glot.training import mlflow_runs
from glot.training.mlflow_store import default_uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_uri(tmp_path_factory.mktemp("store"))


def open_run(uri: str, key: str, **more: str) -> str:
    experiment = mlflow_runs.prepare(uri, "walks")
    return mlflow_runs.open_run(uri, experiment, name="n", key=key, params={"epochs": 3}, tags={"a": "b"}, **more)


def test_preparing_twice_gives_the_same_experiment(uri: str) -> None:
    assert mlflow_runs.prepare(uri, "walks") == mlflow_runs.prepare(uri, "walks")


def test_a_restarted_job_goes_on_in_its_run(uri: str) -> None:
    first = open_run(uri, "one")
    mlflow_runs.Run(uri, first).close("FAILED")
    assert open_run(uri, "one") == first
    assert open_run(uri, "two") != first
    client = MlflowClient(uri)
    assert client.get_run(first).info.status == "RUNNING"
    assert client.get_run(first).data.params == {"epochs": "3"}


def test_children_name_their_parent(uri: str) -> None:
    parent = open_run(uri, "parent")
    child = open_run(uri, "child", parent=parent)
    assert MlflowClient(uri).get_run(child).data.tags["mlflow.parentRunId"] == parent


def test_metrics_and_artifacts_arrive(uri: str, tmp_path: Path) -> None:
    run = mlflow_runs.Run(uri, open_run(uri, "full"))
    for step in (1, 2, 3):
        run.metrics({"loss": 10.0 / step}, step=step)
    (tmp_path / "table.txt").write_text("rows")
    run.artifact(tmp_path / "table.txt")
    run.close("FINISHED")
    client = MlflowClient(uri)
    assert [m.step for m in client.get_metric_history(run.run_id, "loss")] == [1, 2, 3]
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["table.txt"]
    assert client.get_run(run.run_id).info.status == "FINISHED" and run.lost == 0


def test_an_outage_gives_one_warning_and_waiting_points_are_logged_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, spool = default_uri(tmp_path / "gone"), tmp_path / "unsent.jsonl"
    run = mlflow_runs.Run(uri, open_run(uri, "outage"), spool=spool)
    run.metrics({"loss": 1.0}, step=0)
    database, away = tmp_path / "gone" / "mlflow.db", tmp_path / "away.db"
    database.rename(away)
    database.mkdir()  # nothing can be opened under this name any more
    for step in range(1, 4):
        run.metrics({"loss": 1.0 / step}, step=step)
    run.close("FINISHED")
    warned = capsys.readouterr().err
    assert warned.count("training goes on") == 1 and "1 writes were lost" in warned and "3 points wait" in warned
    database.rmdir()
    away.rename(database)

    # Another process, which does the last of the steps again and one more.
    with spool.open("a") as file:
        file.write('["loss", 0.3')  # killed while it wrote
    later = mlflow_runs.Run(uri, run.run_id, spool=spool, resumed=True)
    for step in (3, 4):
        later.metrics({"loss": 1.0 / step}, step=step)
    later.close("FINISHED")
    history = MlflowClient(uri).get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert not spool.exists() and capsys.readouterr().err == ""


def test_steps_of_an_earlier_start_are_not_logged_twice(uri: str) -> None:
    first = mlflow_runs.Run(uri, open_run(uri, "again"))
    for step in (1, 2, 3):
        first.metrics({"loss": float(step)}, step=step)
    second = mlflow_runs.Run(uri, first.run_id, resumed=True)
    for step in (2, 3, 4):
        second.metrics({"loss": float(step), "error": 9.0}, step=step)
    client = MlflowClient(uri)
    assert [m.step for m in client.get_metric_history(first.run_id, "loss")] == [1, 2, 3, 4]
    assert [m.step for m in client.get_metric_history(first.run_id, "error")] == [2, 3, 4]


def test_without_a_spool_losses_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = default_uri(tmp_path / "gone")
    run = mlflow_runs.Run(uri, open_run(uri, "outage"))
    database = tmp_path / "gone" / "mlflow.db"
    database.unlink()
    database.mkdir()
    run.metrics({"loss": 1.0, "error": 2.0}, step=0)
    run.close("FINISHED")
    assert "3 writes were lost" in capsys.readouterr().err


def test_no_store_at_the_address_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="no MLflow store answers"):
        mlflow_runs.prepare("http://127.0.0.1:9", "walks")
