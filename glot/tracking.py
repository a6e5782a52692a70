"""Runs in MLflow: the driver prepares the store and opens runs, rank 0 logs into them. An outage warns, never kills.

The default store is an sqlite file. Its schema is created once, on the driver: several processes opening a fresh file
at the same time corrupt it. A run is found again by its ``glot.key`` tag, so that a restarted job goes on in it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from glot.errors import InputError

KEY_TAG, PARENT_TAG = "glot.key", "mlflow.parentRunId"


def default_uri(folder: Path) -> str:
    """The embedded store below ``folder``."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def prepare(uri: str, experiment: str) -> str:
    """Creates the store's schema and the experiment when they are missing; returns the experiment's id. Driver only."""
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
        return found.experiment_id if found else client.create_experiment(experiment, artifact_location=location)
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
    """The id of the run tagged ``key``, opened again or created; ``parent`` nests it under another run."""
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
    """Writes into one run. The first failure is said, with what gets lost; later ones are counted."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.run_id, self.lost = run_id, 0
        self._client = MlflowClient(uri)

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Logs scalars at a step."""
        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._try("metrics", lambda: self._client.log_batch(self.run_id, metrics=batch))

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        batch = [RunTag(name, value) for name, value in values.items()]
        self._try("tags", lambda: self._client.log_batch(self.run_id, tags=batch))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Uploads a file, or a folder with what is in it."""
        upload = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._try(f"artifact {path.name}", lambda: upload(self.run_id, str(path), folder or None))

    def close(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""
        self._try("status", lambda: self._client.set_terminated(self.run_id, status=status))
        if self.lost:
            print(f"warning: MLflow run {self.run_id}: {self.lost} writes were lost", file=sys.stderr)

    def _try(self, what: str, write: Callable[[], Any]) -> None:
        try:
            write()
        except (MlflowException, OSError) as error:
            if not self.lost:
                print(f"warning: MLflow did not take {what}: {_first_line(error)}; training goes on", file=sys.stderr)
            self.lost += 1


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0][:300]
