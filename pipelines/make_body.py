"""The command that derives the open body."""

from glot import cli
from pipelines.open_body.building import main


def command() -> None:
    """Entry point of ``python pipelines/make_body.py``."""
    cli.run(main)


if __name__ == "__main__":
    command()
