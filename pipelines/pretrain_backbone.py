"""The command that trains the open ResNet-50 on renders."""

import os

# On shared cores, threads that wait by spinning make training ten times slower. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from glot import cli  # noqa: E402
from pipelines.pretraining.training import main  # noqa: E402


def command() -> None:
    """Entry point of ``python -m pipelines.pretrain_backbone``."""
    cli.run(main)


if __name__ == "__main__":
    command()
