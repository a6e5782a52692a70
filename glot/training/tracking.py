"""The MLflow run of a training run: it is opened before the workers start, and gets the results after they end."""

import uuid
from pathlib import Path
from typing import Any

from glot import config
from glot.config import Recipe
from glot.training import mlflow_runs
from glot.training.run_state import SPOOL, STATE, read_epochs, write_state
from glot.training.spec import MlflowLabels, TrainSpec

CURVES = ("epochs.csv", "epochs.png")


def open_run(spec: TrainSpec, labels: MlflowLabels, recipe: Recipe, state: dict[str, Any], out: Path) -> str:
    """The id of the MLflow run of the folder ``out``; "" where nothing is logged.

    It is the run that ``state`` names, or a new run, whose id is added to the state. When the store does not answer, a
    run that ``state`` names continues without the store; a new run ends with an InputError.
    """
    uri = spec.tracking_uri
    if not uri:
        return ""
    known = state.get("mlflow", {})
    if known.get("uri") == uri:
        mlflow_runs.Run(uri, known["run_id"]).mark_running()
        return known["run_id"]
    if "key" not in state:  # a random key, because a run that is started over in the same folder is another run
        state = {**state, "key": uuid.uuid4().hex[:16]}
        write_state(out / STATE, state)
    tags = {f"features.{name}": value for name, value in state["features"]["sets"].items()}
    run_id = mlflow_runs.open_run(
        uri,
        mlflow_runs.prepare(uri, spec.experiment),
        name=labels.name or out.name,
        key=state["key"],
        params=config.flat(recipe),
        tags=tags | mlflow_runs.code_tags() | {"out": str(out)},
        parent=labels.parent,
    )
    write_state(out / STATE, {**state, "mlflow": {"uri": uri, "run_id": run_id}})
    return run_id


def close_run(uri: str, run_id: str, out: Path, *, status: str, metrics: dict[str, float], upload: bool) -> None:
    """Ends the MLflow run with a status: FINISHED, KILLED or FAILED. It gets the curves in ``out``.

    A finished run also gets the ``metrics`` of its best epoch, and with ``upload`` a copy of the best checkpoint.
    """
    run = mlflow_runs.Run(uri, run_id, spool=out / SPOOL, resumed=True)
    for name in CURVES if read_epochs(out) else ():
        run.artifact(out / name)
    if status == "FINISHED":
        if upload:
            run.artifact(out / "best", "best")
        kept = {name: value for name, value in metrics.items() if name.startswith("val_") or name == "epoch"}
        run.metrics({f"best_{name}": value for name, value in kept.items()}, step=0)
    run.close(status)
