"""The command that extracts a feature set from a dataset."""

from glot import cli
from pipelines.extraction.job import main


def command() -> None:
    """Entry point of ``glot-extract``."""
    cli.run(main)


if __name__ == "__main__":
    command()
