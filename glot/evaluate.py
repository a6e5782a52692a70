"""The command that evaluates a checkpoint on a feature set."""

from glot import cli
from glot.scoring.spec import EvaluateSpec


def main(spec: EvaluateSpec) -> None:
    """Evaluate a checkpoint: MPJPE, PA-MPJPE, MPVPE (mm) and Accel (mm/frame^2) beside the mean pose and the paper.

    The default protocol prints two rows. `corrected` scores each frame against its own prediction. `official` repeats
    the released evaluation, to compare with published numbers: for GLoT it scores the last seven frames of every track
    in reversed order, and lets accelerations span gaps in time. For TCMR, MPS-Net, VIBE and MEVA it is what their
    releases do (docs/baselines.md), so its errors are not of the same windows; compare models by `corrected`.

    Example: `python -m glot.evaluate --checkpoint runs/demo/train/best --features runs/demo/features`
    """
    if spec.cost:
        from glot.scoring.cost_table import show_cost

        show_cost(spec.checkpoint)
        return
    spec = spec.with_places()

    from glot.scoring.checkpoint_evaluation import evaluate_checkpoint
    from glot.scoring.report import show, write_json, write_tracks

    report = evaluate_checkpoint(spec)
    show(report)
    if spec.json_file is not None:
        write_json(report, spec.json_file)
    if spec.table is not None:
        write_tracks(report, spec.table)


def command() -> None:
    """Entry point of ``glot-evaluate``."""
    cli.run(main)


if __name__ == "__main__":
    command()
