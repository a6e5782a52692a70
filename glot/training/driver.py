"""A training run from its spec to its results. ``fit`` has four stages:

prepare          checks everything that can be checked before a worker starts; opens the folder and the MLflow run
launch           runs the workers until they have ended (glot.training.workers)
conclude         marks the run as finished, and deletes the checkpoints that it could be continued from
record_results   writes metrics and curves of the run into its folder and into MLflow

Each stage reads the files that earlier stages left in the run's folder, so a stage can be repeated.
"""

import json
import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glot import config
from glot.config import Recipe
from glot.features.schema import read_manifest
from glot.home import body_for
from glot.human.body import load_body, require_body
from glot.location import file_hash
from glot.models.checkpoint import WEIGHTS, read_config
from glot.models.inference import checkpoint_path, load_model_for
from glot.training import curves, tracking
from glot.training.feature_sets import feature_lineage, training_folders
from glot.training.loop import first_model
from glot.training.run_state import (
    EPOCHS,
    FINISHED,
    RUNNING,
    SPOOL,
    STATE,
    claim,
    read_epochs,
    read_state,
    remove,
    write_state,
)
from glot.training.spec import MlflowLabels, TrainSpec, WorkerSpec
from glot.training.step_checkpoints import newest_step, steps_folder
from glot.training.workers import RAY_FILES, Launcher, RayWorkers

IDENTITY = ("recipe", "features", "spin_regressor", "start")  # what makes a run in the same folder a different one


class Unfinished(Exception):
    """The run's time is over; its progress is saved."""


@dataclass(frozen=True)
class PreparedRun:
    """A run whose inputs fit together and whose folder is claimed for it. Paths are absolute."""

    spec: TrainSpec
    labels: MlflowLabels
    recipe: Recipe  # the recipe with the feature size of its feature sets
    lineage: dict[str, Any]  # what the features were made with (glot.training.feature_sets)
    features: Path
    out: Path
    body: Path | None
    start: Path | None
    stop_at: float = math.inf  # seconds since 1970
    run_id: str = ""  # id of the MLflow run; "": nothing is logged


def fit(spec: TrainSpec, launcher: Launcher | None = None, *, labels: MlflowLabels | None = None) -> dict[str, float]:
    """Trains a recipe and returns the metrics of its best epoch; the run's folder gets best/, last/ and epochs.json.

    If the folder holds an unfinished run, the run continues from its last checkpoint (with ``spec.resume``). If the run
    in the folder is finished, its metrics are returned at once. ``launcher`` decides where the workers run (default:
    Ray Train's workers; Ray must be running). ``labels`` decides how the run appears in MLflow. Raises Unfinished when
    ``spec.max_seconds`` are over, InputError for inputs that do not fit together.
    """
    launcher, labels = launcher or RayWorkers(), labels or MlflowLabels()
    run = prepare(spec, launcher, labels)
    if is_finished(run):
        print(f"{run.out}: already trained, nothing to do (--fresh trains it again)")
        return read_state(run.out)["metrics"]
    status = "FAILED"
    try:
        launch(run, launcher)
        metrics = conclude(run)
        status = "FINISHED"
    except Unfinished:
        status = "KILLED"
        raise
    finally:
        record_results(run, status)
    return metrics


def prepare(spec: TrainSpec, launcher: Launcher, labels: MlflowLabels) -> PreparedRun:
    """Checks the run's inputs, claims its folder and opens its MLflow run, unless the run is finished already."""
    stop_at = time.time() + spec.max_seconds if spec.max_seconds else math.inf
    run = replace(check_inputs(spec, labels), stop_at=stop_at)
    launcher.check_resources(spec)
    if spec.fresh:
        remove(run.out, (RAY_FILES, steps_folder(run.out).name, "best", "last", STATE, EPOCHS, SPOOL))
    state = claim(run.out / STATE, new_state(run), what="run", identity=IDENTITY, resume=spec.resume)
    if is_finished(run):
        return run
    launcher.check_nodes(spec, run.features, run.out)
    return replace(run, run_id=tracking.open_run(spec, labels, run.recipe, state, run.out))


