"""The command that shows a video's bodies in the browser: results of glot.predict in, a page out."""

from glot import cli
from glot.pictures.spec import ViewSpec


def main(spec: ViewSpec) -> int:
    """Show bodies and their video in a browser: play, go to a frame, show people one by one, turn around them.

    The page opens with the view of the camera, each body over its person; the mouse turns the scene. Only the frame
    that is shown is computed, so long videos open at once. Ctrl-C ends the command.

    Example: `python -m glot.view runs/walk --video walk.mp4`
    """
    from glot.pictures.viewer import view

    view(spec)
    return 0


def command() -> None:
    """Entry point of ``glot-view``."""
    cli.run(main)


if __name__ == "__main__":
    command()
