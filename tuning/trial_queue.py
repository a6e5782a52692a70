"""Points in, trials for Ray Tune out, one by one; their outcomes go into the trials' folders and into the study.

A sweep whose driver was killed continues from the study and the trials' folders, not from Tune's own state.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from glot.training.run_state import BEST_BY, read_epochs
from tuning.outcomes import FAILED, STOPPED, Attempt, Outcome, outcomes, write_outcome
from tuning.points import Points


class TrialQueue(Searcher):
    """Hands trials to Tune one by one, unfinished trials of an earlier start first, and records their outcomes.

    With ``rehearse``, trials that are over are handed out, too. They only report their epochs again, so that a new
    scheduler knows the errors to compare with. ``report`` is called with every outcome, the number of trials
    that are over, and the number of all trials.
    """

    def __init__(
        self, points: Points, out: Path, *, seeds: int, rehearse: bool, report: Callable[[Outcome, int, int], None]
    ) -> None:
        super().__init__()
        self.points, self.out, self.seeds, self.rehearse, self.report = points, out, seeds, rehearse, report
        self.over = {(each.number, each.seed): each for each in outcomes(out) if each.seed in self._seeds()}
        self.lost: list[Attempt] = []  # trials of this start that ended without a result
        self.running: dict[str, tuple[Attempt, float, bool]] = {}  # Tune's id -> trial, start, rehearsal or not
        given = points.given()
        every = [Attempt(number, point, seed) for number, point in given.items() for seed in self._seeds()]
        self.queue = deque((attempt, True) for attempt in every if rehearse and self._key(attempt) in self.over)
        self.queue.extend((attempt, False) for attempt in every if self._key(attempt) not in self.over)
        for number in points.unfinished():  # the driver was killed between the last outcome and its recording
            self._record(number)

    def unfinished(self) -> int:
        """The number of trials that are not over."""
        return self.points.count * self.seeds - len(self.over)

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's config, or Searcher.FINISHED."""
        if not self.queue:
            new = self.points.new()
            if new is None:
                return Searcher.FINISHED
            self.queue.extend((Attempt(*new, seed), False) for seed in self._seeds())
        attempt, rehearsal = self.queue.popleft()
        self.running[trial_id] = attempt, time.monotonic(), rehearsal
        return {"attempt": asdict(attempt), "rehearsal": rehearsal}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records how a trial ended. A trial whose process died after all restarts stays unfinished."""
        if trial_id not in self.running:
            return
        attempt, begun, rehearsal = self.running.pop(trial_id)
        if rehearsal:
            return
        interrupted = result is not None and "outcome" not in result and not self.rehearse  # no scheduler stopped it
        if error or not result or interrupted:
            self.lost.append(attempt)
            return
        outcome = self._outcome(attempt, result, round(time.monotonic() - begun, 1))
        write_outcome(outcome, self.out)
        self.over[self._key(attempt)] = outcome
        self._record(attempt.number)
        self.report(outcome, len(self.over), self.points.count * self.seeds)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing, because everything is in files already."""

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles searchers to continue from them, but a study's database cannot be pickled."""
        return {}

    def _outcome(self, attempt: Attempt, result: dict[str, Any], seconds: float) -> Outcome:
        """How a trial ended, with the metrics of its best epoch. A trial without an outcome was stopped early."""
        epochs = read_epochs(attempt.folder(self.out))
        best = min(epochs, key=lambda row: row.get(BEST_BY, float("inf")), default={})
        kind = result.get("outcome", STOPPED)
        return Outcome(
            attempt.number,
            attempt.point,
            attempt.seed,
            kind,
            {name: value for name, value in best.items() if name.startswith("val_") or name == "epoch"},
            f"after epoch {len(epochs)}" if kind == STOPPED else result.get("reason", ""),
            seconds,
        )

    def _record(self, number: int) -> None:
        """Records a point's errors in the study, once the trials of all its seeds are over."""
        ended = [self.over.get((number, seed)) for seed in self._seeds()]
        if number in self.points.unfinished() and all(ended):
            errors = [
                each.metrics[BEST_BY] for each in ended if each and each.outcome != FAILED and BEST_BY in each.metrics
            ]
            self.points.record(number, errors)

    def _seeds(self) -> range:
        return range(1, self.seeds + 1)

    @staticmethod
    def _key(attempt: Attempt) -> tuple[int, int]:
        return attempt.number, attempt.seed