def check_inputs(spec: TrainSpec, labels: MlflowLabels) -> PreparedRun:
    """InputError unless features, body and starting weights fit together.

    It also builds the model once, so that a recipe whose model cannot be built is refused before workers start.
    """
    features, recipe = spec.features.resolve(), spec.chosen_recipe
    lineage = feature_lineage(recipe, features)
    recipe = replace(recipe, model=replace(recipe.model, feature_size=lineage["backbone"]["feature_size"]))
    body = body_for(spec.body, lineage["body"])
    loaded = load_body(body)
    require_body(loaded, lineage["body"], "features")
    start = spec.start
    if start is not None:
        start = checkpoint_path(start, lineage["backbone"]["name"])
        load_model_for(start, read_manifest(next(iter(training_folders(recipe, features).values()))))
    first_model(recipe, loaded, spin_regressor=spec.spin_regressor, start=start)
    return PreparedRun(
        spec=spec,
        labels=labels,
        recipe=recipe,
        lineage=lineage,
        features=features,
        out=spec.run_folder.resolve(),
        body=body.resolve() if body else None,
        start=start.resolve() if start else None,
    )


def new_state(run: PreparedRun) -> dict[str, Any]:
    """The state of a new run, as run.json stores it."""
    start = run.start
    return {
        "recipe": json.loads(json.dumps(config.to_dict(run.recipe))),
        "features": run.lineage,
        "spin_regressor": file_hash(run.spec.spin_regressor) if run.spec.spin_regressor else "",
        "start": file_hash(start / WEIGHTS if start.is_dir() else start) if start else "",
        "status": RUNNING,
    }


def launch(run: PreparedRun, launcher: Launcher) -> None:
    """Runs the workers until they have ended, from the last checkpoint in the run's folder or from the beginning."""
    spec = run.spec
    worker = WorkerSpec(
        recipe=run.recipe,
        features=run.features,
        lineage=run.lineage,
        out=run.out,
        body=run.body,
        spin_regressor=spec.spin_regressor.resolve() if spec.spin_regressor else None,
        start=run.start,
        mlflow_uri=spec.tracking_uri,
        run_id=run.run_id,
        threads=launcher.threads,
        save_every=spec.save_every,
        stop_at=run.stop_at,
    )
    launcher.run(spec, worker)


def conclude(run: PreparedRun) -> dict[str, float]:
    """Marks the run as finished and returns the metrics of its best epoch. Raises Unfinished where steps are left."""
    if is_finished(run):
        return read_state(run.out)["metrics"]
    step, last_step = newest_step(run.out), run.recipe.epochs * run.recipe.steps_per_epoch
    if step < last_step:
        raise Unfinished(f"{run.out}: {run.spec.max_seconds:.0f} s are over, stopped after step {step} of {last_step}")
    metrics = {name: float(value) for name, value in read_config(run.out / "best")["metrics"].items()}
    write_state(run.out / STATE, {**read_state(run.out), "status": FINISHED, "metrics": metrics})
    shutil.rmtree(steps_folder(run.out))
    return metrics


def record_results(run: PreparedRun, status: str) -> None:
    """Writes the curves of the run, and ends its MLflow run with a status: FINISHED, KILLED or FAILED."""
    if epochs := read_epochs(run.out):
        curves.write_table(epochs, run.out / "epochs.csv")
        curves.plot(epochs, run.out / "epochs.png")
    if run.run_id:
        tracking.close_run(
            run.spec.tracking_uri,
            run.run_id,
            run.out,
            status=status,
            metrics=read_state(run.out).get("metrics", {}),
            upload=run.labels.upload,
        )


def is_finished(run: PreparedRun) -> bool:
    """Whether the run's folder holds its results."""
    return read_state(run.out).get("status") == FINISHED
