"""The command that renders the open sample dataset."""

from glot import cli
from pipelines.scenes.sample_dataset import main


def command() -> None:
    """Entry point of ``glot-make-sample``."""
    cli.run(main)


if __name__ == "__main__":
    command()
