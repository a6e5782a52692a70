"""The options of make_motion_set, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.features.motion_sets import FOLDER, OPEN_MOTIONS
from glot.home import features_folder
from glot.location import location
from pipelines.motions.spec import KINDS, SHIPPED


@dataclass(frozen=True, kw_only=True)
class MakeMotionSetSpec:
    """Which motions are put into a set, and where it goes. InputError for values that cannot be used."""

    motions: Annotated[
        Path, typer.Option(help=f"{KINDS[0].upper()}{KINDS[1:]}: AMASS, CMU, any BVH.", show_default="shipped motions")
    ] = SHIPPED
    out: Annotated[
        Path | None,
        typer.Option(
            parser=location,
            show_default="$GLOT_HOME/features/NAME/motion",
            help="Folder of the set. Training looks for the set NAME in NAME/motion below --features.",
        ),
    ] = None
    shortest: Annotated[
        int, typer.Option(min=2, help="Frames, at 30 a second, of the shortest motion that is taken.")
    ] = 60

    def __post_init__(self) -> None:
        if not self.motions.exists():
            raise InputError(f"--motions {self.motions}: no such file or folder; give {KINDS}")
        if self.shortest < 2:
            raise InputError(f"--shortest {self.shortest}: must be 2 or more")

    @property
    def folder(self) -> Path:
        """``out``, or its default: the set is named after the motions."""
        name = OPEN_MOTIONS if self.motions == SHIPPED else self.motions.stem.lower() or OPEN_MOTIONS
        return self.out or features_folder() / name / FOLDER
