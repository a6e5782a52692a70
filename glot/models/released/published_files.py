"""A published file of any of the five models in, a checkpoint out; and the reverse.

The names of its tensors say which model a file holds.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glot.config import DiscriminatorConfig
from glot.errors import InputError
from glot.human.body import load_body, require_body
from glot.location import move_in, temporary_of
from glot.models.checkpoint import DISCRIMINATOR, Checkpoint, load_checkpoint, read_config
from glot.models.glot import GLoT
from glot.models.mps_net import MPSNet
from glot.models.parts.motion_discriminator import MotionDiscriminator
from glot.models.released.official_files import glot_checkpoint, to_official
from glot.models.released.peer_files import kind_of, peer_checkpoint, peer_notes, peer_state
from glot.models.released.release_layout import OWN, Release, read_release
from glot.models.spec import OfficialSpec


def load_published(path: Path) -> Checkpoint:
    """The checkpoint in a published .pth.tar of GLoT, TCMR, MPS-Net, VIBE or MEVA, or in a file of ``write_official``.

    ``info["notes"]``: what a user has to know about the file, one line each. InputError for any other file.
    """
    release = read_release(path)
    if any(name.startswith("global_modeling.") for name in release.state):
        return glot_checkpoint(release)
    if (kind := kind_of(release)) is None:
        raise InputError(
            f"{path}: its gen_state_dict is of no model that this program knows (GLoT, TCMR, MPS-Net, VIBE, MEVA); its "
            f"first tensor is {next(iter(release.state))[:80]}"
        )
    saved = peer_checkpoint(release, kind)
    saved.info["notes"] = [*_frames_note(saved, release), *peer_notes(saved.model)]
    return saved


def _frames_note(saved: Checkpoint, release: Release) -> list[str]:
    """A file of another project says neither how long its windows are nor what it was trained on."""
    if release.own is not None:
        return []
    return [
        f"{release.path.name}: from {saved.model.title}'s release; it does not say its frames or its training, so it "
        f"is taken as {saved.recipe.name} with windows of {saved.model.config.frames} frames"
    ]


class Written(NamedTuple):
    """What was written, and what somebody who uses the file has to know, one line each."""

    tensors: int
    notes: list[str]


def write_official(spec: OfficialSpec) -> Written:
    """Writes ``spec.checkpoint`` with ``spec.body`` to the file ``spec.out``, as the code of the release would have.

    InputError where the model was made with another kind of body, where the release has no such model, and where the
    file cannot be written.
    """
    saved, body = load_checkpoint(spec.checkpoint), load_body(spec.body)
    require_body(body, saved.info["body"], "model")
    model = saved.model
    state = to_official(model, body) if isinstance(model, GLoT) else peer_state(model, body)
    content: dict[str, Any] = {
        "epoch": int(saved.info["step"]) // max(saved.recipe.steps_per_epoch, 1),
        "gen_state_dict": state,
        "performance": float(saved.info["metrics"].get("pa_mpjpe", 0.0)),
        "gen_optimizer": {},
        OWN: read_config(spec.checkpoint),
    }
    if discriminator := _discriminator(spec.checkpoint / DISCRIMINATOR):
        content |= {"disc_motion_state_dict": discriminator, "disc_motion_optimizer": {}}
    _write(content, spec.out)
    return Written(len(state) + len(discriminator), _export_notes(saved))


def _discriminator(path: Path) -> dict[str, Tensor]:
    """The weights of the motion discriminator; {} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or cut short ({error}); delete it to write the model alone") from None
    with torch.device("meta"):
        expected = MotionDiscriminator(DiscriminatorConfig()).state_dict()
    for name in sorted(expected.keys() | found.keys()):
        sizes = [tuple(state[name].shape) if name in state else "missing" for state in (found, expected)]
        if sizes[0] != sizes[1]:
            raise InputError(f"{path}: {name} is {sizes[0]}, the official code needs {sizes[1]}; delete the file")
    return {name: found[name].float() for name in expected}


def _write(content: dict[str, Any], out: Path) -> None:
    temporary = temporary_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        move_in(temporary, out)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        raise InputError(f"--out {out}: cannot be written ({error}); choose another place") from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _export_notes(saved: Checkpoint) -> list[str]:
    if isinstance(saved.model, MPSNet) and saved.model.config.similarities == "sample":
        return [
            "the released evaluation of MPS-Net mixes up the windows of a batch, and this model was not trained so: "
            "evaluate it there with a batch size of 1"
        ]
    return []
