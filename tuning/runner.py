"""Runs the trials of a sweep with Ray Tune, as many at a time as the cluster holds."""

import logging
import math
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ray import tune
from ray.exceptions import RayError
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import FIFOScheduler

from glot.errors import is_passing
from glot.training.cluster.preflight import check_nodes, connect
from glot.training.record.progress import duration
from glot.training.run_state import BEST_BY, read_epochs
from tuning import trial_queue
from tuning.outcomes import BROKEN, Outcome, outcomes
from tuning.points import Points
from tuning.pruning import Pruner
from tuning.shares import choose_device, share_cluster
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan, trial_function
from tuning.trial_queue import TrialQueue

TUNE_FILES = "tune"  # Tune's own files in a sweep's folder


@dataclass(frozen=True)
class TrialsEnd:
    """How a start of a sweep's trials ended."""

    unfinished: int = 0  # number of trials that are not over
    broken: int = 0  # number of these that ended with a mistake in this program
    interrupted: bool = False


def run_trials(plan: TrialPlan, points: Points) -> TrialsEnd:
    """Runs the trials of a sweep that are not over.

    Trials that something outside has ended are tried again after a while, in another run of Tune if nothing else runs.
    """
    spec = plan.spec
    earlier = outcomes(spec.sweep_folder)
    folders = {each.attempt.name: each.attempt.folder(spec.sweep_folder) for each in earlier}
    pruner = Pruner(spec.chosen_recipe, {name: read_epochs(folder) for name, folder in folders.items()})
    queue = TrialQueue(
        points,
        spec,
        stopped=lambda name: name in pruner.stopped,
        report=outcome_printer(spec, over_before=len(earlier)),
    )
    trials = queue.unfinished()
    if not trials:
        print(f"{spec.sweep_folder}: all {len(queue.over)} trials are over, nothing to do (--fresh starts a new sweep)")
        return TrialsEnd()
    connect(workers=spec.workers_per_trial, gpus=math.ceil(spec.gpus_per_trial or 0))
    at_once, plan = share_cluster(replace(plan, spec=choose_device(spec)), trials)
    check_nodes(spec.features, spec.sweep_folder)
    # What Tune says of trials that ended, of its own files and of how it could be restored, is said in other words by
    # this program, which needs none of these files.
    for name in ("ray.tune.tune", "ray.train._internal.syncer"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    interrupted = False
    with suppress(KeyboardInterrupt):
        interrupted = True
        run_rounds(plan, queue, pruner, at_once)
        interrupted = bool(queue.running)  # Tune takes a KeyboardInterrupt itself, and ends
    broken = sum(outcome.outcome == BROKEN for outcome in queue.given_up.values())
    return TrialsEnd(queue.unfinished(), broken, interrupted)


def run_rounds(plan: TrialPlan, queue: TrialQueue, pruner: Pruner, at_once: int) -> None:
    """Runs of Tune, until no trial is left that can be tried now."""
    failures = 0  # of Tune itself, in a row
    while True:
        reason = run_round(plan, queue, pruner, at_once)
        failures = failures + 1 if reason else 0
        if queue.running or failures > len(trial_queue.WAITS):
            return
        wait = queue.seconds_to_wait()
        if failures:
            wait = max(wait or 0.0, trial_queue.WAITS[failures - 1])
            print(f"warning: the sweep stopped ({reason}); it continues in {duration(wait)}", flush=True)
        if wait is None:
            return
        time.sleep(wait)


def run_round(plan: TrialPlan, queue: TrialQueue, pruner: Pruner, at_once: int) -> str:
    """A run of Tune, which ends when nothing runs and no trial is to be started now.

    Returns why it ended before that, if it was for something outside that may pass, such as a full disk; "" otherwise.
    """
    spec = plan.spec
    tuner = tune.Tuner(
        tune.with_resources(trial_function(plan), plan.resources()),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            scheduler=pruner if spec.prune else FIFOScheduler(),
            num_samples=-1,  # until the queue has no more
            max_concurrent_trials=at_once,
            # The next trial starts in a process that has loaded torch already. The process of a trial that was stopped
            # within an epoch cannot be used again.
            reuse_actors=not spec.prune,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(spec.sweep_folder / TUNE_FILES),
            failure_config=tune.FailureConfig(max_failures=0),  # the queue decides when a trial is tried again
            callbacks=[JsonLoggerCallback()],  # Tune reads its results from the files that this callback writes
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if not (reason := passing_reason(error)):
            raise
        queue.lose_running(reason)
        return reason
    return ""


def passing_reason(error: BaseException | None) -> str:
    """Why Tune's run ended, if it was for something outside that may pass; otherwise "". Tune wraps what it caught."""
    while error is not None:
        if isinstance(error, RayError) or (isinstance(error, OSError) and is_passing(error)):
            return (str(error).strip() or type(error).__name__).splitlines()[0]
        error = error.__cause__ or error.__context__
    return ""


def outcome_printer(spec: SearchSpec, *, over_before: int) -> Callable[[Outcome, int, int], None]:
    """The function that prints a line for each outcome. ``over_before`` trials were over before this start."""
    begun = time.monotonic()

    def print_outcome(outcome: Outcome, over: int, total: int) -> None:
        left = (time.monotonic() - begun) / max(over - over_before, 1) * (total - over)
        error = f"PA-MPJPE {outcome.metrics[BEST_BY]:.1f} mm" if BEST_BY in outcome.metrics else ""
        parts = [f"{over}/{total}", f"{spec.swept.label(outcome.point)}, seed {outcome.seed}: {outcome.outcome}"]
        parts += [part for part in (outcome.reason[:500], error, duration(outcome.seconds)) if part]
        print("  ".join(parts) + (f"  about {duration(left)} left" if over < total else ""), flush=True)

    return print_outcome
