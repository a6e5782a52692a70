"""The checkpoints that an interrupted run of the motion VAE continues from: the newest two, in OUT/steps/<step>/."""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from glot.errors import InputError
from glot.models.checkpoint import TRAINING, assign, read_torch_file
from glot.models.parts.motion_vae import MotionVAE
from glot.models.vae_files import read_vae, save_vae
from glot.training.step_checkpoints import KEPT, saved_steps, saving, steps_folder


def save_progress(
    out: Path, vae: MotionVAE, optimiser: torch.optim.Optimizer, progress: dict[str, Any], *, step: int
) -> None:
    """Saves what a run needs to continue after ``step`` steps. ``progress``: plain values of the run."""
    state = {"optimiser": optimiser.state_dict(), "progress": progress}
    with saving(steps_folder(out) / f"{step:08d}") as folder:
        save_vae(folder, vae, {"step": step}, beside=lambda unfinished: torch.save(state, unfinished / TRAINING))
    for old in saved_steps(out)[KEPT:]:
        shutil.rmtree(steps_folder(out) / f"{old:08d}", ignore_errors=True)


def load_progress(out: Path, vae: MotionVAE, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Loads the newest readable checkpoint; returns its step and its progress, 0 and {} without a checkpoint.

    InputError where all checkpoints are damaged.
    """
    steps = saved_steps(out)
    for step in steps:
        folder = steps_folder(out) / f"{step:08d}"
        try:
            tensors, state = read_vae(folder), read_torch_file(folder / TRAINING)
            assign(vae, tensors, folder)
            optimiser.load_state_dict(state["optimiser"])
            return step, dict(state["progress"])
        except (InputError, KeyError, TypeError, ValueError) as error:
            print(f"warning: {folder}: {error}; trying the checkpoint before it", file=sys.stderr, flush=True)
    if steps:
        raise InputError(f"{steps_folder(out)}: none of its checkpoints can be read; start over with --fresh")
    return 0, {}
