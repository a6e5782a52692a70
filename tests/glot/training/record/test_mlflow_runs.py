"""Real MLflow stores on disk: runs are found again and nest; what a store does not do has a kind."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glot.errors import InputError, NotNowError
from glot.training.record import mlflow_runs
from glot.training.record.mlflow_runs import client_of
from glot.training.record.mlflow_store import default_uri, shown
from tests.fixtures.places import ROOT


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_uri(tmp_path_factory.mktemp("a store, 100%20 #1?"))


def open_run(uri: str, key: str, **more: str) -> str:
    experiment = mlflow_runs.prepare(uri, "walks")
    return mlflow_runs.open_run(uri, experiment, name="n", key=key, params={"epochs": 3}, tags={"a": "b"}, **more)


def test_preparing_twice_gives_the_same_experiment(uri: str) -> None:
    assert mlflow_runs.prepare(uri, "walks") == mlflow_runs.prepare(uri, "walks")


def test_several_drivers_may_make_a_store_at_the_same_time(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    code = (
        "import sys; from pathlib import Path; from glot.training.record.mlflow_runs import prepare; "
        "Path(sys.argv[2]).touch(); sys.stdin.readline(); print(prepare(sys.argv[1], 'glot'))"
    )
    ready = [tmp_path / str(number) for number in range(3)]
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", code, uri, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for path in ready
    ]  # fmt: skip
    while not all(path.exists() for path in ready):
        assert not any(driver.poll() for driver in drivers)
        time.sleep(0.05)
    for driver in drivers:
        assert driver.stdin
        driver.stdin.write("go\n")
        driver.stdin.flush()
    ended = [driver.communicate(timeout=120) for driver in drivers]
    assert len({said for said, _ in ended}) == 1 and ended[0][0].strip(), ended
    assert not list(tmp_path.glob(".mlflow*"))


def test_a_restarted_job_goes_on_in_its_run(uri: str) -> None:
    first, client = open_run(uri, "one"), client_of(uri)
    client.set_terminated(first, status="FAILED")
    assert open_run(uri, "one") == first
    assert open_run(uri, "two") != first
    assert client.get_run(first).info.status == "RUNNING"
    assert client.get_run(first).data.params == {"epochs": "3"}


def test_a_run_whose_creator_was_killed_at_once_gets_its_parameters(uri: str) -> None:
    client = client_of(uri)
    created = client.create_run(mlflow_runs.prepare(uri, "walks"), tags={mlflow_runs.KEY_TAG: "killed"})
    assert open_run(uri, "killed") == created.info.run_id
    assert client.get_run(created.info.run_id).data.params == {"epochs": "3"}


def test_children_name_their_parent(uri: str) -> None:
    parent = open_run(uri, "parent")
    child = open_run(uri, "child", parent=parent)
    assert client_of(uri).get_run(child).data.tags["mlflow.parentRunId"] == parent


def test_many_points_and_a_file_arrive(uri: str, tmp_path: Path) -> None:
    run_id, client = open_run(uri, "full"), client_of(uri)
    mlflow_runs.log_points(client, run_id, [("loss", 10.0 / step, 1, step) for step in range(1, 1502)])
    assert mlflow_runs.logged_steps(client, run_id, "loss") == set(range(1, 1502))
    assert mlflow_runs.logged_steps(client, run_id, "error") == set()
    (tmp_path / "table.txt").write_text("rows")
    for _ in range(2):
        mlflow_runs.upload(client, run_id, tmp_path / "table.txt")
    assert [file.path for file in client.list_artifacts(run_id)] == ["table.txt"]


def test_a_server_that_is_away_is_not_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NotNowError, match="MLflow at http://127.0.0.1:9 does not answer"):
        mlflow_runs.prepare("http://127.0.0.1:9", "walks")


def test_a_server_that_is_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(NotNowError, match="does not answer"):
            mlflow_runs.prepare(f"http://127.0.0.1:{silent.getsockname()[1]}", "walks")
        assert time.monotonic() - began < 60


def test_a_database_that_cannot_be_opened_is_not_now_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = default_uri(tmp_path)
    (tmp_path / "mlflow.db").mkdir()
    began = time.monotonic()
    with pytest.raises(NotNowError, match="unable to open database file"):
        mlflow_runs.prepare(uri, "walks")
    assert time.monotonic() - began < 30
    (tmp_path / "mlflow.db").rmdir()
    assert mlflow_runs.prepare(uri, "walks") == "1"
    assert capfd.readouterr() == ("", "")  # no lines of MLflow either


def test_an_address_of_no_store_is_the_users_mistake(uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all" * 100)
    for wrong in (default_uri(tmp_path), "gopher://x", "http://[", "postgresql+none://user:secret@host/runs"):
        with pytest.raises(InputError, match="--mlflow ") as raised:
            mlflow_runs.prepare(wrong, "walks")
        assert "\n" not in str(raised.value) and "secret" not in str(raised.value)


def test_an_experiment_that_was_deleted_is_the_users_decision(uri: str) -> None:
    client_of(uri).delete_experiment(mlflow_runs.prepare(uri, "deleted"))
    with pytest.raises(InputError, match="--experiment deleted: it was deleted in MLflow"):
        mlflow_runs.prepare(uri, "deleted")


def test_a_mistake_of_ours_is_not_hidden(uri: str) -> None:
    with pytest.raises(KeyError), mlflow_runs.answering(uri):
        raise KeyError
    with pytest.raises(FileNotFoundError), mlflow_runs.answering(uri):
        Path("/nowhere/at/all").read_text()


@pytest.mark.slow
def test_the_default_store_is_in_the_folder_whatever_its_name(tmp_path: Path) -> None:
    """Runs, artifacts and models, and nothing beside the folder: a path is not a URI."""
    folder = tmp_path / "100%20 #1?a=b+c&d ü"
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "weights").write_text("w")
    uri = default_uri(folder)
    run_id = mlflow_runs.open_run(uri, mlflow_runs.prepare(uri, "walks"), name="r", key="k", params={}, tags={})
    with mlflow_runs.answering(uri):
        client = mlflow_runs.client_of(uri)
        mlflow_runs.upload(client, run_id, folder / "best", "best")
        client.create_registered_model("glot-walks")
        version = client.create_model_version("glot-walks", f"{client.get_run(run_id).info.artifact_uri}/best", run_id)
    assert [file.path for file in client.list_artifacts(run_id, "best")] == ["best/weights"]
    assert client.get_model_version("glot-walks", version.version).run_id == run_id
    assert (folder / "mlartifacts" / run_id / "artifacts" / "best" / "weights").read_text() == "w"
    assert sorted(path.name for path in folder.iterdir()) == ["best", "mlartifacts", "mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@host:5432/runs") == "postgresql://host:5432/runs"
    assert shown("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"
