"""The options of make_motions, checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import missing_error

SHIPPED = Path(__file__).parents[1] / "assets" / "motions.npz"
KINDS = "a .bvh, .npz or .amc file (with its .asf), or a folder of them"  # what --motions takes
DOWNLOAD = "pip download --no-deps pybullet==3.2.7"


def downloaded_wheel() -> Path | None:
    """A pybullet wheel in the current folder, if there is one."""
    return next(iter(sorted(Path().glob("pybullet-*.whl"))), None)


@dataclass(frozen=True, kw_only=True)
class MakeMotionsSpec:
    """Which wheel to convert, and where the clips go. Raises InputError for values that cannot be used."""

    wheel: Annotated[
        Path | None,
        typer.Option(
            help="pybullet-*.whl as downloaded from PyPI. It is read, not installed.",
            show_default="pybullet-*.whl in the current folder",
        ),
    ] = field(default_factory=downloaded_wheel)
    out: Annotated[
        Path, typer.Option(help="The npz file to write.", show_default="the shipped pipelines/assets/motions.npz")
    ] = SHIPPED

    def __post_init__(self) -> None:
        if self.wheel is None:
            raise missing_error(
                [("--wheel: there is no pybullet-*.whl in the current folder; download it with", DOWNLOAD)]
            )
        if not self.wheel.is_file():
            raise InputError(f"--wheel {self.wheel}: no such file; download it with `{DOWNLOAD}`")
        if self.out.suffix != ".npz":
            raise InputError(f"--out {self.out}: must be the name of a file that ends in .npz")
