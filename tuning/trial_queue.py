"""Which points a sweep tries and how each of them went: a study of Optuna in a file, handed to Ray Tune by trials.

The study and the trials' folders are what a sweep goes on from when its driver was killed, not Tune's own state: a
point is in the file before Tune hears of it, and a trial is over when its outcome.json is there.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from glot.errors import InputError
from glot.location import write_whole
from glot.training.loop import BEST_BY
from glot.training.run_state import EPOCHS
from tuning.spaces import Axis, Space, Value

optuna.logging.set_verbosity(optuna.logging.WARNING)
OUTCOME = "outcome.json"
FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
SEARCHES = ("grid", "random", "bayesian")
POINT, SAME = "point", "same_as"  # a grid's point; marks one that was drawn before
AS_BEFORE = 20  # points in a row that were tried already, before a search is taken to be at its end


@dataclass(frozen=True)
class Attempt:
    """A trial: a point of the space, trained from one seed."""

    number: int  # of the point, from 0
    point: dict[str, Value]
    seed: int

    def folder(self, out: Path) -> Path:
        """Where the trial lives."""
        return out / "trials" / f"{self.number:03d}-seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``metrics``: of its best epoch on the validation split, val_pa_mpjpe and so on."""

    number: int
    point: dict[str, Value]
    seed: int
    outcome: str  # FINISHED | STOPPED | FAILED
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0

    @property
    def attempt(self) -> Attempt:
        """The trial."""
        return Attempt(self.number, self.point, self.seed)


def outcomes(out: Path) -> list[Outcome]:
    """Of the trials that are over, in the order of their points."""
    files = sorted((out / "trials").glob(f"*/{OUTCOME}"))
    return [Outcome(**json.loads(file.read_text())) for file in files]


def history(folder: Path) -> list[dict[str, float]]:
    """Metrics of a trial's epochs so far."""
    file = folder / EPOCHS
    return json.loads(file.read_text()) if file.is_file() else []


def distribution(axis: Axis) -> BaseDistribution:
    """What Optuna draws an axis from."""
    if axis.values:
        return CategoricalDistribution(axis.values)
    assert axis.low is not None and axis.high is not None
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


