"""What Ray Tune runs for a trial: a training run in a folder of its own, nested under the sweep's run in MLflow."""

import math
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.integration.ray_train import TuneReportCallback

from glot.errors import InputError, NotNowError, is_passing
from glot.training.driver import fit
from glot.training.run_state import BEST_BY, read_epochs
from glot.training.spec import MlflowLabels, TrainSpec
from glot.training.workers import Launcher, RayWorkers, ThisProcess
from tuning.outcomes import BROKEN, FAILED, FINISHED, NOT_NOW, Attempt
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
            gpus=0 if in_process else int(spec.gpus_per_trial or 0),
            workers=0 if in_process or spec.gpus_per_trial else spec.workers,
            settings=(*spec.settings, *settings_of(attempt.point), f"seed={attempt.seed}"),
            body=spec.body,
            vae=spec.vae if spec.recipe_at(attempt.point).model.kind == "meva" else None,
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
    """The function that Tune starts with {"attempt": …}. It reports every epoch, and how the trial ended."""

    def trial(config: dict[str, Any]) -> None:
        attempt = Attempt(**config["attempt"])
        last: dict[str, Any] = {"epoch": 0, BEST_BY: math.inf}
        try:
            last |= train_trial(plan, attempt)
            end = {"outcome": FINISHED, "reason": ""}
        except Exception as error:
            keep_error(error, attempt.folder(plan.spec.sweep_folder))
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            end = {"outcome": kind_of(error), "reason": reason}
        # The last epoch is reported with the outcome, so that the trial cannot be stopped between both.
        tune.report(last | end)

    return trial


def train_trial(plan: TrialPlan, attempt: Attempt) -> dict[str, float]:
    """Trains a trial in its folder and returns the report of its last epoch; the other epochs are reported to Tune."""
    spec = plan.train_spec(attempt)
    epochs = spec.chosen_recipe.epochs
    for row in read_epochs(spec.run_folder)[: epochs - 1]:  # an earlier start's, which may be new to the scheduler
        tune.report(epoch_report(row))

    def report(metrics: dict[str, float]) -> None:
        if metrics["epoch"] < epochs:
            tune.report(epoch_report(metrics))

    spec.run_folder.mkdir(parents=True, exist_ok=True)
    with (spec.run_folder / LOG).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        fit(spec, plan.launcher(report, epochs), labels=plan.labels(attempt))
    return epoch_report(read_epochs(spec.run_folder)[-1])


def kind_of(error: Exception) -> str:
    """How a trial ended that raised the error: FAILED (it would fail again), NOT_NOW, or BROKEN (our mistake)."""
    if isinstance(error, InputError):  # concerns this trial alone, e.g. a loss that diverged
        return FAILED
    passing = isinstance(error, NotNowError | RayError) or (isinstance(error, OSError) and is_passing(error))
    return NOT_NOW if passing else BROKEN


def keep_error(error: Exception, folder: Path) -> None:
    """Adds the error to the trial's log, with its trace if it is a mistake in this program."""
    trace = "".join(traceback.format_exception(error)) if kind_of(error) == BROKEN else ""
    with suppress(OSError):  # the disk may be full
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a") as log:
            log.write(f"{trace}error: {error}\n")


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
