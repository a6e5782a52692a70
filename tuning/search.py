"""The command that runs a sweep: the paper's ablations and searches of your own, with Ray Tune."""

from glot import cli
from glot.training.record.mlflow_store import ui_command
from tuning.spec import SearchSpec

PROGRAM_ERROR, NOT_FINISHED, INTERRUPTED = 1, 75, 130  # exit codes


def main(spec: SearchSpec) -> int:
    """Vary fields of a recipe as the paper's ablation tables do, or search them, and compare the runs in MLflow.

    The sweep is a run of MLflow, and every trial (a point of the space, trained with one seed) is a child of it. The
    sweep's run has the table, the curves and the paper's numbers; the best trial is registered as a model. If the
    sweep is interrupted, the same command with `--resume` continues the unfinished trials, each at its last checkpoint.
    You may then also ask for more `--values`, `--seeds` or `--trials`. A trial that a lost node, a full disk or an
    outage of MLflow has ended is tried again, in the same run and with `--resume`; a trial whose recipe is wrong is
    not. `python -m tuning.report` writes the page of any sweep again.

    Examples: `python -m tuning.search --space mask_ratio --features features --out runs/mask_ratio`

    `python -m tuning.search --space joint --search bayesian --trials 40 --prune --features features --out runs/joint`

    A space of your own, in `my.yaml`: `axes: [{field: model.dropout, values: [0, 0.1, 0.2]}, {field: lr, low: 1e-5,
    high: 1e-3, log: true}]`
    """
    spec.check_places()

    from tuning.results import print_table
    from tuning.sweep import run_sweep

    end = run_sweep(spec)
    out, trials = spec.sweep_folder, end.trials
    print_table(end.results)
    print(f"{end.results.counts()}\npage: {out / 'report.md'}, picture: {out / 'report.png'}")
    print(f"MLflow: {ui_command(spec.tracking_uri)}")
    if end.unsent:
        print(f"warning: {end.unsent}; the same command with --resume sends the results")
    if trials.unfinished:
        print(f"{trials.unfinished} of the trials are unfinished; the same command with --resume continues them")
    if trials.broken:
        print(f"{trials.broken} of them ended with an error of this program: see {out}/trials/*/log.txt")
        return PROGRAM_ERROR
    if trials.interrupted:
        return INTERRUPTED
    return NOT_FINISHED if trials.unfinished or end.unsent else 0


def command() -> None:
    """Entry point of ``glot-search``."""
    cli.run(main)


if __name__ == "__main__":
    command()
