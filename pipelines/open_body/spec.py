"""The options of make_body, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError


@dataclass(frozen=True, kw_only=True)
class MakeBodySpec:
    """From how many people to derive the body, and where it goes. Raises InputError for values that cannot be used."""

    out: Annotated[
        Path | None, typer.Option(help="The npz file to write.", show_default="the shipped glot/assets/open_body.npz")
    ] = None
    people: Annotated[int, typer.Option(help="Number of adults to sample from anny.", min=50)] = 600
    vertices: Annotated[int, typer.Option(help="About how many vertices to keep.", min=3000, max=13000)] = 6900
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0)] = 0

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix != ".npz":
            raise InputError(f"--out {self.out}: must be the name of a file that ends in .npz")
        if self.people < 50:
            raise InputError(f"--people {self.people}: must be at least 50")
        if not 3000 <= self.vertices <= 13000:
            raise InputError(f"--vertices {self.vertices}: must be from 3000 to 13000")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be at least 0")
