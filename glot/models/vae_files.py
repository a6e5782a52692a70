"""A motion VAE in; a folder with model.safetensors and config.json out; and back, into MEVA.

MEVA also takes the VAE of its release, out of a published model_best.pth.tar.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glot.errors import InputError, raise_if_passing
from glot.location import file_hash, temporary_of
from glot.models.checkpoint import CONFIG, WEIGHTS, assign, read_torch_file, swap_in
from glot.models.meva import MEVA
from glot.models.parts.motion_vae import MotionVAE
from glot.models.temporal_model import TemporalModel

KIND, VERSION = "motion_vae", 1
RELEASED = "vae_model."  # what the names of the VAE's tensors begin with in MEVA's release
BEST = "best"  # the result in the folder of a run
SIZES = {"latent": "e_mu.bias", "vae_hidden": "e_mlp.affine_layers.0.bias"}  # field of the model -> tensor of this size


def save_vae(
    folder: Path,
    vae: MotionVAE,
    about: dict[str, Any],
    *,
    beside: Callable[[Path], None] = lambda unfinished: None,
) -> None:
    """Writes the folder under another name and renames it, so that there is either a whole VAE or none.

    ``about`` goes into config.json. ``beside`` may write more files into the folder before the rename.
    """
    sizes = {"latent": vae.e_mu.out_features, "hidden": vae.e_mlp.affine_layers[0].out_features}
    config = {"version": VERSION, "kind": KIND, "variant": vae.variant, **sizes, **about}
    temporary = temporary_of(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in vae.state_dict().items()}, temporary / WEIGHTS
    )
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside(temporary)
    swap_in(temporary, folder)


def vae_path(path: Path) -> Path:
    """The VAE that --vae names: best/ in the folder of a run, else ``path`` itself."""
    if path.is_dir() and not (path / CONFIG).is_file() and (path / BEST / CONFIG).is_file():
        return path / BEST
    return path


def vae_hash(path: Path) -> str:
    """16 hex digits of the file with the weights."""
    return file_hash(path / WEIGHTS if path.is_dir() else path)


def read_vae(path: Path) -> dict[str, Tensor]:
    """The tensors of the VAE in a folder of ours or in a published file. InputError where there is none."""
    if not path.is_dir():
        return _released(path)
    try:
        config = json.loads((path / CONFIG).read_text())
        if not isinstance(config, dict) or (config.get("kind"), config.get("version")) != (KIND, VERSION):
            raise InputError(f"{path / CONFIG}: is not of a motion VAE of version {VERSION}; see glot.train_vae")
        return load_file(path / WEIGHTS)
    except FileNotFoundError as error:
        raise InputError(f"{path}: holds no motion VAE, {Path(str(error.filename)).name} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise_if_passing(error, path)
        raise InputError(f"{path}: damaged or cut short ({str(error).splitlines()[0]})") from None


def _released(path: Path) -> dict[str, Tensor]:
    content = read_torch_file(path)
    state = content.get("gen_state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        str(name).removeprefix(RELEASED): tensor
        for name, tensor in (state.items() if isinstance(state, dict) else ())
        if str(name).startswith(RELEASED) and isinstance(tensor, Tensor)
    }
    if not tensors:
        raise InputError(
            f"{path}: no motion VAE in it, no tensor is named {RELEASED}...; give MEVA's model_best.pth.tar"
        )
    return tensors


def give_vae(model: TemporalModel, path: Path) -> None:
    """Gives MEVA the VAE at ``path``. InputError for another model, and for a VAE of another variant or size."""
    if not isinstance(model, MEVA):
        raise InputError(f"--vae {path}: {model.title} has no motion VAE; --set model=meva has one")
    tensors, config = read_vae(path), model.config
    variant = "latent_only" if any(name.startswith("init_pose") for name in tensors) else "with_first_pose"
    if variant != config.variant:
        raise InputError(
            f"--vae {path}: is of the variant {variant}, the model of {config.variant}; --set model.variant={variant}"
        )
    wanted = {"latent": config.latent, "vae_hidden": config.vae_hidden}
    sizes = {field: tensors[name].shape[0] for field, name in SIZES.items() if name in tensors and tensors[name].ndim}
    if fit := " ".join(f"--set model.{field}={size}" for field, size in sizes.items() if size != wanted[field]):
        raise InputError(f"--vae {path}: is of another size than the model; {fit}")
    assign(model.vae_model, tensors, path)
