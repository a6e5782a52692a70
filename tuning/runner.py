"""Runs the trials of a sweep with Ray Tune, as many at a time as the cluster holds."""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from glot.config import Recipe
from glot.errors import InputError
from glot.training.cluster import alive_nodes, connect
from glot.training.progress import duration
from glot.training.run_state import BEST_BY
from tuning.outcomes import Outcome, outcomes
from tuning.points import Points
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan, trial_function
from tuning.trial_queue import TrialQueue

TUNE_FILES = "tune"  # Tune's own files in a sweep's folder
RESTARTS = 2  # how often a trial is restarted when its process dies


def run_trials(plan: TrialPlan, points: Points) -> tuple[int, int]:
    """Runs the trials of a sweep that are not over.

    Returns the number of trials that ended without a result after all restarts, and the number of unfinished trials.
    """
    spec = plan.spec
    printer = outcome_printer(spec, over_before=len(outcomes(spec.sweep_folder)))
    queue = TrialQueue(points, spec.sweep_folder, seeds=spec.seeds, rehearse=spec.prune, report=printer)
    trials = queue.unfinished()
    if not trials:
        print(f"{spec.sweep_folder}: all {len(queue.over)} trials are over, nothing to do (--fresh starts a new sweep)")
        return 0, 0
    connect(workers=spec.workers if not spec.gpus_per_trial else 1, gpus=math.ceil(spec.gpus_per_trial))
    at_once, plan = share_cluster(plan, trials)
    tuner = tune.Tuner(
        tune.with_resources(trial_function(plan), plan.resources()),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            scheduler=scheduler(spec.chosen_recipe) if spec.prune else FIFOScheduler(),
            num_samples=-1,  # until the queue has no more
            max_concurrent_trials=at_once,
            # The next trial starts in a process that has loaded torch already. The process of a trial that was stopped
            # within an epoch cannot be used again.
            reuse_actors=not spec.prune,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(spec.sweep_folder / TUNE_FILES),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[JsonLoggerCallback()],  # Tune reads its results from the files that this callback writes
            verbose=0,
        ),
    )
    tuner.fit()
    return len(queue.lost), queue.unfinished()


def outcome_printer(spec: SearchSpec, *, over_before: int) -> Callable[[Outcome, int, int], None]:
    """The function that prints a line for each outcome. ``over_before`` trials were over before this start."""
    begun = time.monotonic()

    def print_outcome(outcome: Outcome, over: int, total: int) -> None:
        left = (time.monotonic() - begun) / max(over - over_before, 1) * (total - over)
        error = f"PA-MPJPE {outcome.metrics[BEST_BY]:.1f} mm" if BEST_BY in outcome.metrics else ""
        parts = [f"{over}/{total}", f"{spec.swept.label(outcome.point)}, seed {outcome.seed}: {outcome.outcome}"]
        parts += [part for part in (outcome.reason[:100], error, duration(outcome.seconds)) if part]
        print("  ".join(parts) + (f"  about {duration(left)} left" if over < total else ""), flush=True)

    return print_outcome


def scheduler(recipe: Recipe) -> TrialScheduler:
    """ASHA: of the trials that reach a certain epoch, the best third continue."""
    first = recipe.first_eval_epoch + 1  # before this epoch no errors are known
    return ASHAScheduler(
        time_attr="epoch",
        metric=BEST_BY,
        mode="min",
        # One more than the last epoch: a trial that reaches max_t is stopped, even while it saves its result.
        max_t=recipe.epochs + 1,
        grace_period=min(max(first, math.ceil(recipe.epochs / 3)), recipe.epochs),
        reduction_factor=3,
    )


def share_cluster(plan: TrialPlan, trials: int) -> tuple[int, TrialPlan]:
    """How many of the ``trials`` run at a time, and the plan with a trial's share of the cores.

    Raises InputError if the cluster cannot hold one trial.
    """
    spec = plan.spec
    nodes = [node["Resources"] for node in alive_nodes()]
    cores, gpus = sum(n.get("CPU", 0) for n in nodes), sum(n.get("GPU", 0) for n in nodes)
    cluster = f"{cores:.0f} CPU cores and {gpus:.0f} GPUs on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    fit, needs = slots(spec, nodes)
    if not fit:
        raise InputError(f"a trial needs {needs}, and the cluster has {cluster}; give a trial fewer of them")
    at_once = min(spec.concurrent or fit, fit, trials)
    if spec.workers == 1 and not spec.gpus_per_trial:
        smallest = min(int(n["CPU"]) for n in nodes if n.get("CPU", 0) >= 1)
        plan = replace(plan, cpus=max(1, smallest // math.ceil(at_once / len(nodes))))
        needs = f"{plan.cpus} core{'s' if plan.cpus > 1 else ''}"
    print(f"{trials} trials to go, {fit} fit, {at_once} at a time with {needs} each ({cluster})", flush=True)
    return at_once, plan


def slots(spec: SearchSpec, nodes: list[dict[str, float]]) -> tuple[int, str]:
    """How many trials the nodes hold at a time, and what one trial needs, in words."""
    gpus = spec.gpus_per_trial
    if spec.workers > 1:  # several processes, which may be on different nodes
        kind, needed = ("GPU", gpus) if gpus else ("CPU", float(spec.workers))
        fit = int(sum(n.get(kind, 0) for n in nodes) / needed)
        return fit, f"{gpus:.0f} GPUs" if gpus else f"{spec.workers} cores"
    if gpus:
        fit = sum(min(int(n.get("GPU", 0) / gpus + 1e-6), int(n.get("CPU", 0))) for n in nodes)
        return fit, f"{gpus:g} GPU and a core"
    return sum(int(n.get("CPU", 0)) for n in nodes), "a core"
