"""A sweep in MLflow: writes its results, its trials' runs and its best model there, and reads sweeps from there."""

import json
import logging
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

from glot.config import from_dict
from glot.errors import InputError
from glot.location import write_whole
from glot.training.record import mlflow_runs, tracking
from glot.training.record.mlflow_runs import answering, client_of
from glot.training.run_state import read_state
from tuning import plots, results
from tuning.outcomes import FAILED, FINISHED, STOPPED, Outcome
from tuning.results import Sweep
from tuning.spaces import Axis, Errors, Space, parsed
from tuning.trial import TrialPlan

logging.getLogger("mlflow.store.model_registry").setLevel(logging.WARNING)  # it says that it waits for itself

SPACE_TAG, DATA_TAG, OUTCOME_TAG, REASON_TAG = "glot.space", "glot.data", "glot.outcome", "glot.reason"
PAGE, PICTURE, TABLE = "report.md", "report.png", "report.csv"
SHOWN_TABLE = "table.json"
PAGE_SIZE = 1000
STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}


def sweep_tags(space: Space, data: str) -> dict[str, str]:
    """The tags that a report is made from, besides the runs of the trials."""
    axes = [{key: value for key, value in vars(axis).items() if value not in ((), None, False)} for axis in space.axes]
    paper = [[*point, *errors] for point, errors in space.paper.items()]
    content = {"name": space.name, "axes": axes, "paper": paper, "table": space.table}
    return {SPACE_TAG: json.dumps(content), DATA_TAG: data}


def write_results(sweep: Sweep, folder: Path) -> None:
    """Writes the page, the picture and the table of a sweep into a folder."""
    plots.plot(sweep, folder / PICTURE)
    write_whole(folder / PAGE, results.markdown(sweep, PICTURE).encode())
    write_whole(folder / TABLE, results.csv_table(sweep).encode())


def publish(sweep: Sweep, plan: TrialPlan, status: str) -> None:
    """Writes a sweep's results into MLflow and ends its run with a status: FINISHED, KILLED or FAILED.

    The best model of a finished sweep is registered. Can be repeated. NotNowError where MLflow does not answer.
    """
    uri, run_id, out = plan.spec.tracking_uri, plan.parent, plan.spec.sweep_folder
    with answering(uri):
        client = client_of(uri)
        close_children(client, sweep, plan)
        if sweep.outcomes:
            attach(client, run_id, sweep, out)
        if status == "FINISHED":
            register(client, run_id, sweep, out)
        client.set_terminated(run_id, status=status)


def attach(client: MlflowClient, run_id: str, sweep: Sweep, out: Path) -> None:
    """Adds the results in the folder ``out`` to a sweep's run: page, picture, and a table that MLflow shows as one."""
    # In the form that MLflow's log_table writes. log_table itself would append to the table of an earlier start.
    write_whole(out / SHOWN_TABLE, json.dumps(results.plain_table(sweep)).encode())
    for name in (PAGE, PICTURE, TABLE, SHOWN_TABLE):
        client.log_artifact(run_id, str(out / name))
    (out / SHOWN_TABLE).unlink()
    tags = {
        "mlflow.loggedArtifacts": json.dumps([{"path": SHOWN_TABLE, "type": "table"}]),
        "mlflow.note.content": results.markdown(sweep),
    }
    if best := sweep.best():
        log_best(client, run_id, best.metrics, step=len(sweep.outcomes))
        tags["best"] = sweep.space.label(best.point)
    set_tags(client, run_id, tags)


def close_children(client: MlflowClient, sweep: Sweep, plan: TrialPlan) -> None:
    """Sets the final status of the trials' runs, and how the trials ended.

    A trial that a scheduler stopped cannot complete its run itself, and one that failed may not have reached MLflow.
    """
    out, uri = plan.spec.sweep_folder, plan.spec.tracking_uri
    known = {run.info.run_id: run for run in children(uri, plan.parent)}
    for outcome in sweep.outcomes:
        before = known.pop(run_of(outcome, out), None)
        if before is not None and before.data.tags.get(OUTCOME_TAG) == outcome.outcome:
            continue
        if outcome.outcome != FINISHED:
            complete_child(outcome, plan)
        if run_id := run_of(outcome, out):
            if outcome.outcome != FINISHED:
                log_best(client, run_id, outcome.metrics, step=0)
            set_tags(client, run_id, {OUTCOME_TAG: outcome.outcome, REASON_TAG: outcome.reason})
    for run_id in (run_id for run_id, run in known.items() if run.info.status == "RUNNING"):
        client.set_terminated(run_id, status="KILLED")  # an unfinished trial; its next start reopens the run


def complete_child(outcome: Outcome, plan: TrialPlan) -> None:
    """Sends what MLflow lacks of a trial that did not finish, and ends its run; nothing if the trial never began."""
    folder, attempt = outcome.attempt.folder(plan.spec.sweep_folder), outcome.attempt
    state = read_state(folder)
    if not state:
        return
    card = tracking.card_of(plan.train_spec(attempt), plan.labels(attempt), from_dict(state["recipe"]), state, folder)
    if card:
        tracking.complete(card, folder, status=STATUS[outcome.outcome], artifacts={})


def log_best(client: MlflowClient, run_id: str, metrics: dict[str, float], *, step: int) -> None:
    """Logs the metrics of a best epoch as best_val_pa_mpjpe and so on."""
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(f"best_{name}", value, now, step) for name, value in metrics.items()])


