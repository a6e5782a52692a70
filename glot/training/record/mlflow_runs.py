"""Runs in MLflow: preparing a store, opening runs, and writing into them. For drivers; workers do not use MLflow.

A store that does not answer is a NotNowError, and a request that it refuses for ever an InputError. The default store
is an sqlite file. Several processes that create its schema at the same time fail or corrupt it, so drivers take turns.
A run is found again by its tag ``glot.key``, so that a restarted job continues in the same run.
"""

import logging
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # of a server's page of every run that ends
# A server that is down must not delay training: by default MLflow tries for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import InvalidUrlException, MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

from glot.errors import InputError, NotNowError, is_passing
from glot.file_lock import turn
from glot.retries import STORE_PACKAGES, packages_of
from glot.training.record.curve_points import Point
from glot.training.record.mlflow_store import database_of, shown

KEY_TAG, PARENT_TAG = "glot.key", "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow then opens the experiment's page with its runs
MOST_POINTS = 1000  # largest number of points that MLflow takes in one request
LASTING = {400, 404, 501}  # a request that is wrong in itself, in the numbers of HTTP, which MLflow uses for all stores
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
PACKAGES = {*STORE_PACKAGES, "boto3", "requests", "sqlalchemy"}  # their errors come from the store or the way to it
# What these print about a store that does not answer are traces; the error that they raise is printed.
for _name in ("mlflow.store.db.utils", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Within it, NotNowError if the store does not answer, and InputError if it refuses a request for ever."""
    try:
        with no_misnamed_folder(uri):
            yield
    except (InputError, NotNowError):
        raise
    except Exception as error:
        wrong = isinstance(error, (InvalidUrlException, UnsupportedModelRegistryStoreURIException))
        if isinstance(error, MlflowException) and (wrong or error.get_http_status_code() in LASTING):
            raise InputError(f"--mlflow {shown(uri)}: {_first_line(error)}") from None
        network = isinstance(error, OSError) and is_passing(error)
        if network or isinstance(error, MlflowException) or packages_of(error) & PACKAGES:
            raise NotNowError(f"MLflow at {shown(uri)} does not answer ({_first_line(error)})") from None
        raise


def client_of(uri: str) -> MlflowClient:
    """A client of a store. A database that does not answer is an error at once.

    MLflow itself would try for an hour, and print a page each time.
    """
    if uri.partition(":")[0].partition("+")[0] in DATABASES:
        try:
            engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
            sqlalchemy.inspect(engine).has_table("runs")
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
            raise NotNowError(f"MLflow at {shown(uri)} does not answer ({_first_line(error)})") from None
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            raise InputError(f"--mlflow {shown(uri)}: {_first_line(error)}") from None
    try:
        urlsplit(uri)
    except ValueError as error:
        raise InputError(f"--mlflow {uri}: {error}") from None
    return MlflowClient(uri)


@contextmanager
def no_misnamed_folder(uri: str) -> Iterator[None]:
    """Removes the empty folder that MLflow makes where the URI of an sqlite file is not its path but escapes it."""
    try:
        yield
    finally:
        misnamed = Path(uri.removeprefix("sqlite:///")).parent
        if database_of(uri) not in (None, misnamed / "mlflow.db"):
            with suppress(OSError):
                os.removedirs(misnamed)


def prepare(uri: str, experiment: str) -> str:
    """The id of the experiment. The experiment and the store's schema are created if missing.

    Raises NotNowError where no store answers; InputError if the experiment was deleted, or for an address of no store.
    """
    location, database = None, database_of(uri)
    with answering(uri), ExitStack() as stack:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            location = (database.parent / "mlartifacts").resolve().as_uri()
            if os.access(database.parent, os.W_OK):
                stack.enter_context(turn(database.with_name(f".{database.name}.lock")))
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            with suppress(MlflowException):  # when another job creates it at the same moment
                return client.create_experiment(experiment, artifact_location=location, tags=KIND)
            found = client.get_experiment_by_name(experiment)
    if found is None:
        raise NotNowError(f"MLflow at {shown(uri)}: the experiment {experiment} cannot be created there")
    if found.lifecycle_stage != "active":
        raise InputError(
            f"--experiment {experiment}: it was deleted in MLflow; restore it there or choose another name"
        )
    return found.experiment_id


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
    with answering(uri):
        client = client_of(uri)
        found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        if found:
            run, there = found[0], found[0].data.params
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            all_tags = {KEY_TAG: key, "mlflow.runName": name, **tags, **({PARENT_TAG: parent} if parent else {})}
            run, there = client.create_run(experiment_id, tags=all_tags, run_name=name), {}
        missing = [Param(name, str(value)) for name, value in params.items() if name not in there]
        if missing:  # also of a run whose creator ended before it could log them
            client.log_batch(run.info.run_id, params=missing)
    return run.info.run_id


def log_points(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    """Logs points, in as many requests as they need."""
    for start in range(0, len(points), MOST_POINTS):
        client.log_batch(run_id, metrics=[Metric(*point) for point in points[start : start + MOST_POINTS]])


def logged_steps(client: MlflowClient, run_id: str, name: str) -> set[int]:
    """The steps of the points of a curve that the store has."""
    return {point.step for point in client.get_metric_history(run_id, name)}


def upload(client: MlflowClient, run_id: str, path: Path, folder: str = "") -> None:
    """Uploads a file or a folder, into ``folder`` of the run's artifacts. What is there already is replaced."""
    send = client.log_artifacts if path.is_dir() else client.log_artifact
    send(run_id, str(path), folder or None)


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
