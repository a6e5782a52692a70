"""The options of check_features, checked as they are given. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import features_folder, missing_error
from glot.location import location

MAKE_FEATURES = "python pipelines/extract_features.py"


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """What to check. InputError where a folder is missing or an option does not make sense."""

    folder: Annotated[
        Path,
        typer.Argument(
            parser=location,
            help="A feature set, or a folder or URI with sets below it.",
            show_default="$GLOT_HOME/features",
        ),
    ] = field(default_factory=features_folder)
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a picture of crops from all parts of the set, with their joints; needs --root."),
    ] = None
    root: Annotated[Path | None, typer.Option(help="The dataset's folder that the set was extracted from.")] = None

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise missing_error([(f"{self.folder}: there is no such folder; make feature sets with", MAKE_FEATURES)])
        if self.sheet and self.root is None:
            raise InputError(f"--sheet {self.sheet}: give the folder of the pictures with --root")
        if self.root and not self.root.is_dir():
            raise InputError(
                f"--root {self.root}: there is no such folder; give the one the features were extracted from"
            )
