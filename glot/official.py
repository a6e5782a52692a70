"""The command that writes a checkpoint as the official code would."""

from glot import cli
from glot.models.official_files import main


def command() -> None:
    """Entry point of ``glot-official``."""
    cli.run(main)


if __name__ == "__main__":
    command()