def set_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Sets tags of a run."""
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def run_of(outcome: Outcome, out: Path) -> str:
    """The id of a trial's run in MLflow; "" if it has none, because it failed before it began."""
    return read_state(outcome.attempt.folder(out)).get("mlflow", {}).get("run_id", "")


def register(client: MlflowClient, parent: str, sweep: Sweep, out: Path) -> None:
    """Registers the best trial's checkpoint in MLflow, as a version of the model ``glot-SPACE``.

    ``parent``: the id of the sweep's run. Prints a warning where the store has no registry of models.
    """
    best = sweep.best()
    if best is None:
        return
    name, run_id = f"glot-{sweep.space.name}", run_of(best, out)
    try:
        client.create_registered_model(name)
    except UnsupportedModelRegistryStoreURIException as error:
        print(f"warning: the best model is not registered: {str(error).splitlines()[0]}")
        return
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    versions = client.search_model_versions(f"name = '{name}'", max_results=PAGE_SIZE)
    version = next((each for each in versions if each.run_id == run_id), None)
    if version is None:
        folder = best.attempt.folder(out) / "best"
        client.log_artifacts(run_id, str(folder), "best")
        source = f"{client.get_run(run_id).info.artifact_uri}/best"
        about = f"{sweep.space.label(best.point)}, seed {best.seed}; {sweep.data}"
        tags = {key: f"{value:.4f}" for key, value in best.metrics.items()}
        version = client.create_model_version(name, source, run_id, description=about, tags=tags)
    set_tags(client, parent, {"best_model": f"{name}, version {version.version}"})
    print(f"best: {sweep.space.label(best.point)}, seed {best.seed}: model {name}, version {version.version}")


def children(uri: str, parent: str) -> list[Run]:
    """The runs of a sweep's trials, oldest first. ``parent`` is the id of the sweep's run."""
    client = client_of(uri)
    found: list[Run] = []
    token = None
    experiment = client.get_run(parent).info.experiment_id
    while token != "":
        page = client.search_runs(
            [experiment],
            filter_string=f"tags.`{mlflow_runs.PARENT_TAG}` = '{parent}'",
            order_by=["attributes.start_time ASC"],
            max_results=PAGE_SIZE,
            page_token=token,
        )
        found += page
        token = page.token or ""
    return found


def sweeps(uri: str, experiment: str) -> list[Run]:
    """The runs of all sweeps of an experiment, newest first.

    InputError if there is none, NotNowError where the store does not answer.
    """
    with answering(uri):
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id], f"tags.`{SPACE_TAG}` LIKE '%'") if found else []
        names = ", ".join(each.name for each in client.search_experiments())
    if not runs:
        raise InputError(f"--experiment {experiment}: has no sweep at {uri}; its experiments are {names}")
    return list(runs)


def newest_sweeps(uri: str, experiment: str, chosen: str = "") -> dict[str, Run]:
    """The newest sweep of every space in an experiment, by the name of the space; or only the ``chosen`` one, by the
    name of its space or the id of its run. Raises InputError if there is none."""
    found = sweeps(uri, experiment)
    newest = {run.info.run_name.removesuffix(" sweep"): run for run in reversed(found)}
    if not chosen:
        return newest
    run = newest.get(chosen) or next((run for run in found if run.info.run_id == chosen), None)
    if run is None:
        raise InputError(f"--sweep {chosen}: there is no such sweep; choose one of {', '.join(newest)}")
    return {chosen: run}


def read_sweep(uri: str, run: Run) -> Sweep:
    """A sweep's results from its run and the runs of its trials."""
    content = json.loads(run.data.tags[SPACE_TAG])
    axes = tuple(Axis(**{**axis, "values": tuple(axis.get("values", ()))}) for axis in content["axes"])
    paper = {tuple(row[: len(axes)]): Errors(*row[len(axes) :]) for row in content["paper"]}
    space = Space(content["name"], axes, paper, content["table"])
    with answering(uri):
        trials = [_outcome(child, number, space) for number, child in enumerate(children(uri, run.info.run_id))]
    about: dict[str, str] = {name: run.data.params.get(name, "") for name in ("recipe", "settings", "search", "body")}
    about |= {name: value for name, value in run.data.tags.items() if name.startswith("features.")}
    about["MLflow run"] = run.info.run_id
    unfinished = sum(trial is None for trial in trials)
    about["unfinished"] = f"{unfinished} trials" if unfinished else ""
    return Sweep(space, [trial for trial in trials if trial], run.data.tags.get(DATA_TAG, ""), about)


def _outcome(run: Run, number: int, space: Space) -> Outcome | None:
    """How the trial of a run ended; None while it is unfinished. ``number`` is the trial's number in the sweep."""
    kind = run.data.tags.get(OUTCOME_TAG) or (FINISHED if run.info.status == "FINISHED" else None)
    if kind is None:
        return None
    metrics = {name.removeprefix("best_"): value for name, value in run.data.metrics.items() if name[:5] == "best_"}
    point = {axis.field: parsed(run.data.params[axis.field]) for axis in space.axes}
    seed = int(run.data.params["seed"])
    return Outcome(number, point, seed, kind, metrics, run.data.tags.get(REASON_TAG, ""))
