"""Which points a sweep tries: all of a grid, or points that Optuna draws one by one. Kept in an Optuna study in a file.

The points do not depend on how often the sweep was started: a point is in the file before it is tried, and the seed of
a draw depends on the number of the point.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from glot.errors import NotNowError
from tuning.spaces import Axis, Space, Value

optuna.logging.set_verbosity(optuna.logging.WARNING)
POINT, SAME = "point", "same_as"  # attributes in the study: a grid's point; the earlier point that a draw repeats
STUDY = "study.db"  # name of the file in a sweep's folder
LOCKED_SECONDS = 30.0  # how long another process, such as a dashboard, may hold the file
MOST_REPEATS = 20  # after this many draws in a row that repeat earlier points, a search ends


def distribution(axis: Axis) -> BaseDistribution:
    """The distribution that Optuna draws an axis from."""
    if axis.values:
        return CategoricalDistribution(axis.values)
    assert axis.low is not None and axis.high is not None
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def database(file: Path) -> optuna.storages.RDBStorage:
    """The database of studies in a file.

    The file is opened by its path, because in a URI ? and % are no part of a name.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=LOCKED_SECONDS, check_same_thread=False)

    return optuna.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connect})


@contextmanager
def answering(file: Path) -> Iterator[None]:
    """Within it, NotNowError if the database does not take something: its disk is full, or another process holds it."""
    try:
        yield
    except (StorageInternalError, OperationalError) as error:
        cause = error.__cause__ or error
        raise NotNowError(f"{file}: {str(cause).splitlines()[0]}") from None


class Points:
    """The points of a sweep. ``count`` points are drawn in a random or bayesian search; a grid ignores ``count``.

    NotNowError where the file cannot be read or written.
    """

    def __init__(self, file: Path, space: Space, *, search: str, count: int, seed: int) -> None:
        self.file, self.search, self.seed = file, search, seed
        self.distributions = {axis.field: distribution(axis) for axis in space.axes}
        self.count = count
        with answering(file):
            self.study = optuna.create_study(storage=database(file), study_name=space.name, load_if_exists=True)
            if search == "grid":
                self._add_grid(space)

    def _add_grid(self, space: Space) -> None:
        """Adds the points of a grid that are new."""
        # A grid's points are no Optuna parameters: Optuna refuses new values of a field later, and --resume may add
        # some.
        self.distributions = {}
        stored = [trial.user_attrs[POINT] for trial in self.study.get_trials(deepcopy=False)]
        new = [point for point in space.grid() if point not in stored]
        for point in new:
            self.study.enqueue_trial({}, user_attrs={POINT: point})
        self.count = len(stored) + len(new)

    def given(self) -> dict[int, dict[str, Value]]:
        """The points handed out so far, by number. A draw that was cut short, by a kill or a full disk, is no point."""
        with answering(self.file):
            trials = self.study.get_trials(deepcopy=False)
        return {
            trial.number: dict(trial.user_attrs.get(POINT, trial.params))
            for trial in trials
            if trial.state != TrialState.WAITING
            and SAME not in trial.user_attrs
            and (POINT in trial.user_attrs or trial.params.keys() == self.distributions.keys())
        }

    def unfinished(self) -> set[int]:
        """The numbers of the points that were handed out and have no recorded error yet."""
        given = self.given()
        with answering(self.file):
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number for trial in running if trial.number in given}

    def new(self) -> tuple[int, dict[str, Value]] | None:
        """(number, point) of the next point, or None when there are enough."""
        given = self.given()
        with answering(self.file):
            for _ in range(MOST_REPEATS if len(given) < self.count else 0):
                trial = self._drawn()
                point = dict(trial.user_attrs.get(POINT, trial.params))
                same = next((number for number, earlier in given.items() if earlier == point), None)
                if same is None:
                    return trial.number, point
                # Training the point again would give the same error, so the study gets the earlier error.
                trial.set_user_attr(SAME, same)
                value = self.study.get_trials(deepcopy=False)[same].value
                self.study.tell(trial, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
        self.count = len(given)
        return None

    def _drawn(self) -> optuna.Trial:
        """The next draw of a search, or the next point of a grid."""
        # A new sampler for each point: a draw depends on its number and on results, not on the number of starts.
        seed = self.seed * 10_007 + len(self.study.get_trials(deepcopy=False))
        if self.search == "bayesian":
            # constant_liar: points that are being tried are avoided, too.
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=max(4, self.count // 5), constant_liar=True
            )
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        return self.study.ask(self.distributions)

    def record(self, number: int, errors: list[float]) -> None:
        """Records the errors of a point, one for each seed; [] if it failed."""
        state = TrialState.COMPLETE if errors else TrialState.FAIL
        with answering(self.file):
            self.study.tell(number, fmean(errors) if errors else None, state=state)
