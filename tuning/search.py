"""The paper's ablations, and searches of your own, with Ray Tune: a training run a trial, side by side in MLflow.

OUT/sweep.json says what the sweep is, tuning/study.py keeps its points and outcomes, OUT/trials/ has a folder a trial.
"""

import json
import math
import os
import shutil
import sys
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from rich.console import Console
from rich.table import Table

from glot import cli, config
from glot.errors import InputError
from glot.location import location, write_whole
from glot.training import driver, mlflow_runs
from glot.training.loop import BEST_BY, duration
from glot.training.run_state import feature_lineage, first_difference
from glot.training.step_checkpoints import steps_folder
from tuning import results
from tuning.registry import attach, close_children, register, sweep_tags
from tuning.results import Sweep
from tuning.spaces import SPACES, Axis, Space, parsed, settings_of, space_named
from tuning.study import SEARCHES, Ledger, Outcome, Points, check_search, outcomes
from tuning.trial import Plan, trial_function

SWEEP, STUDY, TUNE_FILES = "sweep.json", "study.db", "tune"
RESTARTS = 2  # of a trial whose process dies
INTERRUPTED = 130


def main(
    features: Annotated[Path, typer.Option(parser=location, help="Folder or URI of feature sets: DIR/DATASET/SPLIT.")],
    out: Annotated[Path, typer.Option(help="Where the sweep's state and its trials go. One folder, one sweep.")],
    space: Annotated[
        str, typer.Option(help=f"What to vary: {', '.join(SPACES)}; or a .yaml or .py file of your own.")
    ] = "mask_ratio",
    values: Annotated[str, typer.Option(help="Other values of the one field, with commas between them.")] = "",
    search: Annotated[
        str, typer.Option(help=f"{', '.join(SEARCHES)}: all combinations, drawn, or Optuna's TPE.")
    ] = "grid",
    trials: Annotated[int, typer.Option(min=0, help="Points that random and bayesian searches try.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every point, with seeds 1, 2, …")] = 1,
    prune: Annotated[
        bool, typer.Option("--prune", help="Stop trials early that are behind the others at the same epoch (ASHA).")
    ] = False,
    recipe: Annotated[str, typer.Option(help="The recipe everything else comes from.")] = "open_sample",
    setting: Annotated[list[str] | None, typer.Option("--set", help="field=value for every trial.")] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    mlflow: Annotated[str, typer.Option(help="MLflow tracking URI; OUT/../mlflow.db when left out.")] = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "glot-search",
    workers_per_trial: Annotated[int, typer.Option(min=1, help="DDP workers on CPUs of one trial.")] = 1,
    gpus_per_trial: Annotated[
        float,
        typer.Option(min=0, help="GPUs of one trial: a part of one (0.5: two trials share it), or several (DDP)."),
    ] = 0,
    concurrent: Annotated[int, typer.Option(min=0, help="Trials at a time; as many as fit when 0.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished sweep in OUT; begin if there is none.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier sweep left in OUT.")] = False,
) -> int:
    """Vary fields of a recipe as the paper's ablation tables do, or search them, and compare the runs in MLflow.

    The sweep is a run of MLflow, every trial (a point from one seed) a child of it; table, curves and the paper's
    numbers hang on the sweep's run, and the best trial is registered as a model. Interrupted? The same command with
    `--resume` goes on with the unfinished trials, each behind its last checkpoint; more `--values`, `--seeds` or
    `--trials` may be asked for then. `python -m tuning.report` writes the page of any sweep again.

    Examples: `python -m tuning.search --space mask_ratio --features features --out runs/mask_ratio`

    `python -m tuning.search --space joint --search bayesian --trials 40 --prune --features features --out runs/joint`

    A space of your own, in `my.yaml`: `axes: [{field: model.dropout, values: [0, 0.1, 0.2]}, {field: lr, low: 1e-5,
    high: 1e-3, log: true}]`
    """
    if resume and fresh:
        raise InputError("--resume --fresh: give one of them")
    swept = with_values(space_named(space), values)
    check_search(search, swept, trials)
    settings = tuple(setting or [])
    lineage = check_points(swept, recipe, settings, features)
    features, out = features.resolve(), out.resolve()
    workers = int(gpus_per_trial) if gpus_per_trial > 1 else workers_per_trial
    if gpus_per_trial > 1 and gpus_per_trial != workers:
        raise InputError(f"--gpus-per-trial {gpus_per_trial:g}: a part of one GPU, or a whole number of them")
    if gpus_per_trial and workers_per_trial > 1:
        raise InputError("--workers-per-trial is for CPUs; with --gpus-per-trial every GPU has its worker")

    uri = mlflow or mlflow_runs.default_uri(out.parent)
    identity = {
        "space": spec(swept) if search != "grid" else [axis.field for axis in swept.axes],
        "recipe": recipe,
        "settings": list(settings),
        "search": search,
        "prune": prune,
        "features": lineage["sets"],
        "body": str(body.resolve()) if body else "",
        "mlflow": uri,
        "experiment": experiment,
    }
    state = open_sweep(out, identity, resume=resume, fresh=fresh)
    parent = mlflow_runs.open_run(
        uri,
        mlflow_runs.prepare(uri, experiment),
        name=f"{swept.name} sweep",
        key=state["key"],
        params={
            "space": swept.name,
            "recipe": recipe,
            "settings": " ".join(settings),
            "search": search + (" with ASHA" if prune else ""),
            "body": lineage["body"]["name"],
        },
        tags={f"features.{name}": value for name, value in lineage["sets"].items()} | mlflow_runs.lineage(),
    )
    run, status = mlflow_runs.Run(uri, parent), "FAILED"
    points = Points(out / STUDY, swept, search=search, count=trials, seed=1)
    data = data_of(config.recipe_named(recipe, settings), lineage)
    run.tags(sweep_tags(swept, data))
    plan = Plan(
        swept,
        recipe,
        settings,
        features,
        out,
        body=body.resolve() if body else None,
        mlflow=uri,
        experiment=experiment,
        parent=parent,
        workers=workers,
        gpus=gpus_per_trial,
        cpus=1,
    )
    try:
        lost, left = run_trials(plan, points, seeds=seeds, prune=prune, concurrent=concurrent)
        status = "FINISHED" if not left else "KILLED"
    finally:
        about = {"recipe": recipe, "settings": " ".join(settings), "search": search, "trials in": str(out)}
        sweep = Sweep(swept, outcomes(out), data, about)
        conclude(run, sweep, out, uri=uri, status=status)
    show(sweep)
    print(f"{sweep.counts()}\npage: {out / 'report.md'}, picture: {out / 'report.png'}")
    print(f"MLflow: {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {uri}")
    if left:
        named = f" ({lost} of them ended {RESTARTS + 1} times without a result: see their {out}/trials/*/log.txt)"
        print(f"{left} of the trials are unfinished{named if lost else ''}; the same command with --resume goes on")
        return 1 if lost else INTERRUPTED
    write_state(out, {**state, "status": "finished"})
    return 0


