"""A folder with model.safetensors and config.json: a model, its recipe, and where both came from. Read and written."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glot.config import Recipe, from_dict, to_dict
from glot.errors import InputError
from glot.features.schema import Manifest
from glot.models.glot import GLoT
from glot.models.smpl_params import ESTIMATE

VERSION = 1
WEIGHTS, CONFIG, TRAINING = "model.safetensors", "config.json", "training.pt"


@dataclass
class Checkpoint:
    """``info`` is config.json without the recipe: body, features, metrics, step."""

    model: GLoT
    recipe: Recipe
    info: dict[str, Any]


def save_checkpoint(
    folder: Path,
    *,
    model: GLoT,
    recipe: Recipe,
    body: dict[str, Any],
    features: dict[str, Any],
    metrics: dict[str, float],
    step: int,
    beside: Callable[[Path], None] = lambda unfinished: None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes the folder at once: it is built under another name and renamed, so that a whole one or none is there.

    body = {name, hash, open}; features = {backbone: {name, hash, feature_size, ...}, ...}, as in a manifest. The recipe
    is stored with the model's own configuration. A folder of that name is replaced. ``beside`` may write more into it;
    ``dtype`` is that of the weights in the file.
    """
    config = {
        "version": VERSION,
        "recipe": to_dict(replace(recipe, model=model.config)),
        "body": body,
        "features": features,
        "metrics": metrics,
        "step": step,
    }
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, temporary / WEIGHTS)
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside(temporary)
    _swap_in(temporary, folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``, on the CPU, in evaluation mode.

    Raises InputError if it is missing, cut short, of another version, or if tensors and configuration do not match.
    """
    config = read_config(folder)
    recipe = from_dict(config.pop("recipe"))
    mean = torch.zeros(ESTIMATE)  # the file holds the real one
    model = GLoT(recipe.model, mean_pose=mean[:144], mean_shape=mean[144:154], mean_cam=mean[154:])
    _load_weights(model, folder / WEIGHTS)
    return Checkpoint(model.eval(), recipe, config)


def check_features(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Refuses a feature set that another backbone made than the one this model was trained on."""
    trained, given = checkpoint.info["features"].get("backbone", {}), manifest.backbone
    size = checkpoint.recipe.model.feature_size
    if given.get("feature_size") != size:
        raise InputError(
            f"features {manifest.dataset}/{manifest.split} have {given.get('feature_size')} numbers a frame, this "
            f"model takes {size}; extract them with the backbone {trained.get('name')}"
        )
    if trained.get("hash") != given.get("hash"):
        raise InputError(
            f"features {manifest.dataset}/{manifest.split} were made by backbone {given.get('name')} "
            f"({given.get('hash')}), this model was trained on {trained.get('name')} ({trained.get('hash')}); "
            "extract them again with that one"
        )


def save_training_state(
    folder: Path, *, model: GLoT, optimiser: torch.optim.Optimizer, progress: dict[str, Any]
) -> None:
    """Adds to a checkpoint what going on needs: Adam's moments and ``progress``, plain values.

    Random numbers need no place here: training seeds them anew in every step.
    """
    names = [name for name, _ in model.named_parameters()]
    content = {"version": VERSION, "progress": progress, "names": names, "optimiser": optimiser.state_dict()}
    torch.save(content, folder / TRAINING)


def load_training_state(folder: Path, *, model: GLoT, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts model and optimiser back to where they were saved; returns the progress that was."""
    stored = from_dict(read_config(folder)["recipe"]).model
    if stored != model.config:
        raise InputError(
            f"{folder / CONFIG}: its model is configured differently from this run's; start over elsewhere"
        )
    _load_weights(model, folder / WEIGHTS)
    state = read_torch_file(folder / TRAINING)
    names = [name for name, _ in model.named_parameters()]
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("names") != names:
        raise InputError(f"{folder / TRAINING}: written by another version; start the run over")
    optimiser.load_state_dict(state["optimiser"])
    return dict(state["progress"])


def _swap_in(temporary: Path, folder: Path) -> None:
    """Puts the finished folder in place. The old one is moved away first and is whole until then."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint, its fields checked for being there."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no checkpoint, there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if not isinstance(config, dict) or config.get("version") != VERSION:
        found = config.get("version") if isinstance(config, dict) else None
        raise InputError(f"{path}: checkpoint version {found}, this program reads version {VERSION}")
    if missing := {"recipe", "body", "features", "metrics", "step"} - set(config):
        raise InputError(f"{path}: has no {sorted(missing)[0]}; the file was written by another version")
    return config


def _load_weights(model: GLoT, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing, so there is no checkpoint in this folder")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None
    assign(model, tensors, path)


def assign(model: GLoT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads the tensors, or names the first that does not fit the model."""
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in expected:
            raise InputError(f"{path}: holds {name}, which a model of this configuration has not")
        if name not in tensors:
            raise InputError(f"{path}: lacks {name}, which a model of this configuration has")
        if tensors[name].shape != expected[name].shape:
            found, wanted = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise InputError(f"{path}: {name} is {found}, the configuration says {wanted}")
    model.load_state_dict(dict(tensors))


def read_torch_file(path: Path) -> Any:
    """A torch file without running anything in it."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    # Official checkpoints hold their score as a numpy scalar, under the name numpy 1 gave to what makes one.
    scalar: Any = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    numbers += [type(np.dtype(kind)) for kind in ("f4", "f8", "i8")]
    try:
        with torch.serialization.safe_globals(numbers):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable torch file ({reason})") from None
