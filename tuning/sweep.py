"""A sweep from its spec to its results: open the folder and the MLflow run, run the trials, conclude.

OUT/sweep.json has the options of the sweep, OUT/study.db its points, and OUT/trials/ a folder for each trial. An
interrupted sweep continues from these.
"""

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glot.config import Recipe
from glot.home import body_for
from glot.training import mlflow_runs
from glot.training.feature_sets import feature_lineage
from glot.training.run_state import FINISHED, RUNNING, claim, remove, write_state
from glot.training.step_checkpoints import steps_folder
from tuning.outcomes import outcomes
from tuning.points import Points
from tuning.registry import attach, close_children, register, sweep_tags
from tuning.results import Sweep
from tuning.runner import TUNE_FILES, run_trials
from tuning.spec import SearchSpec
from tuning.trial import TrialPlan

SWEEP, STUDY = "sweep.json", "study.db"
SEED = 1  # seed for the points that are drawn


@dataclass(frozen=True)
class OpenSweep:
    """A sweep whose folder is claimed and whose run in MLflow is open. ``spec`` has absolute paths."""

    spec: SearchSpec
    state: dict[str, Any]
    run: mlflow_runs.Run
    points: Points
    data: str  # the data of the errors, in words

    @property
    def out(self) -> Path:
        """The sweep's folder."""
        return self.spec.sweep_folder


@dataclass(frozen=True)
class SweepEnd:
    """How a start of a sweep ended."""

    results: Sweep
    unfinished: int  # number of unfinished trials
    lost: int  # number of these that ended without a result after all restarts


def run_sweep(spec: SearchSpec) -> SweepEnd:
    """Runs the trials of a sweep that are not over, and puts its results into its folder and into MLflow."""
    sweep = open_sweep(spec)
    status = "FAILED"
    try:
        plan = TrialPlan(sweep.spec, parent=sweep.run.run_id)
        lost, unfinished = run_trials(plan, sweep.points)
        status = "KILLED" if unfinished else "FINISHED"
    finally:
        results = conclude(sweep, status)
    return SweepEnd(results, unfinished, lost)


def open_sweep(spec: SearchSpec) -> OpenSweep:
    """Claims the sweep's folder and opens its run in MLflow. Raises InputError if the folder holds another sweep."""
    lineage = feature_lineage(spec.chosen_recipe, spec.features)
    body = body_for(spec.body, lineage["body"])
    spec = spec.absolute(body)
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
    run = mlflow_runs.Run(uri, run_id)
    points = Points(out / STUDY, spec.swept, search=spec.search, count=spec.trials, seed=SEED)
    data = data_of(spec.chosen_recipe, lineage)
    run.tags(sweep_tags(spec.swept, data))
    return OpenSweep(spec, state, run, points, data)


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
    }


def conclude(sweep: OpenSweep, status: str) -> Sweep:
    """Puts a sweep's results into its folder and into MLflow, and removes files that no trial needs any more.

    The sweep's run ends with ``status`` (FINISHED, KILLED, FAILED). The best model of a finished sweep is registered.
    """
    spec, out, run, uri = sweep.spec, sweep.out, sweep.run, sweep.spec.tracking_uri
    about = {
        "recipe": spec.recipe,
        "settings": " ".join(spec.settings),
        "search": spec.search,
        "trials in": str(out),
    }
    results = Sweep(spec.swept, outcomes(out), sweep.data, about)
    for outcome in results.outcomes:
        shutil.rmtree(steps_folder(outcome.attempt.folder(out)), ignore_errors=True)
    shutil.rmtree(out / TUNE_FILES, ignore_errors=True)
    close_children(uri, run.run_id, results, out)
    if results.outcomes:
        attach(run, results, out)
    if status == "FINISHED":
        register(run, results, out, uri=uri)
    run.close(status)
    if status == "FINISHED":
        write_state(out / SWEEP, {**sweep.state, "status": FINISHED})
    return results


def data_of(recipe: Recipe, lineage: dict[str, Any]) -> str:
    """The data of the errors, in words."""
    return f"{recipe.data.validation[0]}, validation split" + (", open body" if lineage["body"]["open"] else "")


def _plain(values: Any) -> Any:
    """The values as they are after a round trip through JSON."""
    return json.loads(json.dumps(values))
