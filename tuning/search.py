"""The command that runs a sweep: the paper's ablations and searches of your own, with Ray Tune."""

from glot import cli
from glot.training.mlflow_store import ui_command
from tuning.spec import SearchSpec

INTERRUPTED = 130  # exit code


def main(spec: SearchSpec) -> int:
    """Vary fields of a recipe as the paper's ablation tables do, or search them, and compare the runs in MLflow.

    The sweep is a run of MLflow, and every trial (a point of the space, trained with one seed) is a child of it. The
    sweep's run has the table, the curves and the paper's numbers; the best trial is registered as a model. If the
    sweep is interrupted, the same command with `--resume` continues the unfinished trials, each at its last checkpoint.
    You may then also ask for more `--values`, `--seeds` or `--trials`. `python -m tuning.report` writes the page of any
    sweep again.

    Examples: `python -m tuning.search --space mask_ratio --features features --out runs/mask_ratio`

    `python -m tuning.search --space joint --search bayesian --trials 40 --prune --features features --out runs/joint`

    A space of your own, in `my.yaml`: `axes: [{field: model.dropout, values: [0, 0.1, 0.2]}, {field: lr, low: 1e-5,
    high: 1e-3, log: true}]`
    """
    spec.check_places()

    from tuning.results import print_table
    from tuning.runner import RESTARTS
    from tuning.sweep import run_sweep

    end = run_sweep(spec)
    out = spec.sweep_folder
    print_table(end.results)
    print(f"{end.results.counts()}\npage: {out / 'report.md'}, picture: {out / 'report.png'}")
    print(f"MLflow: {ui_command(spec.tracking_uri)}")
    if not end.unfinished:
        return 0
    lost = f" ({end.lost} of them ended {RESTARTS + 1} times without a result: see {out}/trials/*/log.txt)"
    lost = lost if end.lost else ""
    print(f"{end.unfinished} of the trials are unfinished{lost}; the same command with --resume continues them")
    return 1 if end.lost else INTERRUPTED


def command() -> None:
    """Entry point of ``glot-search``."""
    cli.run(main)


if __name__ == "__main__":
    command()
