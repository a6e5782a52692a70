"""The command that evaluates a checkpoint on a feature set."""

from glot import cli
from glot.scoring.evaluation import main


def command() -> None:
    """Entry point of ``glot-evaluate``."""
    cli.run(main)


if __name__ == "__main__":
    command()