class Points:
    """The points of a sweep, kept in an Optuna study: those of a grid, or drawn one by one."""

    def __init__(self, file: Path, space: Space, *, search: str, count: int, seed: int) -> None:
        self.search, self.seed = search, seed
        self.study = optuna.create_study(storage=f"sqlite:///{file}", study_name=space.name, load_if_exists=True)
        self.distributions = {axis.field: distribution(axis) for axis in space.axes}
        self.count = count
        if search == "grid":
            # Not as parameters: Optuna would not have a field's values change, and --resume may bring more of them.
            self.distributions = {}
            there = [trial.user_attrs[POINT] for trial in self.study.get_trials(deepcopy=False)]
            new = [point for point in space.grid() if point not in there]
            for point in new:
                self.study.enqueue_trial({}, user_attrs={POINT: point})
            self.count = len(there) + len(new)

    def told(self) -> dict[int, dict[str, Value]]:
        """Points given out so far, by number."""
        return {
            trial.number: dict(trial.user_attrs.get(POINT, trial.params))
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and SAME not in trial.user_attrs
        }

    def unfinished(self) -> set[int]:
        """Numbers of points given out whose error is not known."""
        return {trial.number for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}

    def new(self) -> tuple[int, dict[str, Value]] | None:
        """The next point, or None when there are enough."""
        told = self.told()
        for _ in range(AS_BEFORE if len(told) < self.count else 0):
            # A sampler a point: what is drawn depends on its number and on results, not on how often we were started.
            seed = self.seed * 10_007 + len(self.study.get_trials(deepcopy=False))
            self.study.sampler = (
                optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, self.count // 5))
                if self.search == "bayesian"
                else optuna.samplers.RandomSampler(seed=seed)
            )
            trial = self.study.ask(self.distributions)
            point = dict(trial.user_attrs.get(POINT, trial.params))
            same = next((number for number, other in told.items() if other == point), None)
            if same is None:
                return trial.number, point
            trial.set_user_attr(SAME, same)  # training it again would give the same: what it gave is told again
            value = self.study.get_trials(deepcopy=False)[same].value
            self.study.tell(trial, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
        self.count = len(told)
        return None

    def tell(self, number: int, errors: list[float]) -> None:
        """The errors that a point had, one a seed; none: it failed."""
        state = TrialState.COMPLETE if errors else TrialState.FAIL
        self.study.tell(number, fmean(errors) if errors else None, state=state)


class Ledger(Searcher):
    """Hands Tune one trial after another, those that an earlier start left unfinished first, and notes how they end.

    ``rehearse``: trials that are over are handed out too, to report their epochs once more and end; that is how a
    scheduler that was started anew learns what it is to compare with. ``say`` is told every outcome.
    """

    def __init__(
        self, points: Points, out: Path, *, seeds: int, rehearse: bool, say: Callable[[Outcome, int, int], None]
    ) -> None:
        super().__init__()
        self.points, self.out, self.seeds, self.rehearse, self.say = points, out, seeds, rehearse, say
        self.over = {(one.number, one.seed): one for one in outcomes(out) if one.seed in self._seeds()}
        self.lost: list[Attempt] = []
        self.given: dict[str, tuple[Attempt, float, bool]] = {}
        told = points.told()
        every = [Attempt(number, point, seed) for number, point in told.items() for seed in self._seeds()]
        self.queue = deque((attempt, True) for attempt in every if rehearse and self._key(attempt) in self.over)
        self.queue.extend((attempt, False) for attempt in every if self._key(attempt) not in self.over)
        for number in points.unfinished():  # killed between the last outcome and its telling
            self._tell(number)

    def left(self) -> int:
        """Trials that are not over."""
        return self.points.count * self.seeds - len(self.over)

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's config, or Tune's word for the end."""
        if not self.queue:
            new = self.points.new()
            if new is None:
                return Searcher.FINISHED
            self.queue.extend((Attempt(*new, seed), False) for seed in self._seeds())
        attempt, rehearsal = self.queue.popleft()
        self.given[trial_id] = attempt, time.monotonic(), rehearsal
        return {"attempt": asdict(attempt), "rehearsal": rehearsal}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Notes an outcome. A trial whose process died as often as Tune starts it again has none: it is unfinished."""
        if trial_id not in self.given:
            return
        attempt, begun, rehearsal = self.given.pop(trial_id)
        if rehearsal:
            return
        if (
            error or not result or ("outcome" not in result and not self.rehearse)
        ):  # nobody stops trials but a scheduler
            self.lost.append(attempt)
            return
        rows = history(attempt.folder(self.out))
        best = min(rows, key=lambda row: row.get(BEST_BY, float("inf")), default={})
        how = result.get("outcome", STOPPED)
        outcome = Outcome(
            attempt.number,
            attempt.point,
            attempt.seed,
            how,
            {name: value for name, value in best.items() if name.startswith("val_") or name == "epoch"},
            f"behind epoch {len(rows)}" if how == STOPPED else result.get("reason", ""),
            round(time.monotonic() - begun, 1),
        )
        write_whole(attempt.folder(self.out) / OUTCOME, (json.dumps(asdict(outcome), indent=1) + "\n").encode())
        self.over[self._key(attempt)] = outcome
        self._tell(attempt.number)
        self.say(outcome, len(self.over), self.points.count * self.seeds)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: everything is in files already."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers to go on from, and a study's database is no part of a pickle."""
        return {}

    def _tell(self, number: int) -> None:
        ended = [self.over.get((number, seed)) for seed in self._seeds()]
        if number in self.points.unfinished() and all(ended):
            errors = [one.metrics[BEST_BY] for one in ended if one and one.outcome != FAILED and BEST_BY in one.metrics]
            self.points.tell(number, errors)

    def _seeds(self) -> range:
        return range(1, self.seeds + 1)

    @staticmethod
    def _key(attempt: Attempt) -> tuple[int, int]:
        return attempt.number, attempt.seed


def check_search(search: str, space: Space, trials: int) -> None:
    """InputError unless the space can be searched so."""
    if search not in SEARCHES:
        raise InputError(f"--search {search}: there is {', '.join(SEARCHES)}")
    if search == "grid":
        size = len(space.grid())
        if trials and trials != size:
            raise InputError(f"--trials {trials}: a grid tries all of its {size} points; --search random tries some")
    elif not trials:
        raise InputError(f"--search {search}: say how many points with --trials")
