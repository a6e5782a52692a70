"""The options of every command that reads feature sets, and what it prints where a set is missing."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from glot.features.dataset_folders import MAKE_SAMPLE, SAMPLE, SAMPLE_DATASET
from glot.features.schema import MANIFEST
from glot.home import data_folder, features_folder
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

    The commands make it of the rendered sample where there is no 3DPW in $GLOT_HOME/data.
    """
    folder = features / dataset / split
    if (folder / MANIFEST).is_file():
        return []
    what = "no finished feature set in it" if folder.is_dir() else "no such feature folder"
    out = "" if features == features_folder() else f" --out {shlex.quote(str(features))}"
    commands = [f"python pipelines/extract_features.py --dataset {shlex.quote(dataset)}{out}"]
    if dataset == SAMPLE_DATASET and not (data_folder() / dataset).is_dir():
        commands = [f"python pipelines/extract_features.py{out}"]
        if not (data_folder() / SAMPLE).is_dir():
            commands.insert(0, MAKE_SAMPLE)
    return [(f"{folder}: {what}; make it with", "\n    ".join(commands))]
