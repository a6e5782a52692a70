"""The command that trains a model with Ray Train: feature sets and a recipe in, checkpoints and an MLflow run out."""

from glot import cli
from glot.training.record.mlflow_store import ui_command
from glot.training.spec import CONTINUE, TrainSpec


def main(spec: TrainSpec) -> int:
    """Train GLoT, or another model with `--set model=tcmr`, on extracted features with Ray Train (DDP).

    Feature sets, runs and SMPL are looked for in `$GLOT_HOME`, which is the current folder when it is not set.
    If the run is interrupted, the same command with `--resume` continues from its last checkpoint, with the same or
    another number of workers. Every field of a recipe can be set, for example `--set model.mask_ratio=0.25 --set
    epochs=3`, `--set precision=bfloat16`, `--set compile=true`, `--set accumulate=2`; the resulting recipe is stored
    with every checkpoint and MLflow run. A step has data.batch_size windows, which the workers share.

    Examples: `python -m glot.train_ray --gpus 8`

    `python -m glot.train_ray --recipe open_sample --features runs/demo/features --out runs/first --workers 2`
    """
    spec.check_places()

    from glot.training.cluster.preflight import choose_device, connect
    from glot.training.driver import Unfinished, fit
    from glot.training.workers import RayWorkers

    connect(workers=spec.worker_count, gpus=spec.gpus or 0)
    try:
        metrics = fit(choose_device(spec), RayWorkers(cpus_per_worker=None))
    except Unfinished as stopped:
        print(f"{stopped}; the same command with --resume continues it")
        return CONTINUE
    errors = "  ".join(
        f"{name.removeprefix('val_')} {value:.1f}" for name, value in metrics.items() if name.startswith("val_")
    )
    print(f"best epoch {metrics.get('epoch', 0):.0f}: {errors} (mm)\ncheckpoint: {spec.run_folder / 'best'}")
    if spec.tracking_uri:
        print(f"MLflow: {ui_command(spec.tracking_uri)}")
    return 0


def command() -> None:
    """Entry point of ``glot-train``."""
    cli.run(main)


if __name__ == "__main__":
    command()
