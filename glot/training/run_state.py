"""What a training run is made of and how far it got: the feature sets of its recipe, and run.json in its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

from glot.config import Recipe
from glot.errors import InputError
from glot.features.schema import Manifest, read_manifest
from glot.location import write_whole

STATE, EPOCHS, SPOOL = "run.json", "epochs.json", "mlflow_unsent.jsonl"


def training_folders(recipe: Recipe, features: Path) -> dict[str, Path]:
    """Feature set folder of every training set of the recipe."""
    return {name: features / name / "train" for name in (*recipe.data.sets_2d, *recipe.data.sets_3d)}


def validation_folders(recipe: Recipe, features: Path) -> dict[str, Path]:
    """Feature set folders that are evaluated after an epoch; epochs are compared on the first."""
    return {name: features / name / "validation" for name in recipe.data.validation}


def feature_lineage(recipe: Recipe, features: Path) -> dict[str, Any]:
    """Backbone, crop rule and manifest keys of what the recipe reads; InputError when the sets do not go together."""
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
                f"{folders[name]}: features of another backbone ({manifests[name].backbone['weights']}) than "
                f"{folders[first]} ({manifests[first].backbone['weights']}); extract both with the same --weights"
            )
    for name, manifest in manifests.items():
        if not manifest.rows:
            raise InputError(f"{folders[name]}: there is not one frame in it; extract it from data with visible people")
    return {
        "backbone": manifests[first].backbone,
        "crop": manifests[first].crop,
        "body": manifests[first].body,
        "sets": {name: manifest.key for name, manifest in manifests.items()},
    }


def open_state(out: Path, state: dict[str, Any], *, resume: bool, fresh: bool) -> dict[str, Any]:
    """Claims ``out`` for this run: what an earlier start of the same run left there, or a new state.

    Raises InputError when the folder holds a run of another recipe or other features, and when it holds an unfinished
    one and neither ``resume`` nor ``fresh`` says what is to become of it.
    """
    path = out / STATE
    if fresh:
        for name in ("ray", "steps", "best", "last", STATE, EPOCHS, SPOOL):
            target = out / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    if path.is_file():
        try:
            old = json.loads(path.read_text())
            difference = "".join(
                first_difference(old.get(name, ""), state.get(name, ""), name)
                for name in ("recipe", "features", "spin_regressor", "start")
            )
            done = old["status"] == "finished"
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: not readable; start over with --fresh or choose another --out") from None
        if difference:
            raise InputError(f"{out}: holds a run with {difference}; choose another --out, or start over with --fresh")
        if not done and not resume:
            raise InputError(f"{out}: holds an unfinished run; --resume goes on with it, --fresh starts it over")
        return old
    out.mkdir(parents=True, exist_ok=True)
    write_state(out, state)
    return state


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Replaces out/run.json at once."""
    write_whole(out / STATE, (json.dumps(state, indent=1) + "\n").encode())


def first_difference(old: Any, new: Any, where: str) -> str:
    """ "field = old value, now new value" of the first field that differs, or nothing."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if found := first_difference(old.get(key), new.get(key), f"{where}.{key}"):
                return found
        return ""
    return "" if old == new else f"{where.lstrip('.').removeprefix('recipe.')} = {old}, now {new}"