def conclude(run: mlflow_runs.Run, sweep: Sweep, out: Path, *, uri: str, status: str) -> None:
    """What is left to do when no trial runs any more, however it came to that: MLflow told, leftovers away."""
    for outcome in sweep.outcomes:
        shutil.rmtree(steps_folder(outcome.attempt.folder(out)), ignore_errors=True)  # nobody goes on from there
    shutil.rmtree(out / TUNE_FILES, ignore_errors=True)
    close_children(uri, run.run_id, sweep, out)
    if sweep.outcomes:
        attach(run, sweep, out)
    if status == "FINISHED":
        register(run, sweep, out, uri=uri)
    run.close(status)


def with_values(space: Space, values: str) -> Space:
    """The space with the values of --values instead of its own."""
    if not values:
        return space
    if len(space.axes) != 1:
        raise InputError(f"--values: {space.name} varies {len(space.axes)} fields; put your values in a .yaml file")
    (axis,) = space.axes
    chosen = [parsed(part.strip()) for part in values.split(",")]
    if any(isinstance(value, float) for value in (axis.low, *axis.values)):
        chosen = [float(value) if isinstance(value, int) else value for value in chosen]
    return replace(space, axes=(Axis(axis.field, tuple(chosen)),))


def check_points(space: Space, recipe: str, settings: tuple[str, ...], features: Path) -> dict[str, Any]:
    """What the features are; InputError, before a trial starts, where a recipe of the sweep is not a valid one."""
    ends: list[tuple[Any, ...]] = [axis.values or (axis.low, axis.high) for axis in space.axes]
    first = {axis.field: values[0] for axis, values in zip(space.axes, ends, strict=True)}
    for axis, values in zip(space.axes, ends, strict=True):
        for value in values:
            config.recipe_named(recipe, [*settings, *settings_of({**first, axis.field: value})])
    return feature_lineage(config.recipe_named(recipe, settings), features)


