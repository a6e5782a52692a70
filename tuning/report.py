"""Any sweep's page and picture from MLflow alone: no folder of the sweep is needed."""

from pathlib import Path
from typing import Annotated

import typer

from glot import cli
from glot.errors import InputError
from tuning.registry import PAGE, PICTURE, TABLE, read_sweep, sweeps, write_results


def main(
    mlflow: Annotated[str, typer.Option(help="MLflow tracking URI, e.g. sqlite:///runs/mlflow.db.")],
    out: Annotated[Path, typer.Option(help="Folder for the pages; each sweep gets one of its own in it.")],
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "glot-search",
    sweep: Annotated[
        str, typer.Option(help="Only this one: the name of a space (the newest sweep of it) or a run's id.")
    ] = "",
) -> None:
    """Write Markdown, PNG and CSV of sweeps in MLflow: our errors, the paper's and the difference.

    Example: `python -m tuning.report --mlflow sqlite:///runs/mlflow.db --sweep mask_ratio --out runs/report`
    """
    if "://" not in mlflow:
        raise InputError(f"--mlflow {mlflow}: give an URI, such as sqlite:///{mlflow} or http://127.0.0.1:5000")
    if mlflow.startswith("sqlite:///") and not Path(mlflow.removeprefix("sqlite:///")).is_file():
        raise InputError(f"--mlflow {mlflow}: there is no such file")
    found = sweeps(mlflow, experiment)
    newest = {f"{run.info.run_name.removesuffix(' sweep')}": run for run in reversed(found)}
    if sweep:
        chosen = newest.get(sweep) or next((run for run in found if run.info.run_id == sweep), None)
        if chosen is None:
            raise InputError(f"--sweep {sweep}: there is {', '.join(newest)}")
        newest = {sweep: chosen}
    for name, run in newest.items():
        one = read_sweep(mlflow, run)
        if not one.outcomes:
            print(f"{name}: none of its trials is over")
            continue
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_results(one, folder)
        print(f"{name}: {one.counts()}: {folder / PAGE}, {PICTURE}, {TABLE}")


def command() -> None:
    """Entry point of ``glot-report``."""
    cli.run(main)


if __name__ == "__main__":
    command()
