"""A sweep from its spec to its results: open the folder and the MLflow run, run the trials, conclude.

OUT/sweep.json has the options of the sweep, OUT/study.db its points, and OUT/trials/ a folder for each trial. An
interrupted sweep continues from these.
"""

import json
import shutil
import sys
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glot.config import Recipe
from glot.errors import InputError, NotNowError
from glot.home import body_for
from glot.models.vae_files import vae_hash, vae_path
from glot.training import driver
from glot.training.feature_sets import feature_lineage
from glot.training.record import mlflow_runs
from glot.training.run_state import FINISHED, RUNNING, claim, disk_errors, held, remove, write_state
from glot.training.spec import NO_VAE, MlflowLabels
from glot.training.step_checkpoints import steps_folder
from tuning.outcomes import Attempt, outcomes
from tuning.points import STUDY, Points
from tuning.registry import publish, set_tags, sweep_tags, write_results
from tuning.results import Sweep
from tuning.runner import TUNE_FILES, TrialsEnd, run_trials
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan

SWEEP = "sweep.json"
DRAW_SEED = 1  # seed for the points that are drawn


@dataclass(frozen=True)
class OpenSweep:
    """A sweep whose folder is claimed and whose run in MLflow is open. ``plan.spec`` has absolute paths."""

    plan: TrialPlan
    state: dict[str, Any]
    points: Points
    data: str  # the data of the errors, in words

    @property
    def spec(self) -> SearchSpec:
        """The options of the sweep."""
        return self.plan.spec

    @property
    def out(self) -> Path:
        """The sweep's folder."""
        return self.spec.sweep_folder


@dataclass(frozen=True)
class SweepEnd:
    """How a start of a sweep ended."""

    results: Sweep
    trials: TrialsEnd
    unsent: str = ""  # why the results could not be written or sent to MLflow; the next start does


def run_sweep(spec: SearchSpec) -> SweepEnd:
    """Runs the trials of a sweep that are not over, and puts its results into its folder and into MLflow.

    InputError, before anything is written, for what no trial could be trained with. NotNowError if the sweep runs
    already, or if MLflow does not answer at the beginning.
    """
    lineage = check_inputs(spec)
    with held(spec.sweep_folder, what="sweep"), disk_errors(spec.sweep_folder):
        sweep = open_sweep(spec, lineage)
        try:
            end = run_trials(sweep.plan, sweep.points)
        except BaseException:
            with suppress(InputError, NotNowError, OSError):  # the failure that ended the sweep is the one to raise
                conclude(sweep, results_of(sweep), "FAILED")
            raise
        results, unsent = results_of(sweep), ""
        try:
            with disk_errors(sweep.out):
                conclude(sweep, results, "KILLED" if end.unfinished else "FINISHED")
        except NotNowError as error:
            unsent = str(error)
    return SweepEnd(results, end, unsent)


def check_inputs(spec: SearchSpec) -> dict[str, Any]:
    """What the features of the sweep were made with. Raises InputError where features and body do not fit together.

    Every choice of data sets and of the model in a grid is checked.
    """
    plan = TrialPlan(spec, parent="")
    if spec.trains_meva and spec.vae is None:
        print(NO_VAE, file=sys.stderr, flush=True)
    for point in spec.points_to_check():
        driver.check_inputs(plan.train_spec(Attempt(0, dict(point), spec.chosen_recipe.seed)), MlflowLabels())
    return feature_lineage(spec.chosen_recipe, spec.features)


def open_sweep(spec: SearchSpec, lineage: dict[str, Any]) -> OpenSweep:
    """Claims the sweep's folder and opens its run in MLflow. Raises InputError if the folder holds another sweep."""
    spec = spec.absolute(body_for(spec.body, lineage["body"]))
    out, uri = spec.sweep_folder, spec.tracking_uri
    if spec.fresh:
        remove(out, ("trials", TUNE_FILES, SWEEP, STUDY, *(path.name for path in out.glob("report.*"))))
    state = claim(
        out / SWEEP,
        {"identity": identity(spec, lineage), "key": uuid.uuid4().hex[:16], "status": RUNNING},
        what="sweep",
        identity=("identity",),
        required=("identity", "key"),
        resume=spec.resume,
    )
    state = {**state, "status": RUNNING}  # a finished sweep may get more values or seeds
    write_state(out / SWEEP, state)
    data = data_of(spec.chosen_recipe, lineage)
    run_id = mlflow_runs.open_run(
        uri,
        mlflow_runs.prepare(uri, spec.experiment),
        name=f"{spec.swept.name} sweep",
        key=state["key"],
        params={
            "space": spec.swept.name,
            "recipe": spec.recipe,
            "settings": " ".join(spec.settings),
            "search": spec.search + (" with ASHA" if spec.prune else ""),
            "body": lineage["body"]["name"],
        },
        tags={f"features.{name}": key for name, key in lineage["sets"].items()} | mlflow_runs.code_tags(),
    )
    with mlflow_runs.answering(uri):
        set_tags(mlflow_runs.client_of(uri), run_id, sweep_tags(spec.swept, data))
    points = Points(out / STUDY, spec.swept, search=spec.search, count=spec.trials, seed=DRAW_SEED)
    return OpenSweep(TrialPlan(spec, parent=run_id), state, points, data)


def identity(spec: SearchSpec, lineage: dict[str, Any]) -> dict[str, Any]:
    """The values that must be the same to continue a sweep in its folder. A grid may get more values later."""
    axes = spec.swept.axes
    return {
        "space": [axis.field for axis in axes] if spec.search == "grid" else _plain([asdict(axis) for axis in axes]),
        "recipe": spec.recipe,
        "settings": list(spec.settings),
        "search": spec.search,
        "prune": spec.prune,
        "features": lineage["sets"],
        "body": str(spec.body) if spec.body else "",
        "mlflow": spec.tracking_uri,
        "experiment": spec.experiment,
    } | ({"vae": vae_hash(vae_path(spec.vae))} if spec.vae else {})  # sweeps of earlier code do not have it


def results_of(sweep: OpenSweep) -> Sweep:
    """The results of the trials that are over."""
    spec, out = sweep.spec, sweep.out
    about = {
        "recipe": spec.recipe,
        "settings": " ".join(spec.settings),
        "search": spec.search,
        "trials in": str(out),
    }
    return Sweep(spec.swept, outcomes(out), sweep.data, about)


def conclude(sweep: OpenSweep, results: Sweep, status: str) -> None:
    """Puts a sweep's results into its folder and into MLflow, and removes files that no trial needs any more.

    The sweep's run ends with ``status`` (FINISHED, KILLED, FAILED). Can be repeated. NotNowError where MLflow does not
    answer; the results are in the folder then.
    """
    out = sweep.out
    for outcome in results.outcomes:
        shutil.rmtree(steps_folder(outcome.attempt.folder(out)), ignore_errors=True)
    shutil.rmtree(out / TUNE_FILES, ignore_errors=True)
    if results.outcomes:
        write_results(results, out)
    publish(results, sweep.plan, status)
    if status == "FINISHED":
        write_state(out / SWEEP, {**sweep.state, "status": FINISHED})


def data_of(recipe: Recipe, lineage: dict[str, Any]) -> str:
    """The data of the errors, in words."""
    return f"{recipe.data.validation[0]}, validation split" + (", open body" if lineage["body"]["open"] else "")


def _plain(values: Any) -> Any:
    """The values as they are after a round trip through JSON."""
    return json.loads(json.dumps(values))