def spec(space: Space) -> list[dict[str, Any]]:
    """The axes as plain values."""
    return json.loads(json.dumps([asdict(axis) for axis in space.axes]))


def data_of(recipe: config.Recipe, lineage: dict[str, Any]) -> str:
    """What the errors are of, in words."""
    return f"{recipe.data.validation[0]}, validation split" + (", open body" if lineage["body"]["open"] else "")


def open_sweep(out: Path, identity: dict[str, Any], *, resume: bool, fresh: bool) -> dict[str, Any]:
    """Claims ``out`` for this sweep; InputError where it holds another, or an unfinished one nobody spoke of."""
    path = out / SWEEP
    if fresh:
        for name in ("trials", TUNE_FILES, SWEEP, STUDY, *results_of(out)):
            target = out / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    if path.is_file():
        try:
            old = json.loads(path.read_text())
            difference = first_difference(old["identity"], identity, "")
            done = old["status"] == "finished"
            _ = old["key"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: not readable; start over with --fresh or choose another --out") from None
        if difference:
            raise InputError(
                f"{out}: holds a sweep with {difference}; choose another --out, or start over with --fresh"
            )
        if not done and not resume:
            raise InputError(f"{out}: holds an unfinished sweep; --resume goes on with it, --fresh starts it over")
        write_state(out, {**old, "status": "running"})  # there may be more to do than there was
        return old
    out.mkdir(parents=True, exist_ok=True)
    state = {"identity": identity, "key": uuid.uuid4().hex[:16], "status": "running"}
    write_state(out, state)
    return state


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Replaces out/sweep.json at once."""
    write_whole(out / SWEEP, (json.dumps(state, indent=1) + "\n").encode())


def results_of(out: Path) -> list[str]:
    """Names of the result files in ``out``."""
    return [path.name for path in out.glob("report.*")]


def run_trials(plan: Plan, points: Points, *, seeds: int, prune: bool, concurrent: int) -> tuple[int, int]:
    """Runs what is left of a sweep. Returns how many trials died too often, and how many are left undone."""
    begun, done_before = time.monotonic(), len(outcomes(plan.out))

    def say(outcome: Outcome, over: int, total: int) -> None:
        left = (time.monotonic() - begun) / max(over - done_before, 1) * (total - over)
        error = f"PA-MPJPE {outcome.metrics[BEST_BY]:.1f} mm" if BEST_BY in outcome.metrics else ""
        parts = [f"{over}/{total}", f"{plan.space.label(outcome.point)}, seed {outcome.seed}: {outcome.outcome}"]
        parts += [part for part in (outcome.reason[:100], error, duration(outcome.seconds)) if part]
        print("  ".join(parts) + (f"  about {duration(left)} left" if over < total else ""), flush=True)

    ledger = Ledger(points, plan.out, seeds=seeds, rehearse=prune, say=say)
    left = ledger.left()
    if not left:
        print(f"{plan.out}: all {len(ledger.over)} trials are over, nothing to do (--fresh starts anew)")
        return 0, 0
    driver.connect(workers=plan.workers if not plan.gpus else 1, gpus=math.ceil(plan.gpus))
    at_once, plan = room(plan, concurrent=concurrent, trials=left)
    epochs = config.recipe_named(plan.recipe, plan.settings).epochs
    tuner = tune.Tuner(
        tune.with_resources(trial_function(plan), plan.resources()),
        tune_config=tune.TuneConfig(
            search_alg=ledger,
            scheduler=scheduler(plan, epochs) if prune else FIFOScheduler(),
            num_samples=-1,  # until the ledger has no more
            max_concurrent_trials=at_once,
            # The next trial starts in a process that has torch loaded; one that was stopped amid an epoch cannot.
            reuse_actors=not prune,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(plan.out / TUNE_FILES),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[JsonLoggerCallback()],  # Tune reads its results from there
            verbose=0,
        ),
    )
    tuner.fit()
    return len(ledger.lost), ledger.left()


def scheduler(plan: Plan, epochs: int) -> TrialScheduler:
    """ASHA: of the trials that come to a rung of epochs, the best third go on."""
    first = config.recipe_named(plan.recipe, plan.settings).first_eval_epoch + 1  # nothing is known before
    return ASHAScheduler(
        time_attr="epoch",
        metric=BEST_BY,
        mode="min",
        # One more than there are: a trial that comes to max_t is stopped, also one about to save its result.
        max_t=epochs + 1,
        grace_period=min(max(first, math.ceil(epochs / 3)), epochs),
        reduction_factor=3,
    )


def room(plan: Plan, *, concurrent: int, trials: int) -> tuple[int, Plan]:
    """How many trials run at a time, and the plan with a trial's share of the cores. InputError if none fits."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, gpus = sum(n.get("CPU", 0) for n in nodes), sum(n.get("GPU", 0) for n in nodes)
    have = f"{cores:.0f} CPU cores and {gpus:.0f} GPUs on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    if plan.workers > 1:  # several processes, on whatever nodes
        fit = int(gpus / plan.gpus if plan.gpus else cores / plan.workers)
        wanted = f"{plan.gpus:.0f} GPUs" if plan.gpus else f"{plan.workers} cores"
    elif plan.gpus:
        fit = sum(min(int(n.get("GPU", 0) / plan.gpus + 1e-6), int(n.get("CPU", 0))) for n in nodes)
        wanted = f"{plan.gpus:g} GPU and a core"
    else:
        fit = sum(int(n.get("CPU", 0)) for n in nodes)
        wanted = "a core"
    if not fit:
        raise InputError(f"a trial needs {wanted}, and the cluster has {have}: ask for less a trial")
    at_once = min(concurrent or fit, fit, trials)
    if plan.workers == 1 and not plan.gpus:
        smallest = min(int(n["CPU"]) for n in nodes if n.get("CPU", 0) >= 1)
        plan = replace(plan, cpus=max(1, smallest // math.ceil(at_once / len(nodes))))
        wanted = f"{plan.cpus} core{'s' if plan.cpus > 1 else ''}"
    print(f"{trials} trials to go, {fit} fit, {at_once} at a time with {wanted} each ({have})", flush=True)
    return at_once, plan


def show(sweep: Sweep) -> None:
    """The table, beside the paper's."""
    head, body = results.cells(sweep)
    beside = f" | paper: {sweep.space.table}, 3DPW (another dataset)" if sweep.space.paper else ""
    table = Table(title=f"{sweep.title()}: ours on {sweep.data}{beside}")
    for title in head:
        table.add_column(title, justify="right", style="dim" if title == "paper" else None)
    for line in body:
        table.add_row(*line)
    Console(width=None if os.environ.get("COLUMNS") else 150).print(table)


def command() -> None:
    """Entry point of ``glot-search``."""
    cli.run(main)


if __name__ == "__main__":
    command()
