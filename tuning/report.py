"""The command that writes the pages of sweeps from MLflow alone; the folders of the sweeps are not needed."""

from glot import cli
from tuning.spec import ReportSpec


def main(spec: ReportSpec) -> None:
    """Write Markdown, PNG and CSV of sweeps in MLflow: our errors, the paper's and the difference.

    Example: `python -m tuning.report --mlflow sqlite:///runs/mlflow.db --sweep mask_ratio --out runs/report`
    """
    from tuning.registry import PAGE, PICTURE, TABLE, newest_sweeps, read_sweep, write_results

    for name, run in newest_sweeps(spec.mlflow, spec.experiment, spec.sweep).items():
        sweep = read_sweep(spec.mlflow, run)
        if not sweep.outcomes:
            print(f"{name}: none of its trials is over")
            continue
        folder = spec.out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_results(sweep, folder)
        print(f"{name}: {sweep.counts()}: {folder / PAGE}, {PICTURE}, {TABLE}")


def command() -> None:
    """Entry point of ``glot-report``."""
    cli.run(main)


if __name__ == "__main__":
    command()
