"""The command that trains a model with Ray Train."""

from glot import cli
from glot.training.driver import main


def command() -> None:
    """Entry point of ``glot-train``."""
    cli.run(main)


if __name__ == "__main__":
    command()
