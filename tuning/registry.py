"""A sweep in MLflow: writes its results, its trials' runs and its best model there, and reads sweeps from there."""

import json
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from glot.errors import InputError
from glot.location import write_whole
from glot.training import mlflow_runs
from glot.training.run_state import read_state
from tuning import plots, results
from tuning.outcomes import FAILED, FINISHED, STOPPED, Outcome
from tuning.results import Sweep
from tuning.spaces import Axis, Errors, Space, parsed

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


def attach(run: mlflow_runs.Run, sweep: Sweep, out: Path) -> None:
    """Adds a sweep's results to its run in MLflow: page, picture, and a table that MLflow shows as a table."""
    write_results(sweep, out)
    # In the form that MLflow's log_table writes. log_table itself would append to the table of an earlier start.
    write_whole(out / SHOWN_TABLE, json.dumps(results.plain_table(sweep)).encode())
    for name in (PAGE, PICTURE, TABLE, SHOWN_TABLE):
        run.artifact(out / name)
    (out / SHOWN_TABLE).unlink()
    run.tags({"mlflow.loggedArtifacts": json.dumps([{"path": SHOWN_TABLE, "type": "table"}])})
    run.tags({"mlflow.note.content": results.markdown(sweep)})
    if best := sweep.best():
        run.metrics({f"best_{name}": value for name, value in best.metrics.items()}, step=len(sweep.outcomes))
        run.tags({"best": sweep.space.label(best.point)})


def close_children(uri: str, parent: str, sweep: Sweep, out: Path) -> None:
    """Sets the final status of the trials' runs. A trial that a scheduler stopped cannot set it itself."""
    try:
        status = {run.info.run_id: run.info.status for run in children(uri, parent)}
        for outcome in sweep.outcomes:
            run_id, end = run_of(outcome, out), STATUS[outcome.outcome]
            run = mlflow_runs.Run(uri, run_id, resumed=True)
            run.tags({OUTCOME_TAG: outcome.outcome, REASON_TAG: outcome.reason})
            if status.pop(run_id, end) != end:
                run.metrics({f"best_{name}": value for name, value in outcome.metrics.items()}, step=0)
                run.close(end)
        for run_id in (run_id for run_id, now in status.items() if now == "RUNNING"):
            mlflow_runs.Run(uri, run_id).close("KILLED")  # an unfinished trial; its next start reopens the run
    except MlflowException as error:
        print(
            f"warning: MLflow did not accept the trials' ends ({str(error).splitlines()[0]}); --resume sends them again"
        )


def run_of(outcome: Outcome, out: Path) -> str:
    """The id of a trial's run in MLflow; "" if it has none."""
    return read_state(outcome.attempt.folder(out)).get("mlflow", {}).get("run_id", "")


def register(run: mlflow_runs.Run, sweep: Sweep, out: Path, *, uri: str) -> None:
    """Registers the best trial's checkpoint in MLflow, as a version of the model ``glot-SPACE``."""
    best = sweep.best()
    if best is None:
        return
    client, name, run_id = MlflowClient(uri), f"glot-{sweep.space.name}", run_of(best, out)
    try:
        try:
            client.create_registered_model(name)
        except MlflowException:  # it exists, from another sweep
            client.get_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}'", max_results=PAGE_SIZE)
        version = next((each for each in versions if each.run_id == run_id), None)
        if version is None:
            folder = best.attempt.folder(out) / "best"
            client.log_artifacts(run_id, str(folder), "best")
            source = f"{client.get_run(run_id).info.artifact_uri}/best"
            about = f"{sweep.space.label(best.point)}, seed {best.seed}; {sweep.data}"
            tags = {key: f"{value:.4f}" for key, value in best.metrics.items()}
            version = client.create_model_version(name, source, run_id, description=about, tags=tags)
        run.tags({"best_model": f"{name}, version {version.version}"})
        print(f"best: {sweep.space.label(best.point)}, seed {best.seed}: model {name}, version {version.version}")
    except (MlflowException, OSError) as error:
        print(f"warning: MLflow did not accept the best model ({str(error).splitlines()[0]})")


def children(uri: str, parent: str) -> list[Run]:
    """The runs of a sweep's trials, oldest first. ``parent`` is the id of the sweep's run."""
    client = MlflowClient(uri)
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
    """The runs of all sweeps of an experiment, newest first. InputError if there is none."""
    client = MlflowClient(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id], f"tags.`{SPACE_TAG}` LIKE '%'") if found else []
    except MlflowException as error:
        raise InputError(f"--mlflow {uri}: no MLflow store answers there ({str(error).splitlines()[0]})") from None
    if not runs:
        names = ", ".join(each.name for each in client.search_experiments())
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
