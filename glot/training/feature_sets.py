"""A recipe in; the feature sets that it reads, and what they were made with, out.

One message names all missing feature sets, with the commands that make them.
"""

from pathlib import Path
from typing import Any

from glot.config import Recipe
from glot.errors import InputError
from glot.features.dataset_folders import extraction_commands
from glot.features.motion_sets import make_command, motion_file, read_facts
from glot.features.schema import Manifest, backbone_words, is_feature_set, read_manifest
from glot.home import missing_error
from glot.location import file_exists
from glot.recipes import BLAZEPOSE_RECIPES, OPEN_RECIPES


def training_folders(recipe: Recipe, features: Path) -> dict[str, Path]:
    """The folder of each training set of the recipe, by the name of the dataset."""
    return {name: features / name / "train" for name in (*recipe.data.sets_2d, *recipe.data.sets_3d)}


def validation_folders(recipe: Recipe, features: Path) -> dict[str, Path]:
    """The folders of the sets that are evaluated after an epoch; epochs are compared on the first."""
    return {name: features / name / "validation" for name in recipe.data.validation}


def motion_files(recipe: Recipe, features: Path) -> dict[str, Path]:
    """The sets of real motions that the motion discriminator sees, by name."""
    return {name: motion_file(features, name) for name in recipe.discriminator.motions}


def feature_lineage(recipe: Recipe, features: Path) -> dict[str, Any]:
    """What the features of a recipe were made with: {backbone, crop, body, sets: {DATASET/SPLIT: key of its manifest}}.

    Raises InputError where sets are missing (all of them are named), empty, or made with different backbones or bodies.
    """
    check_sets(recipe, features)
    folders = {f"{name}/train": folder for name, folder in training_folders(recipe, features).items()}
    folders |= {f"{name}/validation": folder for name, folder in validation_folders(recipe, features).items()}
    manifests: dict[str, Manifest] = {name: read_manifest(folder) for name, folder in folders.items()}
    first, *others = manifests
    for name in others:
        if manifests[name].body["hash"] != manifests[first].body["hash"]:
            raise InputError(
                f"{folders[name]}: made with another body ({manifests[name].body['name']}) than {folders[first]} "
                f"({manifests[first].body['name']}); extract both with the same --body"
            )
        if manifests[name].backbone["hash"] != manifests[first].backbone["hash"]:
            raise InputError(
                f"{folders[name]}: features of another backbone ({backbone_words(manifests[name].backbone)}) than "
                f"{folders[first]} ({backbone_words(manifests[first].backbone)}); extract both with the same "
                "--backbone and --weights"
            )
    for name, manifest in manifests.items():
        if not manifest.rows:
            raise InputError(f"{folders[name]}: holds no frames; extract it from data with visible people")
    return {
        "backbone": manifests[first].backbone,
        "crop": manifests[first].crop,
        "body": manifests[first].body,
        "sets": {name: manifest.key for name, manifest in manifests.items()}
        | {f"{name}/motion": read_facts(file).key for name, file in motion_files(recipe, features).items()},
    }


def check_sets(recipe: Recipe, features: Path) -> None:
    """InputError naming every feature set of the recipe that is not there, with the commands that make it."""
    absent: dict[str, list[Path]] = {}
    for folders in (training_folders(recipe, features), validation_folders(recipe, features)):
        for name, folder in folders.items():
            if not is_feature_set(folder):
                absent.setdefault(name, []).append(folder)
    things = [
        (f"{file}: no such set of real motions; make it with", make_command(features, name))
        for name, file in motion_files(recipe, features).items()
        if not file_exists(file)
    ]
    if not absent and not things:
        return
    backbone = " --backbone blazepose" if recipe.name in BLAZEPOSE_RECIPES else ""
    for name, lacking in absent.items():
        commands = extraction_commands(name, features, sample=recipe.name in OPEN_RECIPES, options=backbone)
        what = f"{' and '.join(str(folder) for folder in lacking)}: no finished feature set there; make it with"
        things.append((what, "\n    ".join(commands)))
    raise missing_error(things)
