"""A training run from its spec to its results. ``fit`` has these stages:

check      checks everything that can be checked before a worker starts; writes nothing
prepare    claims the folder, and tidies up after a start that was killed
launch     runs the workers until they have ended (glot.training.workers), and logs the points of their curves
conclude   marks the run as finished, and deletes the checkpoints that it could be continued from
publish    draws the curves, and completes the run in MLflow

Each stage reads the files that earlier stages left in the run's folder, so a stage can be repeated. A start does the
stages that have not succeeded yet: what is trained is not trained again, but it is published until that has succeeded.
"""

import json
import math
import shutil
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glot import config
from glot.config import Recipe
from glot.errors import NotNowError
from glot.features.schema import read_manifest
from glot.home import body_for
from glot.human.body import load_body, require_body
from glot.location import file_hash, remove_temporaries
from glot.models.checkpoint import WEIGHTS, read_config
from glot.models.inference import checkpoint_path, load_model_for
from glot.models.vae_files import vae_hash, vae_path
from glot.training.feature_sets import feature_lineage, training_folders
from glot.training.loop import first_model
from glot.training.record import curves, tracking
from glot.training.record.curve_points import PointWriter
from glot.training.record.mlflow_store import RunCard
from glot.training.run_state import (
    EPOCHS,
    FINISHED,
    POINTS,
    RUNNING,
    STATE,
    claim,
    disk_errors,
    held,
    read_epochs,
    read_state,
    remove,
    write_state,
)
from glot.training.spec import NO_VAE, MlflowLabels, TrainSpec, WorkerSpec
from glot.training.step_checkpoints import newest_step, recover, steps_folder
from glot.training.workers import RAY_FILES, Launcher, RayWorkers

# What makes a run in the same folder a different one.
IDENTITY = ("recipe", "features", "spin_regressor", "start", "vae")
TABLE, PICTURE = "epochs.csv", "epochs.png"
PARTS = ("steps", "best", "last", STATE, EPOCHS, POINTS, TABLE, PICTURE, RAY_FILES)  # what --fresh deletes


class Unfinished(NotNowError):
    """The run's time is over; its progress is saved."""


@dataclass(frozen=True)
class PreparedRun:
    """A run whose inputs fit together. Paths are absolute."""

    spec: TrainSpec
    labels: MlflowLabels
    recipe: Recipe  # the recipe with the feature size of its feature sets
    lineage: dict[str, Any]  # what the features were made with (glot.training.feature_sets)
    features: Path
    out: Path
    body: Path | None
    start: Path | None
    vae: Path | None = None
    stop_at: float = math.inf  # seconds since 1970
    card: RunCard | None = None  # the run in MLflow; None: nothing is logged. Known once the folder is claimed


def fit(spec: TrainSpec, launcher: Launcher | None = None, *, labels: MlflowLabels | None = None) -> dict[str, float]:
    """Trains a recipe and returns the metrics of its best epoch; the run's folder gets best/, last/ and epochs.json.

    If the folder holds an unfinished run, the run continues from its last checkpoint (with ``spec.resume``). If the run
    in the folder is finished and published, its metrics are returned at once. ``launcher`` decides where the workers
    run (default: Ray Train's workers; Ray must be running). ``labels`` decides how the run appears in MLflow.

    Raises InputError for what the user or the recipe has to change. Raises NotNowError for what may succeed later: a
    folder in which another process trains, workers or a disk that are gone, a finished run that MLflow did not take;
    Unfinished when ``spec.max_seconds`` are over. Any other error is a mistake in our code.
    """
    launcher, labels = launcher or RayWorkers(), labels or MlflowLabels()
    with disk_errors(spec.run_folder), ExitStack() as stack:
        run = check(spec, launcher, labels)
        stack.enter_context(held(run.out, what="run"))
        run = prepare(run, launcher)
        if is_finished(run):
            left = "nothing to do" if is_published(run) else "its results are published now"
            print(f"{run.out}: already trained, {left} (--fresh trains it again)")
        else:
            try:
                launch(run, launcher)
                conclude(run)
            except BaseException as error:
                leave(run, error)
                raise
        if not is_published(run):
            publish(run)
        return dict(read_state(run.out)["metrics"])


def check(spec: TrainSpec, launcher: Launcher, labels: MlflowLabels) -> PreparedRun:
    """Checks the run's inputs, and whether there are resources for its workers. Writes nothing."""
    stop_at = time.time() + spec.max_seconds if spec.max_seconds else math.inf
    run = replace(check_inputs(spec, labels), stop_at=stop_at)
    launcher.check_resources(spec)
    return run


def prepare(run: PreparedRun, launcher: Launcher) -> PreparedRun:
    """Claims the run's folder, which this process holds, and returns the run with its card for MLflow."""
    spec, out = run.spec, run.out
    if spec.fresh:
        remove(out, PARTS)
    recover(out)
    for name in (STATE, EPOCHS, TABLE, PICTURE):
        remove_temporaries(out / name)
    state = claim(out / STATE, new_state(run), what="run", identity=IDENTITY, resume=spec.resume)
    if "key" not in state:  # an earlier version's
        state = {**state, "key": new_key()}
        write_state(out / STATE, state)
    run = replace(run, card=tracking.card_of(spec, run.labels, run.recipe, state, out))
    if not is_finished(run):
        launcher.check_nodes(spec, run.features, out)
    return run


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
    vae = vae_path(spec.vae).resolve() if spec.vae else None
    first_model(recipe, loaded, spin_regressor=spec.spin_regressor, start=start, vae=vae)
    return PreparedRun(
        spec=spec,
        labels=labels,
        recipe=recipe,
        lineage=lineage,
        features=features,
        out=spec.run_folder.resolve(),
        body=body.resolve() if body else None,
        start=start.resolve() if start else None,
        vae=vae,
    )


