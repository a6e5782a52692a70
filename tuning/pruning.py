"""Stops trials that are worse than others at the same epoch (ASHA): reports of epochs in, decisions for Tune out."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from glot.config import Recipe
from glot.training.run_state import BEST_BY
from tuning.outcomes import Attempt
from tuning.trial import epoch_report


class Pruner(ASHAScheduler):
    """ASHA: of the trials that reach a certain epoch, the best third continue.

    A trial is known by its name in the sweep, because Ray Tune gives a trial that it starts again another id.
    ``earlier``: the epochs of trials that are over, by the name of the trial. New trials are compared with them, too.
    """

    def __init__(self, recipe: Recipe, earlier: Mapping[str, Sequence[dict[str, float]]]) -> None:
        first = recipe.first_eval_epoch + 1  # before this epoch no errors are known
        super().__init__(
            time_attr="epoch",
            metric=BEST_BY,
            mode="min",
            # One more than the last epoch: a trial that reaches max_t is stopped, even while it saves its result.
            max_t=recipe.epochs + 1,
            grace_period=min(max(first, math.ceil(recipe.epochs / 3)), recipe.epochs),
            reduction_factor=3,
        )
        self.stopped: set[str] = set()  # names of the trials that were stopped
        for name, rows in earlier.items():
            known: Any = SimpleNamespace(trial_id=name)
            super().on_trial_add(None, known)  # type: ignore[arg-type]
            for row in rows:
                super().on_trial_result(None, known, epoch_report(row))  # type: ignore[arg-type]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune begins a trial."""
        super().on_trial_add(tune_controller, _known(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial continues after an epoch. A trial that was stopped does not continue when it is repeated."""
        known = _known(trial)
        if known.trial_id in self.stopped:
            return TrialScheduler.STOP
        decision = super().on_trial_result(tune_controller, known, result)
        if decision == TrialScheduler.STOP and "outcome" not in result:
            self.stopped.add(known.trial_id)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial ended."""
        super().on_trial_complete(tune_controller, _known(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial ended before it began to run."""
        super().on_trial_remove(tune_controller, _known(trial))


def _known(trial: Any) -> Any:
    """Stands for Tune's trial, with the name that the trial has in the sweep."""
    return SimpleNamespace(trial_id=Attempt(**trial.config["attempt"]).name)
