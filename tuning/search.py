"""An ablation of the paper as a sweep: one training run per value with Ray Tune, seen side by side in MLflow.

Each trial is ``glot.train_ray.fit`` in a folder of its own. Because ``fit`` goes on where it was, a sweep that was
interrupted is simply started again: finished trials return at once, in the same MLflow runs.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from glot import cli, config, tracking, train_ray  # sets Ray's environment before ray is imported

import matplotlib  # isort: skip

matplotlib.use("Agg")
import ray
import typer
from matplotlib import pyplot
from ray import tune
from rich.console import Console
from rich.table import Table

from glot.errors import InputError
from glot.location import location
from glot.run_state import feature_lineage
from glot.train_loop import BEST_BY

METRICS = ("pa_mpjpe", "mpjpe", "mpvpe", "accel")
CPU_SHARE = 0.95  # of a core per worker: the trial drivers need the rest, or nothing ever starts on a small machine


@dataclass(frozen=True)
class Space:
    """A field of the recipe, the values to try, and the paper's rows (PA-MPJPE, MPJPE, MPVPE, Accel on 3DPW)."""

    field: str
    values: tuple[float, ...]
    paper: dict[float, tuple[float, float, float, float]]
    table: str


SPACES = {
    "mask_ratio": Space(
        "model.mask_ratio",
        (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875),
        {
            0.0: (51.7, 82.3, 98.0, 7.3),
            0.125: (51.3, 82.0, 97.4, 7.1),
            0.25: (51.0, 82.1, 97.5, 7.0),
            0.375: (51.0, 81.4, 97.2, 6.8),
            0.5: (50.6, 80.7, 96.3, 6.6),
            0.625: (50.8, 81.7, 97.7, 6.6),
            0.75: (51.4, 82.9, 99.1, 6.8),
            0.875: (52.8, 86.6, 104.1, 6.5),
        },
        "Table 4",
    ),
    "nearby_frames": Space(
        "model.nearby_frames",
        (2, 3, 4, 5, 6),
        {
            2: (51.9, 83.0, 98.7, 6.7),
            3: (51.2, 84.2, 100.0, 6.7),
            4: (50.6, 80.7, 96.3, 6.6),
            5: (51.3, 81.7, 97.2, 6.7),
            6: (51.7, 82.4, 98.4, 6.6),
        },
        "Table 7",
    ),
    "input_length": Space(
        "model.frames",
        (16, 24, 32),
        {16: (50.6, 80.7, 96.3, 6.6), 24: (51.2, 82.7, 98.5, 6.7), 32: (51.2, 82.0, 98.3, 6.7)},
        "Table 11",
    ),
}


