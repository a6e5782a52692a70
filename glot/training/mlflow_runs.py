"""Runs in MLflow: the driver prepares the store and opens runs, rank 0 logs into them.

A store that does not answer causes a warning; training continues. The default store is an sqlite file. The driver
creates its schema, because several processes that open a new file at the same time corrupt it. A run is found again by
its tag ``glot.key``, so that a restarted job continues in the same run.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A server that is down must not delay training: by default MLflow tries for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from glot.errors import InputError

KEY_TAG, PARENT_TAG = "glot.key", "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow then opens the experiment's page with its runs
RETRY_SECONDS = 60.0  # time between two attempts when the store does not answer
MOST_POINTS = 1000  # largest number of points that MLflow takes in one request
Point = tuple[str, float, int, int]  # name, value, ms since 1970, step


def prepare(uri: str, experiment: str) -> str:
    """The id of the experiment. The experiment and the store's schema are created if missing. For the driver only.

    Raises InputError where no store answers, or the experiment was deleted.
    """
    location = None
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        location = (database.parent / "mlartifacts").resolve().as_uri()
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise InputError(
                f"--experiment {experiment}: it was deleted in MLflow; restore it there or choose another name"
            )
        if found is None:
            with suppress(MlflowException):  # when another job creates it at the same moment
                return client.create_experiment(experiment, artifact_location=location, tags=KIND)
            found = client.get_experiment_by_name(experiment)
        if found is None:
            raise InputError(f"--mlflow {uri}: the experiment {experiment} cannot be created there")
        return found.experiment_id
    except MlflowException as error:
        raise InputError(f"--mlflow {uri}: no MLflow store answers there ({_first_line(error)})") from None


def open_run(
    uri: str,
    experiment_id: str,
    *,
    name: str,
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: str = "",
) -> str:
    """The id of the run tagged ``key``, reopened or created; ``parent`` is the id of a run to nest it under."""
    client = MlflowClient(uri)
    found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id
    all_tags = {KEY_TAG: key, "mlflow.runName": name, **tags, **({PARENT_TAG: parent} if parent else {})}
    run = client.create_run(experiment_id, tags=all_tags, run_name=name)
    client.log_batch(run.info.run_id, params=[Param(k, str(v)) for k, v in params.items()])
    return run.info.run_id


class Run:
    """Writes into one MLflow run.

    When the store does not answer, one warning is printed, and points wait in the file ``spool`` until the store takes
    them, from this process or from a later one with the same file. ``resumed``: an earlier start may have logged some
    of the coming steps; they are not logged twice.
    """

    def __init__(self, uri: str, run_id: str, *, spool: Path | None = None, resumed: bool = False) -> None:
        self.run_id, self.lost = run_id, 0
        self._client, self._spool, self._resumed = MlflowClient(uri), spool, resumed
        self._logged: dict[str, set[int]] = {}  # name of a metric -> steps that the store has; looked up once
        self._try_again, self._warned = 0.0, False

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Logs scalars at a step."""
        now = int(time.time() * 1000)
        self._send([(name, float(value), now, step) for name, value in values.items()])

    def flush(self) -> None:
        """Tries once more to log the points that wait."""
        self._try_again = 0.0
        if self._waiting():
            self._send([])

    def mark_running(self) -> None:
        """Sets the run's status to RUNNING."""
        self._try("status", lambda: self._client.update_run(self.run_id, status="RUNNING"))

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        batch = [RunTag(name, value) for name, value in values.items()]
        self._try("tags", lambda: self._client.log_batch(self.run_id, tags=batch))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Uploads a file or a folder, into ``folder`` of the run's artifacts."""
        upload = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._try(f"artifact {path.name}", lambda: upload(self.run_id, str(path), folder or None))

    def close(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self._try("status", lambda: self._client.set_terminated(self.run_id, status=status))
        if self.lost:
            print(f"warning: MLflow run {self.run_id}: {self.lost} writes were lost", file=sys.stderr)
        if waiting := len(self._waiting()):
            print(
                f"warning: MLflow run {self.run_id}: {waiting} points wait in {self._spool}; the next start with this "
                "--out logs them",
                file=sys.stderr,
            )

    def _send(self, points: list[Point]) -> None:
        if time.monotonic() < self._try_again:
            self._keep(points)
            return
        waiting = self._waiting()
        try:
            due = self._due([*waiting, *points])
            for start in range(0, len(due), MOST_POINTS):
                batch = [Metric(*point) for point in due[start : start + MOST_POINTS]]
                self._client.log_batch(self.run_id, metrics=batch)
        except (MlflowException, OSError) as error:
            self._warn("metrics", error)
            self._try_again = time.monotonic() + RETRY_SECONDS
            self._keep(points)
            return
        if waiting and self._spool:
            self._spool.unlink(missing_ok=True)

    def _due(self, points: list[Point]) -> list[Point]:
        """The points that the store does not have; of several points with the same metric and step, the first."""
        if not self._resumed:
            return points
        due: dict[tuple[str, int], Point] = {}
        for point in points:
            name, _, _, step = point
            if name not in self._logged:
                self._logged[name] = {old.step for old in self._client.get_metric_history(self.run_id, name)}
            if step not in self._logged[name]:
                due.setdefault((name, step), point)
        return list(due.values())

    def _keep(self, points: list[Point]) -> None:
        if self._spool is None:
            self.lost += len(points)
            return
        with self._spool.open("a") as file:
            file.writelines(json.dumps(point) + "\n" for point in points)

    def _waiting(self) -> list[Point]:
        """The points in the spool, without a line that a killed process left incomplete."""
        points: list[Point] = []
        if self._spool is not None and self._spool.is_file():
            for line in self._spool.read_text().splitlines():
                with suppress(ValueError):
                    name, value, when, step = json.loads(line)
                    points.append((name, value, when, step))
        return points

    def _try(self, what: str, write: Callable[[], Any]) -> None:
        try:
            write()
        except (MlflowException, OSError) as error:
            self._warn(what, error)
            self.lost += 1

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            print(f"warning: MLflow did not take {what}: {_first_line(error)}; training goes on", file=sys.stderr)


def code_tags() -> dict[str, str]:
    """Tags that say which code runs: versions of the main packages, and the git commit if the code is a checkout."""
    tags = {f"version.{name}": version(name) for name in ("torch", "ray", "numpy", "pyarrow", "mlflow")}
    tags["version.python"] = platform.python_version()
    git = ["git", "-C", str(Path(__file__).parent)]
    with suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
        tags["git.changed"] = str(bool(changed.stdout.strip())).lower()
    return tags


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0][:300]
