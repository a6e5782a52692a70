"""The options of every command that reads feature sets, and what it prints where a set is missing."""

from pathlib import Path
from typing import Annotated

import typer

from glot.features.dataset_folders import extraction_commands
from glot.features.schema import is_feature_set
from glot.location import location

FeaturesOption = Annotated[
    Path,
    typer.Option(
        parser=location, show_default="$GLOT_HOME/features", help="Folder or URI of feature sets: DIR/DATASET/SPLIT."
    ),
]
BodyOption = Annotated[
    Path | None,
    typer.Option(
        show_default="$GLOT_HOME/body for features made with SMPL, else the open body",
        help="SMPL file, or a folder with SMPL's files.",
    ),
]


def missing_features(features: Path, dataset: str, split: str) -> list[tuple[str, str]]:
    """[] where the feature set is there, else what is missing and the commands to make it, for missing_error.

    A set of 3dpw is made from the rendered sample where there is no 3DPW in $GLOT_HOME/data.
    """
    folder = features / dataset / split
    if is_feature_set(folder):
        return []
    what = "no finished feature set in it" if folder.is_dir() else "no such feature folder"
    commands = extraction_commands(dataset, features)
    return [(f"{folder}: {what}; make it with", "\n    ".join(commands))]
