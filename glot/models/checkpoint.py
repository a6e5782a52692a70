"""A model, its recipe and what it was made with in; a folder with model.safetensors and config.json out; and back.

A checkpoint that training continues from also has training.pt: the optimiser's state and the progress.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from glot.config import SCHEMA, Recipe, from_dict, to_dict
from glot.errors import InputError, raise_if_passing
from glot.features.schema import Manifest, backbone_words
from glot.human.safe_torch import load_torch
from glot.location import temporary_of
from glot.models.architectures import build
from glot.models.smpl_params import ESTIMATE
from glot.models.temporal_model import TemporalModel

VERSION = 1  # of the layout of the folder; SCHEMA is that of the recipe in config.json
WEIGHTS, CONFIG, TRAINING = "model.safetensors", "config.json", "training.pt"
DISCRIMINATOR = "discriminator.safetensors"  # the motion discriminator that the model was trained with, if any


@dataclass
class Checkpoint:
    """A model in evaluation mode; ``info`` is config.json without the recipe: body, features, metrics, step."""

    model: TemporalModel
    recipe: Recipe
    info: dict[str, Any]


def save_checkpoint(
    folder: Path,
    *,
    model: TemporalModel,
    recipe: Recipe,
    body: dict[str, Any],
    features: dict[str, Any],
    metrics: dict[str, float],
    step: int,
    beside: Callable[[Path], None] = lambda unfinished: None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes the folder under another name and renames it, so that there is either a whole checkpoint or none.

    body = {name, hash, open}; features = {backbone: {name, hash, feature_size, ...}, ...}, as in a manifest. The recipe
    is stored with the configuration of ``model``. An existing folder of this name is replaced. ``beside`` may write
    more files into the folder before the rename. Weights are stored as ``dtype``.
    """
    config = {
        "version": VERSION,
        "schema": SCHEMA,
        "recipe": to_dict(replace(recipe, model=model.config)),
        "body": body,
        "features": features,
        "metrics": metrics,
        "step": step,
    }
    temporary = temporary_of(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, temporary / WEIGHTS)
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside(temporary)
    swap_in(temporary, folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``.

    Raises InputError if it is missing, cut short, of another version, or if tensors and configuration do not match.
    """
    config = read_config(folder)
    recipe = recipe_of(config, folder / CONFIG)
    model = build(recipe.model, torch.zeros(ESTIMATE))  # the file holds the real mean
    _load_weights(model, folder / WEIGHTS)
    info = {name: value for name, value in config.items() if name not in ("recipe", "schema")}
    return Checkpoint(model.eval(), recipe, info)


def check_features(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """InputError unless the feature set was made with the backbone that the model was trained on.

    Published checkpoints do not say which weights made their features; then only the size of a feature is checked.
    """
    trained, given = checkpoint.info["features"].get("backbone", {}), manifest.backbone
    size = checkpoint.recipe.model.feature_size
    if given.get("feature_size") != size:
        raise InputError(
            f"features {manifest.dataset}/{manifest.split} have {given.get('feature_size')} numbers a frame, this "
            f"model takes {size}; extract them with the backbone {trained.get('name')}"
        )
    if trained.get("hash", given.get("hash")) != given.get("hash"):
        raise InputError(
            f"features {manifest.dataset}/{manifest.split} were made by another backbone ({backbone_words(given)}) "
            f"than this model was trained on ({backbone_words(trained)}); extract them again with that one"
        )


def save_training_state(
    folder: Path,
    *,
    model: TemporalModel,
    optimiser: torch.optim.Optimizer,
    progress: dict[str, Any],
    adversary: dict[str, Any] | None = None,
) -> None:
    """Adds training.pt to the checkpoint in ``folder``: the optimiser's state and ``progress``, plain values; and the
    weights of the motion discriminator and the state of its optimiser, if there is one.

    The states of random number generators are not stored, because training seeds them in every step.
    """
    names = [name for name, _ in model.named_parameters()]
    content = {"version": VERSION, "progress": progress, "names": names, "optimiser": optimiser.state_dict()}
    torch.save(content | ({"adversary": adversary} if adversary else {}), folder / TRAINING)


def load_training_state(
    folder: Path,
    *,
    model: TemporalModel,
    optimiser: torch.optim.Optimizer,
    load_adversary: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Restores model and optimiser from the checkpoint in ``folder``; returns the ``progress`` that was saved.

    ``load_adversary`` gets what was saved of the motion discriminator.

    InputError where the checkpoint is damaged, or of a model that is configured differently.
    """
    stored = recipe_of(read_config(folder), folder / CONFIG).model
    if stored != model.config:
        raise InputError(
            f"{folder / CONFIG}: its model is configured differently from this run's model; use another folder"
        )
    _load_weights(model, folder / WEIGHTS)
    state = read_torch_file(folder / TRAINING)
    names = [name for name, _ in model.named_parameters()]
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("names") != names:
        raise InputError(f"{folder / TRAINING}: written by another version; start the run over")
    if bool(load_adversary) != ("adversary" in state):
        raise InputError(f"{folder / TRAINING}: of a run with another discriminator; use another folder")
    optimiser.load_state_dict(state["optimiser"])
    if load_adversary:
        load_adversary(state["adversary"])
    return dict(state["progress"])


def swap_in(temporary: Path, folder: Path) -> None:
    """Puts the finished folder in place. An earlier folder is renamed first, and deleted last."""
    old = folder.with_name(f"{temporary.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint; InputError where it is missing, damaged, or of another version."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no checkpoint, there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable ({error})") from None
    return check_config(config, path)


def check_config(config: Any, path: Path) -> dict[str, Any]:
    """The content of a config.json, read from the file at ``path``; InputError where it is of another version."""
    if not isinstance(config, dict) or config.get("version") != VERSION:
        found = config.get("version") if isinstance(config, dict) else None
        raise InputError(f"{path}: checkpoint version {found}, this program reads version {VERSION}")
    if missing := {"recipe", "body", "features", "metrics", "step"} - set(config):
        raise InputError(f"{path}: has no {sorted(missing)[0]}; the file was written by another version")
    return config


def recipe_of(config: dict[str, Any], path: Path) -> Recipe:
    """The recipe in a config.json, read from ``path``. An earlier version of the program may have written it."""
    try:
        return from_dict(config["recipe"], config.get("schema", 1))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _load_weights(model: TemporalModel, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing, so there is no checkpoint in this folder")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None
    assign(model, tensors, path)


def assign(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads the tensors of the file at ``path``; InputError naming the first that does not fit the model."""
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in expected:
            raise InputError(f"{path}: holds {name}, which a model of this configuration does not have")
        if name not in tensors:
            raise InputError(f"{path}: lacks {name}, which a model of this configuration has")
        if tensors[name].shape != expected[name].shape:
            found, wanted = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise InputError(f"{path}: {name} is {found}, the configuration says {wanted}")
    model.load_state_dict(dict(tensors))


def read_torch_file(path: Path) -> Any:
    """The content of a torch file, without running anything in it; InputError where it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        return load_torch(path)
    except Exception as error:  # a hostile or cut file can raise anything anywhere in the decoder
        raise_if_passing(error, path)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable torch file ({reason})") from None
