"""The command that shows bodies in a browser."""

from glot import cli
from glot.pictures.viewer import main


def command() -> None:
    """Entry point of ``glot-view``."""
    cli.run(main)


if __name__ == "__main__":
    command()
