"""The command that trains the open ResNet-50 on renders."""

import os

from glot import cli
from pipelines.pretraining.spec import PretrainSpec


def main(spec: PretrainSpec) -> None:
    """Train the ResNet-50 whose features the open stack uses, from scratch, on rendered people only.

    The renders are made first, from the training clips, and kept in OUT/renders. Clips of the validation and test
    splits are never trained on. OUT/latest.safetensors holds the weights of the last checkpoint;
    OUT/resnet50.safetensors holds the finished weights. You can stop the command at any time; run it again to continue.

    `python -m pipelines.pretrain_backbone --out runs/backbone --hours 2`

    `python pipelines/extract_features.py --weights runs/backbone/resnet50.safetensors ...`
    """
    # On shared cores, threads that wait by spinning make training ten times slower. torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pipelines.pretraining.training import FINISHED, pretrain

    run = pretrain(spec)
    print(f"{spec.out / FINISHED}: {run.step} steps, {run.seconds / 3600:.2f} h; see benchmarks/probe.py")


def command() -> None:
    """Entry point of ``python -m pipelines.pretrain_backbone``."""
    cli.run(main)


if __name__ == "__main__":
    command()
