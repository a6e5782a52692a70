"""A folder with model.safetensors and config.json: the model, its recipe, and where both came from. Read and written.

Also reads what others wrote: official GLoT checkpoints and SPIN's regressor weights.
"""

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glot.config import ModelConfig, Recipe, from_dict, table1_3dpw, to_dict
from glot.errors import InputError
from glot.model import ESTIMATE, GLoT
from glot.schema import Manifest

VERSION = 1
WEIGHTS, CONFIG, TRAINING = "model.safetensors", "config.json", "training.pt"

# Official name -> ours, longest prefix first; what follows the prefix is kept.
OFFICIAL_NAMES = {
    "global_modeling.proj.": "motion.project.",
    "global_modeling.trans.pos_embed": "motion.positions.vectors",
    "global_modeling.trans.decoder_pos_embed": "motion.decoder_positions.vectors",
    "global_modeling.trans.mask_token_mlp.": "motion.token.mlp.",
    "global_modeling.trans.blocks.": "motion.blocks.",
    "global_modeling.trans.norm.": "motion.norm.",
    "global_modeling.trans.decoder_embed.": "motion.narrow.",
    "global_modeling.trans.decoder_blocks.": "motion.decoder_blocks.",
    "global_modeling.trans.decoder_norm.": "motion.decoder_norm.",
    "global_modeling.out_proj.": "motion.widen.",
    "global_modeling.regressor.fc1.": "iterative.fc1.",
    "global_modeling.regressor.decpose.": "iterative.pose.",
    "global_modeling.regressor.decshape.": "iterative.shape.",
    "global_modeling.regressor.deccam.": "iterative.cam.",
    "proj_short.": "correction.project.",
    "proj_mem.": "correction.project_memory.",
    "local_trans_en.pos_embed": "correction.positions.vectors",
    "local_trans_en.blocks.": "correction.blocks.",
    "local_trans_en.norm.": "correction.norm.",
    "local_trans_de.q_l.": "correction.attend.query.",
    "local_trans_de.kv_l.": "correction.attend.key_value.",
    "local_trans_de.proj.": "correction.attend.proj.",
    "regressor.fc1.": "correction.regressor.fc_shape.",
    "regressor.fc2.": "correction.regressor.fc_pose.",
    "regressor.decshape.": "correction.regressor.shape.",
    "regressor.deccam.": "correction.regressor.cam.",
    "regressor.local_reg.joint_regs.": "correction.regressor.joints.",
}
# Trained by nobody: these layers exist in official checkpoints and no output depends on them.
OFFICIAL_DEAD = ("global_modeling.regressor.fc2.", "regressor.local_reg.decshape.", "regressor.local_reg.deccam.")


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
) -> None:
    """Writes the folder at once: it is built under another name and renamed, so that a whole one or none is there.

    body = {name, hash, open}; features = {backbone: {name, hash, feature_size, ...}, ...}, as in a manifest. The recipe
    is stored with the model's own configuration. A folder of that name is replaced.
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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, temporary / WEIGHTS)
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    _swap_in(temporary, folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``, on the CPU, in evaluation mode.

    Raises InputError if it is missing, cut short, of another version, or if tensors and configuration do not match.
    """
    config = _read_config(folder)
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


