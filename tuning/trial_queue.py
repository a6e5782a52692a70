"""Points in, trials for Ray Tune out, one by one; their outcomes go into the trials' folders and into the study.

A sweep whose driver was killed continues from the study and the trials' folders, not from Tune's own state.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from glot.errors import InputError, NotNowError
from glot.training.run_state import BEST_BY, read_epochs
from glot.training.step_checkpoints import newest_step
from tuning.outcomes import (
    BROKEN,
    FAILED,
    NOT_NOW,
    OVER,
    STOPPED,
    Attempt,
    Outcome,
    outcomes,
    write_outcome,
)
from tuning.points import Points
from tuning.spec import SearchSpec

# Seconds until a trial is tried again that something outside has ended, for each try in a row without a new checkpoint.
# After the last one, the trial waits for --resume.
WAITS = (15.0, 60.0, 240.0, 600.0)
LOST = "its process was lost"


@dataclass(frozen=True)
class Waiting:
    """A trial that is tried again at the time ``due`` (of ``time.monotonic``)."""

    attempt: Attempt
    due: float


class TrialQueue(Searcher):
    """Hands trials to Tune one by one, unfinished trials of an earlier start first, and records their outcomes.

    ``stopped`` says whether the scheduler stopped a trial (by its name). ``report`` is called when a trial ended, with
    its outcome, the number of trials that are over, and the number of all trials.
    """

    def __init__(
        self,
        points: Points,
        spec: SearchSpec,
        *,
        stopped: Callable[[str], bool] = lambda name: False,
        report: Callable[[Outcome, int, int], None],
    ) -> None:
        super().__init__()
        self.points, self.spec, self.stopped, self.report = points, spec, stopped, report
        self.out: Path = spec.sweep_folder
        given = points.given()
        every = [Attempt(number, point, seed) for number, point in given.items() for seed in spec.seeds_of(point)]
        names = {attempt.name for attempt in every}
        self.over = {each.attempt.name: each for each in outcomes(self.out) if each.attempt.name in names}
        self.queue = deque(attempt for attempt in every if attempt.name not in self.over)
        self.running: dict[str, tuple[Attempt, float]] = {}  # Tune's id -> trial, when it began
        self.waiting: list[Waiting] = []
        self.given_up: dict[str, Outcome] = {}  # trials that wait for --resume, by name
        self._all_given = False  # whether there are no more new points
        self._tries: dict[str, tuple[int, int]] = {}  # name -> tries in a row, and the checkpoint they began with
        for number in points.unfinished():  # the driver was killed between the last outcome and its recording
            self._record(number)

    @property
    def total(self) -> int:
        """The number of trials."""
        return self.points.count * self.spec.seeds

    def unfinished(self) -> int:
        """The number of trials that are not over."""
        return self.total - len(self.over)

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's config; None while running trials have to be waited for; or Searcher.FINISHED.

        Where nothing runs and trials wait for their next try, Tune's run ends, and the caller begins another one later
        (``seconds_to_wait``). Tune would wait, too, but could not be interrupted meanwhile.
        """
        attempt = self._next()
        if attempt is None:
            return None if self.running else Searcher.FINISHED
        self.running[trial_id] = attempt, time.monotonic()
        return {"attempt": asdict(attempt)}

    def seconds_to_wait(self) -> float | None:
        """Seconds until the next trial is to be tried again; None if no trial waits."""
        return max(0.0, min(each.due for each in self.waiting) - time.monotonic()) if self.waiting else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records how a trial ended. ``error``: its process was lost."""
        if trial_id not in self.running:
            return
        attempt, begun = self.running.pop(trial_id)
        seconds = round(time.monotonic() - begun, 1)
        if not error and result and "outcome" in result:
            self._end(self._outcome(attempt, result["outcome"], result["reason"], seconds))
        elif self.stopped(attempt.name):
            reason = f"after epoch {len(read_epochs(attempt.folder(self.out)))}"
            self._end(self._outcome(attempt, STOPPED, reason, seconds))
        else:
            self._end(self._outcome(attempt, NOT_NOW, LOST, seconds))

    def lose_running(self, reason: str) -> None:
        """The trials that run have ended, because Tune's run ended; they are tried again."""
        for attempt, begun in self.running.values():
            self._end(self._outcome(attempt, NOT_NOW, reason, round(time.monotonic() - begun, 1)))
        self.running.clear()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing, because everything is in files already."""

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles searchers to continue from them, but a study's database cannot be pickled."""
        return {}

    def _next(self) -> Attempt | None:
        """The next trial to run now. Trials of points that make no valid recipe end here, without a process."""
        due = min(self.waiting, key=lambda each: each.due, default=None)
        if due and due.due <= time.monotonic():
            self.waiting.remove(due)
            return due.attempt
        while not self.queue and not self._all_given:
            try:
                new = self.points.new()
            except NotNowError:  # the study's disk is full, for example; asked again before the sweep ends
                return None
            if new is None:
                self._all_given = True
                break
            attempts = [Attempt(*new, seed) for seed in self.spec.seeds_of(new[1])]
            try:
                self.spec.recipe_at(new[1])
            except InputError as error:
                for attempt in attempts:
                    self._end(self._outcome(attempt, FAILED, str(error), 0.0))
            else:
                self.queue.extend(attempts)
        return self.queue.popleft() if self.queue else None

    def _end(self, outcome: Outcome) -> None:
        """Stores the outcome of a trial that is over, or decides when the trial is tried again."""
        if outcome.outcome in OVER:
            try:
                write_outcome(outcome, self.out)
            except OSError as error:
                outcome = self._outcome(outcome.attempt, NOT_NOW, f"{self.out}: {error.strerror}", outcome.seconds)
        if outcome.outcome in OVER:
            self.over[outcome.attempt.name] = outcome
            self._record(outcome.number)
        else:
            outcome = self._try_later(outcome)
        self.report(outcome, len(self.over), self.total)

    def _try_later(self, outcome: Outcome) -> Outcome:
        """Lets the trial wait for its next try, or for --resume. Returns the outcome with a reason that says so."""
        name, step = outcome.attempt.name, newest_step(outcome.attempt.folder(self.out))
        tries, before = self._tries.get(name, (0, step))
        tries = tries + 1 if step == before else 1
        self._tries[name] = tries, step
        if outcome.outcome == NOT_NOW and tries <= len(WAITS):
            self.waiting.append(Waiting(outcome.attempt, time.monotonic() + WAITS[tries - 1]))
            then = f"tried again in {WAITS[tries - 1]:.0f} s"
        else:
            self.given_up[name] = outcome
            then = "--resume tries it again"
        reason = outcome.reason[:300]
        if outcome.outcome == BROKEN:
            reason += f", see {outcome.attempt.folder(self.out)}/log.txt"
        return replace(outcome, metrics={}, reason=f"{reason}; {then}")

    def _outcome(self, attempt: Attempt, kind: str, reason: str, seconds: float) -> Outcome:
        """How a trial ended, with the metrics of its best epoch."""
        epochs = read_epochs(attempt.folder(self.out))
        best = min(epochs, key=lambda row: row.get(BEST_BY, float("inf")), default={})
        metrics = {name: value for name, value in best.items() if name.startswith("val_") or name == "epoch"}
        return Outcome(attempt.number, attempt.point, attempt.seed, kind, metrics, reason, seconds)

    def _record(self, number: int) -> None:
        """Records a point's errors in the study, once the trials of all its seeds are over."""
        try:
            if number in self.points.unfinished():
                self._tell(number)
        except NotNowError:  # the next start records them, from the trials' folders
            return

    def _tell(self, number: int) -> None:
        point = self.points.given()[number]
        ended = [self.over.get(Attempt(number, point, seed).name) for seed in self.spec.seeds_of(point)]
        if all(ended):
            done = [each for each in ended if each and each.outcome != FAILED and BEST_BY in each.metrics]
            self.points.record(number, [each.metrics[BEST_BY] for each in done])
