"""The command that fetches BlazePose's networks."""

from glot import cli
from glot.features.backbones.blazepose import main


def command() -> None:
    """Entry point of ``python -m glot.blazepose``."""
    cli.run(main)


if __name__ == "__main__":
    command()