def save_training_state(folder: Path, *, model: GLoT, optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """Adds to a checkpoint what going on needs: Adam's moments and ``epoch``, the next one to train.

    Random numbers need no place here: training seeds them anew in every epoch.
    """
    names = [name for name, _ in model.named_parameters()]
    temporary = folder / f".{TRAINING}.{os.getpid()}"
    torch.save({"version": VERSION, "epoch": epoch, "names": names, "optimiser": optimiser.state_dict()}, temporary)
    os.replace(temporary, folder / TRAINING)


def load_training_state(folder: Path, *, model: GLoT, optimiser: torch.optim.Optimizer) -> int:
    """Puts model and optimiser back to where they were saved; returns the next epoch to train."""
    stored = from_dict(_read_config(folder)["recipe"]).model
    if stored != model.config:
        raise InputError(
            f"{folder / CONFIG}: its model is configured differently from this run's; start over elsewhere"
        )
    _load_weights(model, folder / WEIGHTS)
    state = _torch_load(folder / TRAINING)
    names = [name for name, _ in model.named_parameters()]
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("names") != names:
        raise InputError(f"{folder / TRAINING}: written by another version; start the run over")
    optimiser.load_state_dict(state["optimiser"])
    return int(state["epoch"])


def from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official GLoT state dict under our names, and the names left out: body model buffers and dead layers.

    Raises InputError at the first name that belongs to neither.
    """
    ours: dict[str, Tensor] = {}
    left_out: list[str] = []
    mean: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if ".smpl." in name or name.startswith(OFFICIAL_DEAD):
            left_out.append(name)
        elif name.startswith("global_modeling.regressor.init_"):
            mean[name.rpartition("_")[2]] = tensor.flatten().float()
        else:
            prefix = next((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), None)
            if prefix is None:
                raise InputError(f"{name}: no such tensor in a GLoT checkpoint")
            ours[(OFFICIAL_NAMES[prefix] + name.removeprefix(prefix)).replace(".mlp.fc", ".fc")] = tensor
    if len(mean) == 3:
        ours["mean"] = torch.cat((mean["pose"], mean["shape"], mean["cam"]))
    return ours, left_out


def load_official(path: Path) -> Checkpoint:
    """A published GLoT checkpoint (``model_best.pth.tar``); window length and nearby frames follow from its tensors.

    It computes what the official code computes, the sliced pose of its kinematic regressor included.
    """
    state = _torch_load(path)
    if not isinstance(state, dict) or not isinstance(state.get("gen_state_dict"), dict):
        raise InputError(f"{path}: no gen_state_dict in it, so it is no GLoT checkpoint")
    weights, _ = from_official(state["gen_state_dict"])
    positions = ("motion.positions.vectors", "correction.positions.vectors")
    missing = [name for name in (*positions, "mean") if name not in weights]
    if missing:
        raise InputError(f"{path}: lacks what we call {missing[0]}, so it is no whole GLoT checkpoint")
    frames, around = (weights[name].shape[1] for name in positions)
    config = ModelConfig(frames=frames, nearby_frames=around // 2, hscr_global_pose="official")
    mean = weights["mean"]
    model = GLoT(config, mean_pose=mean[:144], mean_shape=mean[144:154], mean_cam=mean[154:])
    _assign(model, weights, path)
    info = {"body": {}, "features": {"backbone": {"name": "spin", "feature_size": config.feature_size}}, "metrics": {}}
    return Checkpoint(model.eval(), replace(table1_3dpw(), model=config), info)


def load_spin_regressor(model: GLoT, path: Path) -> None:
    """Starts the iterative regressor from SPIN's (``spin_model_checkpoint.pth.tar``), as the official training does."""
    state = _torch_load(path)
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{path}: no SPIN checkpoint, it has no entry 'model'")
    wanted = {"fc1": "fc1", "pose": "decpose", "shape": "decshape", "cam": "deccam"}
    own = model.iterative.state_dict()
    for name in own:
        layer, _, kind = name.partition(".")
        theirs = weights.get(f"{wanted[layer]}.{kind}")
        if theirs is None or theirs.shape != own[name].shape:
            found = "missing" if theirs is None else tuple(theirs.shape)
            raise InputError(f"{path}: {wanted[layer]}.{kind} is {found}, this model needs {tuple(own[name].shape)}")
        own[name] = theirs
    model.iterative.load_state_dict(own)


def _swap_in(temporary: Path, folder: Path) -> None:
    """Puts the finished folder in place. The old one is moved away first and is whole until then."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_config(folder: Path) -> dict[str, Any]:
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
    _assign(model, tensors, path)


def _assign(model: GLoT, tensors: Mapping[str, Tensor], path: Path) -> None:
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


def _torch_load(path: Path) -> Any:
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
