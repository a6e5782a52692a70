"""The MLflow run of a training run: points are logged while it trains, the results after it has ended.

The folder of the run has everything, and MLflow gets what it lacks. So an outage of the store costs nothing: what could
not be logged is logged when the store answers again, or by a later start of the same command.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glot import config
from glot.config import Recipe
from glot.errors import InputError, NotNowError
from glot.training.record import mlflow_runs
from glot.training.record.curve_points import Point, PointReader
from glot.training.record.mlflow_store import RunCard
from glot.training.run_state import POINTS, STATE, read_state, write_state
from glot.training.spec import MlflowLabels, TrainSpec

SEND_SECONDS = 2.0  # time between two requests, which take as many points as there are
RETRY_SECONDS = 60.0  # time between two attempts when the store does not answer
END_SECONDS = 60.0  # how long the end of training waits for a request; the store's time limits are shorter


def card_of(spec: TrainSpec, labels: MlflowLabels, recipe: Recipe, state: dict[str, Any], out: Path) -> RunCard | None:
    """What the run in the folder ``out`` is in MLflow; None where nothing is logged. ``state``: of run.json."""
    if not spec.tracking_uri:
        return None
    tags = {f"features.{name}": value for name, value in state["features"]["sets"].items()}
    return RunCard(
        uri=spec.tracking_uri,
        experiment=spec.experiment,
        key=state["key"],
        name=labels.name or out.name,
        params=config.flat(recipe),
        tags=tags | mlflow_runs.code_tags() | {"out": str(out)},
        parent=labels.parent,
    )


def opened(card: RunCard) -> str:
    """The id of the card's run, which is RUNNING from now on. NotNowError where the store does not answer."""
    return mlflow_runs.open_run(
        card.uri,
        mlflow_runs.prepare(card.uri, card.experiment),
        name=card.name,
        key=card.key,
        params=card.params,
        tags=card.tags,
        parent=card.parent,
    )


class PointSender:
    """Logs the points of a file into the run of a card, in the order of the file, each once."""

    def __init__(self, card: RunCard, points: Path) -> None:
        self._card, self._points = card, PointReader(points)
        self.run_id = ""
        self._batch: list[Point] = []
        self._logged: dict[str, set[int]] = {}  # name of a curve -> steps that the store had when it was looked up

    def open(self) -> None:
        """Opens the run. After a failure it is looked up again, in case it is another one, and so is what it has."""
        if not self.run_id:
            self.run_id, self._logged = opened(self._card), {}

    def send(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Logs all points that are in the file and not in the run, unless ``stopped()`` becomes true.

        NotNowError or InputError where the store does not take them; the next call goes on with the same points.
        """
        try:
            self.open()
            with mlflow_runs.answering(self._card.uri):
                client = mlflow_runs.client_of(self._card.uri)
                while not stopped():
                    self._batch = self._batch or self._points.read()
                    if not self._batch:
                        return
                    mlflow_runs.log_points(client, self.run_id, self._missing(client))
                    self._batch = []
        except (NotNowError, InputError):
            self.run_id = ""
            raise

    def _missing(self, client: mlflow_runs.MlflowClient) -> list[Point]:
        """The points of the batch that the run does not have from an earlier start or an earlier attempt."""
        for name in {name for name, *_ in self._batch} - self._logged.keys():
            self._logged[name] = mlflow_runs.logged_steps(client, self.run_id, name)
        return [point for point in self._batch if point[3] not in self._logged[point[0]]]


@contextmanager
def logging_points(card: RunCard | None, out: Path) -> Iterator[None]:
    """Within it, a thread logs the points that come into the folder ``out``.

    Opens the run, and notes its id in run.json. If the store does not answer, one warning is printed, and the thread
    tries again every RETRY_SECONDS. InputError if the store refuses the run.
    """
    if card is None:
        yield
        return
    sender, answers, ended = PointSender(card, out / POINTS), True, threading.Event()
    try:
        sender.open()
        note_run(card, out, sender.run_id)
    except NotNowError as error:
        answers = False
        _warn(error, out)
    thread = threading.Thread(target=_keep_sending, args=(sender, answers, ended, out), name="points", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(END_SECONDS)


def _keep_sending(sender: PointSender, answers: bool, ended: threading.Event, out: Path) -> None:
    """Sends points until the event is set. The store is asked seldom while it does not answer."""
    while not ended.wait(SEND_SECONDS if answers else RETRY_SECONDS):
        try:
            sender.send(ended.is_set)
            if not answers:
                print("MLflow answers again, and has all points so far", flush=True)
            answers = True
        except (NotNowError, InputError) as error:
            if answers:
                _warn(error, out)
            answers = False


def _warn(error: Exception, out: Path) -> None:
    print(f"warning: {error}; training goes on, and its points wait in {out / POINTS}", flush=True)


def complete(card: RunCard, out: Path, *, status: str, artifacts: dict[str, str]) -> None:
    """Ends the run with a status, FINISHED, KILLED or FAILED, after it got all points and artifacts.

    ``artifacts``: name of a file or folder in ``out`` -> folder of the run's artifacts, "" for the top. It can be done
    again. NotNowError or InputError where the store does not take something; then the run is not ended.
    """
    sender = PointSender(card, out / POINTS)
    sender.send()
    note_run(card, out, sender.run_id)
    with mlflow_runs.answering(card.uri):
        client = mlflow_runs.client_of(card.uri)
        for name, folder in artifacts.items():
            mlflow_runs.upload(client, sender.run_id, out / name, folder)
        client.set_terminated(sender.run_id, status=status)


def note_run(card: RunCard, out: Path, run_id: str) -> None:
    """Writes the id of the run into run.json, for whoever looks for it there."""
    state, entry = read_state(out), {"uri": card.uri, "run_id": run_id}
    if state.get("mlflow") != entry:
        write_state(out / STATE, {**state, "mlflow": entry})