def new_state(run: PreparedRun) -> dict[str, Any]:
    """The state of a new run, as run.json stores it."""
    start = run.start
    return {
        "recipe": json.loads(json.dumps(config.to_dict(run.recipe))),
        "features": run.lineage,
        "spin_regressor": file_hash(run.spec.spin_regressor) if run.spec.spin_regressor else "",
        "start": file_hash(start / WEIGHTS if start.is_dir() else start) if start else "",
        "vae": vae_hash(run.vae) if run.vae else "",
        "status": RUNNING,
        "key": new_key(),
    }


def new_key() -> str:
    """What finds the run in MLflow. It is random, because a run that is started over in its folder is another run."""
    return uuid.uuid4().hex[:16]


def launch(run: PreparedRun, launcher: Launcher) -> None:
    """Runs the workers until they have ended, from the last checkpoint in the run's folder or from the beginning."""
    spec = run.spec
    if run.recipe.model.kind == "meva" and not (run.vae or run.start or newest_step(run.out)):
        print(NO_VAE, file=sys.stderr, flush=True)
    worker = WorkerSpec(
        recipe=run.recipe,
        features=run.features,
        lineage=run.lineage,
        out=run.out,
        body=run.body,
        spin_regressor=spec.spin_regressor.resolve() if spec.spin_regressor else None,
        start=run.start,
        vae=run.vae,
        save_every=spec.save_every,
        stop_at=run.stop_at,
    )
    with tracking.logging_points(run.card, run.out):
        launcher.run(spec, worker)


def conclude(run: PreparedRun) -> None:
    """Marks the run as finished, with the metrics of its best epoch. Raises Unfinished where steps are left."""
    if not is_finished(run):
        step, last_step = newest_step(run.out), run.recipe.epochs * run.recipe.steps_per_epoch
        if step < last_step:
            raise Unfinished(
                f"{run.out}: {run.spec.max_seconds:.0f} s are over, stopped after step {step} of {last_step}"
            )
        metrics = {name: float(value) for name, value in read_config(run.out / "best")["metrics"].items()}
        points = PointWriter(run.out / POINTS)
        points.write(
            {f"best_{name}": metrics[name] for name in metrics if name[:4] == "val_" or name == "epoch"}, step=0
        )
        points.close()
        write_state(run.out / STATE, {**read_state(run.out), "status": FINISHED, "metrics": metrics})
    shutil.rmtree(steps_folder(run.out), ignore_errors=True)


def publish(run: PreparedRun) -> None:
    """Draws the curves of the finished run and completes its run in MLflow. It can be repeated.

    NotNowError where MLflow does not answer: the next start publishes again.
    """
    shutil.rmtree(steps_folder(run.out), ignore_errors=True)  # where conclude was killed
    record(run, "FINISHED")
    state = read_state(run.out)
    write_state(run.out / STATE, {**state, "published": [*state.get("published", []), uri_of(run)]})


def leave(run: PreparedRun, error: BaseException) -> None:
    """Records what there is of a run that an error ended. What cannot be recorded is a warning."""
    try:
        record(run, "KILLED" if isinstance(error, NotNowError | KeyboardInterrupt) else "FAILED")
    except Exception as second:  # the error that ended the run is the one to raise
        if str(second) != str(error):
            print(f"warning: {second}", flush=True)


def record(run: PreparedRun, status: str) -> None:
    """Draws the curves so far, and ends the run in MLflow with a status: FINISHED, KILLED or FAILED."""
    artifacts: dict[str, str] = {}
    if epochs := read_epochs(run.out):
        curves.write_table(epochs, run.out / TABLE)
        curves.plot(epochs, run.out / PICTURE)
        artifacts = {TABLE: "", PICTURE: ""}
    if status == "FINISHED" and run.labels.upload:
        artifacts["best"] = "best"
    if run.card:
        try:
            tracking.complete(run.card, run.out, status=status, artifacts=artifacts)
        except NotNowError as error:
            ended = "is trained" if status == "FINISHED" else "has ended"
            raise NotNowError(
                f"{run.out}: the run {ended} and all of it is kept there, but {error}; the same command logs it later"
            ) from None


def is_finished(run: PreparedRun) -> bool:
    """Whether the run's folder holds its results."""
    return read_state(run.out).get("status") == FINISHED


def is_published(run: PreparedRun) -> bool:
    """Whether the results are in MLflow's store, too, if there is one."""
    return uri_of(run) in read_state(run.out).get("published", [])


def uri_of(run: PreparedRun) -> str:
    """The MLflow store of the run; "" for none."""
    return run.card.uri if run.card else ""