def trial_function(plan: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """What Tune runs for every value: one training run, its best epoch reported."""

    def trial(values: dict[str, Any]) -> None:
        value = values["value"]
        chosen = config.recipe_named(plan["recipe"], [*plan["settings"], f"{plan['field']}={value:g}"])
        metrics = train_ray.fit(
            chosen,
            features=Path(plan["features"]),
            out=trial_folder(Path(plan["out"]), value),
            workers=plan["workers"],
            gpus=plan["gpus"],
            cpus_per_worker=CPU_SHARE,
            body=Path(plan["body"]) if plan["body"] else None,
            mlflow=plan["mlflow"],
            experiment=plan["experiment"],
            parent=plan["parent"],
        )
        tune.report(metrics)

    return trial


def trial_folder(out: Path, value: float) -> Path:
    """Where the run of one value lives."""
    return out / "trials" / f"{value:g}"


def collect(out: Path, values: list[float]) -> dict[float, dict[str, float]]:
    """Metrics of the trials that have finished, by value."""
    found = {}
    for value in values:
        path = trial_folder(out, value) / "run.json"
        state = json.loads(path.read_text()) if path.is_file() else {}
        if state.get("status") == "finished":
            found[value] = {name: state["metrics"][f"val_{name}"] for name in METRICS}
    return found


def show(space: Space, found: dict[float, dict[str, float]]) -> None:
    """The table a person compares with the paper's."""
    table = Table(title=f"{space.field}: ours on the validation split | {space.table}, 3DPW (another dataset)")
    table.add_column(space.field, justify="right")
    for name in METRICS:
        table.add_column(f"{name} ours", justify="right")
        table.add_column("paper", justify="right", style="dim")
    for value, metrics in sorted(found.items()):
        row = space.paper.get(value)
        cells = [f"{value:g}"]
        for i, name in enumerate(METRICS):
            cells += [f"{metrics[name]:.1f}", f"{row[i]:.1f}" if row else "-"]
        table.add_row(*cells)
    Console(width=None if os.environ.get("COLUMNS") else 120).print(table)


def plot(space: Space, found: dict[float, dict[str, float]], path: Path) -> None:
    """The swept field against every metric, the paper's curve beside ours on an axis of its own."""
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(16, 4), constrained_layout=True)
    ours, theirs = sorted(found), sorted(space.paper)
    for i, (name, axis) in enumerate(zip(METRICS, axes, strict=True)):
        axis.plot(ours, [found[v][name] for v in ours], "o-", color="tab:blue", label="ours (left axis)")
        right = axis.twinx()
        right.plot(
            theirs, [space.paper[v][i] for v in theirs], "s--", color="tab:gray", label="paper, 3DPW (right axis)"
        )
        axis.set(title=name, xlabel=space.field, ylabel="mm" if name != "accel" else "mm/frame²")
        if i == 0:
            figure.legend(handles=[*axis.lines, *right.lines], loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(
    features: Annotated[Path, typer.Option(parser=location, help="Folder or URI of feature sets: DIR/DATASET/SPLIT.")],
    out: Annotated[Path, typer.Option(help="Where the trials go; the same folder continues the sweep.")],
    space: Annotated[str, typer.Option(help=f"What to vary: {', '.join(SPACES)}.")] = "mask_ratio",
    values: Annotated[str, typer.Option(help="Values to try, comma-separated; the paper's when left out.")] = "",
    recipe: Annotated[str, typer.Option(help="The recipe everything else comes from.")] = "open_sample",
    setting: Annotated[list[str] | None, typer.Option("--set", help="field=value for every trial.")] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    mlflow: Annotated[str, typer.Option(help="MLflow tracking URI; OUT/../mlflow.db when left out.")] = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "glot-search",
    workers_per_trial: Annotated[int, typer.Option(min=1, help="DDP workers on CPUs of one trial.")] = 1,
    gpus_per_trial: Annotated[int, typer.Option(min=0, help="GPUs of one trial.")] = 0,
    concurrent: Annotated[int, typer.Option(min=0, help="Trials at a time; as many as fit when 0.")] = 0,
) -> None:
    """Vary one field of a recipe, as the paper's ablation tables do, and compare the runs in MLflow.

    Every trial is a child run of one parent run in MLflow. Interrupted sweeps go on when started again.

    Example: `python -m tuning.search --space mask_ratio --values 0,0.5,0.75 --features features --out runs/sweep`
    """
    if space not in SPACES:
        raise InputError(f"--space {space}: there is {', '.join(SPACES)}")
    swept = SPACES[space]
    chosen_values = parse_values(values, swept)
    settings = setting or []
    features, out = features.resolve(), out.resolve()
    for value in chosen_values:  # every recipe must be a valid one before the first trial starts
        sample = config.recipe_named(recipe, [*settings, f"{swept.field}={value:g}"])
    lineage = feature_lineage(sample, features)
    out.mkdir(parents=True, exist_ok=True)
    uri = mlflow or tracking.default_uri(out.parent)
    experiment_id = tracking.prepare(uri, experiment)
    key = hashlib.sha256(f"{out}:{space}".encode()).hexdigest()[:16]
    parent = tracking.open_run(
        uri,
        experiment_id,
        name=f"{space} sweep",
        key=key,
        params={"space": space, "field": swept.field, "recipe": recipe, "settings": " ".join(settings)},
        tags={f"features.{name}": value for name, value in lineage["sets"].items()},
    )
    run, status = tracking.Run(uri, parent), "FAILED"
    try:
        if len(collect(out, chosen_values)) < len(chosen_values):
            plan = {
                "recipe": recipe,
                "settings": settings,
                "field": swept.field,
                "features": str(features),
                "out": str(out),
                "body": str(body.resolve()) if body else "",
                "workers": workers_per_trial,
                "gpus": gpus_per_trial,
                "mlflow": uri,
                "experiment": experiment,
                "parent": parent,
            }
            sweep(plan, chosen_values, concurrent)
        found = collect(out, chosen_values)
        missing = [f"{value:g}" for value in chosen_values if value not in found]
        if missing:
            raise InputError(
                f"trials {', '.join(missing)} did not finish (logs in {out}/tune); run the same command again"
            )
        status = "FINISHED"
    finally:
        found = collect(out, chosen_values)
        if found:
            plot(swept, found, out / f"{space}.png")
            (out / f"{space}.json").write_text(json.dumps({f"{v:g}": m for v, m in found.items()}, indent=1) + "\n")
            run.artifact(out / f"{space}.png")
            run.artifact(out / f"{space}.json")
            best = min(found, key=lambda v: found[v]["pa_mpjpe"])
            run.metrics({f"best_{name}": value for name, value in found[best].items()}, step=0)
            run.tags({"best_value": f"{best:g}"})
        run.close(status)
    show(swept, found)
    print(f"plot: {out / f'{space}.png'}")


def parse_values(text: str, space: Space) -> list[float]:
    """The values given on the command line, or the paper's."""
    try:
        return [float(part) for part in text.split(",")] if text else list(space.values)
    except ValueError:
        raise InputError(f"--values {text}: write numbers with commas between them, e.g. 0,0.25,0.5") from None


def sweep(plan: dict[str, Any], values: list[float], concurrent: int) -> None:
    """Runs the trials, as many at a time as the cluster holds."""
    train_ray.connect(workers=plan["workers"], gpus=plan["gpus"])
    train_ray.preflight(workers=plan["workers"], gpus=plan["gpus"], cpus_per_worker=1)
    have = ray.cluster_resources()
    fit_at_once = int(have["GPU"] // plan["gpus"]) if plan["gpus"] else int(have["CPU"] // plan["workers"])
    at_once = min(concurrent or fit_at_once, fit_at_once, len(values))
    print(f"{len(values)} trials, {at_once} at a time ({have['CPU']:.0f} CPU cores, {have.get('GPU', 0):.0f} GPUs)")
    tuner = tune.Tuner(
        tune.with_resources(trial_function(plan), {"CPU": 0.01}),
        param_space={"value": tune.grid_search(values)},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once, metric=BEST_BY, mode="min"),
        run_config=tune.RunConfig(name="tune", storage_path=plan["out"], verbose=0),
    )
    tuner.fit()


def command() -> None:
    """Entry point of ``glot-search``."""
    cli.run(main)


if __name__ == "__main__":
    command()
