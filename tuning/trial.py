"""What Ray Tune runs for a trial: a training run in a folder of its own, a child of the sweep's run in MLflow."""

import math
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from glot import config
from glot.errors import InputError
from glot.training import driver
from glot.training.loop import BEST_BY
from tuning.spaces import Space, settings_of
from tuning.study import FAILED, FINISHED, Attempt, history

LOG = "log.txt"
CPU_SHARE = 0.95  # of a core, per DDP worker: the trial that waits for them needs the rest, or two cores never suffice


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep have in common; absolute paths, because trials start in a folder of their own."""

    space: Space
    recipe: str
    settings: tuple[str, ...]
    features: Path
    out: Path
    body: Path | None
    mlflow: str
    experiment: str
    parent: str
    workers: int  # DDP workers; one is the trial's own process
    gpus: float  # of a trial
    cpus: int  # of a trial in one process

    def recipe_of(self, attempt: Attempt) -> config.Recipe:
        """The recipe of a trial."""
        return config.recipe_named(self.recipe, [*self.settings, *settings_of(attempt.point), f"seed={attempt.seed}"])

    def resources(self) -> dict[str, float]:
        """What Tune holds for a trial. Several workers ask for their own: the trial beside them must cost nothing."""
        if self.workers > 1:
            return {"CPU": 0.01}
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def trial_function(plan: Plan) -> Callable[[dict[str, Any]], None]:
    """The function that Tune starts with ``{"attempt": …, "rehearsal": …}``; it reports every epoch, and its end."""

    def trial(given: dict[str, Any]) -> None:
        attempt = Attempt(**given["attempt"])
        folder, recipe = attempt.folder(plan.out), plan.recipe_of(attempt)
        for row in history(folder)[: recipe.epochs - 1]:  # of an earlier start: a scheduler knows only what it was told
            tune.report(epoch_report(row))
        if given["rehearsal"]:
            return
        folder.mkdir(parents=True, exist_ok=True)
        last: dict[str, Any] = {"epoch": 0, BEST_BY: math.inf}

        def report(metrics: dict[str, float]) -> None:
            last.update(epoch_report(metrics))
            if metrics["epoch"] < recipe.epochs:  # else the end is reported: too late to stop a trial
                tune.report(dict(last))

        with (folder / LOG).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
            try:
                driver.fit(
                    recipe,
                    features=plan.features,
                    out=folder,
                    workers=plan.workers,
                    gpus=plan.gpus,
                    cpus_per_worker=plan.cpus if plan.workers == 1 else CPU_SHARE,
                    body=plan.body,
                    mlflow=plan.mlflow,
                    experiment=plan.experiment,
                    name=f"{plan.space.label(attempt.point)}, seed {attempt.seed}",
                    parent=plan.parent,
                    upload=False,
                    here=report if plan.workers == 1 else None,
                    callbacks=() if plan.workers == 1 else [ReportEpochs(recipe.epochs)],
                )
            except InputError as error:  # of this trial alone: it diverged, say. The others go on.
                print(f"error: {error}", file=log)
                tune.report({**last, "outcome": FAILED, "reason": str(error)})
                return
        rows = history(folder)
        tune.report({**epoch_report(rows[-1]), "outcome": FINISHED, "reason": ""})

    return trial


class ReportEpochs(TuneReportCallback):
    """Reports the epochs of a trial with several workers, but not the last of them."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Passes on what rank 0 said."""
        if metrics[0]["epoch"] < self.epochs:
            super().after_report(run_context, [epoch_report(metrics[0])], checkpoint)


def epoch_report(metrics: dict[str, float]) -> dict[str, float]:
    """What Tune is told of an epoch; an epoch that was not validated counts for nothing."""
    return {"epoch": int(metrics["epoch"]), BEST_BY: metrics.get(BEST_BY, math.inf)}
