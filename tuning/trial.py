"""What Ray Tune runs for a trial: a training run in a folder of its own, nested under the sweep's run in MLflow."""

import math
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from glot.errors import InputError
from glot.training.driver import fit
from glot.training.run_state import BEST_BY, read_epochs
from glot.training.spec import MlflowLabels, TrainSpec
from glot.training.workers import Launcher, RayWorkers, ThisProcess
from tuning.outcomes import FAILED, FINISHED, Attempt
from tuning.spaces import settings_of
from tuning.spec import SearchSpec

LOG = "log.txt"
# Cores of each DDP worker. The trial that waits for its workers needs a part of a core, too: with whole cores, two
# workers would never fit on two cores.
CPU_SHARE = 0.95


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a sweep have in common. ``spec`` has absolute paths (``SearchSpec.absolute``)."""

    spec: SearchSpec
    parent: str  # id of the sweep's run in MLflow
    cpus: int = 1  # cores of a trial that trains in one process

    def train_spec(self, attempt: Attempt) -> TrainSpec:
        """The training run of a trial. It continues if the trial was started before."""
        spec = self.spec
        in_process = spec.workers == 1
        return TrainSpec(
            features=spec.features,
            out=attempt.folder(spec.sweep_folder),
            recipe=spec.recipe,
            gpus=0 if in_process else int(spec.gpus_per_trial),
            workers=0 if in_process or spec.gpus_per_trial else spec.workers,
            settings=(*spec.settings, *settings_of(attempt.point), f"seed={attempt.seed}"),
            body=spec.body,
            mlflow=spec.tracking_uri,
            experiment=spec.experiment,
            resume=True,
        )

    def labels(self, attempt: Attempt) -> MlflowLabels:
        """How a trial appears in MLflow. Only the best trial's checkpoint is copied there, when the sweep has ended."""
        name = f"{self.spec.swept.label(attempt.point)}, seed {attempt.seed}"
        return MlflowLabels(name=name, parent=self.parent, upload=False)

    def launcher(self, report: Callable[[dict[str, float]], None], epochs: int) -> Launcher:
        """Trains a trial in the trial's own process, or with Ray Train's workers."""
        if self.spec.workers == 1:
            return ThisProcess(report, gpu=bool(self.spec.gpus_per_trial), threads=max(1, self.cpus))
        return RayWorkers(cpus_per_worker=CPU_SHARE, callbacks=[ReportEpochs(epochs)])

    def resources(self) -> dict[str, float]:
        """The resources that Tune reserves for a trial. Several workers reserve their own; then this is little."""
        if self.spec.workers > 1:
            return {"CPU": 0.01}
        gpus = self.spec.gpus_per_trial
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})


def trial_function(plan: TrialPlan) -> Callable[[dict[str, Any]], None]:
    """The function that Tune starts with {"attempt": …, "rehearsal": …}. It reports every epoch and the outcome."""

    def trial(config: dict[str, Any]) -> None:
        attempt = Attempt(**config["attempt"])
        spec = plan.train_spec(attempt)
        epochs = spec.chosen_recipe.epochs
        for row in read_epochs(spec.run_folder)[: epochs - 1]:  # an earlier start's, new to this scheduler
            tune.report(epoch_report(row))
        if config["rehearsal"]:
            return
        spec.run_folder.mkdir(parents=True, exist_ok=True)
        last: dict[str, Any] = {"epoch": 0, BEST_BY: math.inf}

        def report(metrics: dict[str, float]) -> None:
            last.update(epoch_report(metrics))
            # The last epoch is reported with the outcome, so that the trial cannot be stopped between both.
            if metrics["epoch"] < epochs:
                tune.report(dict(last))

        with (spec.run_folder / LOG).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
            try:
                fit(spec, plan.launcher(report, epochs), labels=plan.labels(attempt))
            except InputError as error:  # concerns this trial alone, e.g. a loss that diverged
                print(f"error: {error}", file=log)
                tune.report({**last, "outcome": FAILED, "reason": str(error)})
                return
        rows = read_epochs(spec.run_folder)
        tune.report({**epoch_report(rows[-1]), "outcome": FINISHED, "reason": ""})

    return trial


class ReportEpochs(TuneReportCallback):
    """Reports to Tune the epochs of a trial with several workers, except the last one."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Passes on the metrics of rank 0."""
        if metrics[0]["epoch"] < self.epochs:
            super().after_report(run_context, [epoch_report(metrics[0])], checkpoint)


def epoch_report(metrics: dict[str, float]) -> dict[str, float]:
    """The report of an epoch to Tune. An epoch without validation has an infinite error."""
    return {"epoch": int(metrics["epoch"]), BEST_BY: metrics.get(BEST_BY, math.inf)}
