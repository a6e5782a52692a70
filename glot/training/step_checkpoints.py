"""Checkpoints that a run is taken up from: OUT/steps/<step>/, each whole, the newest few kept."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from glot.config import Recipe
from glot.errors import InputError
from glot.models.checkpoint import load_training_state, save_checkpoint, save_training_state
from glot.models.glot import GLoT

KEPT = 2  # the newest, and the one before it in case the newest cannot be read


def steps_folder(out: Path) -> Path:
    return out / "steps"


def saved_steps(out: Path) -> list[int]:
    """Steps there is a checkpoint of, newest first."""
    folder = steps_folder(out)
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in found if re.fullmatch(r"\d{8}", name)), reverse=True)


def newest_step(out: Path) -> int:
    """Steps behind the newest checkpoint; 0 without one."""
    return max(saved_steps(out), default=0)


def save_step(
    out: Path,
    *,
    model: GLoT,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    body: dict[str, Any],
    features: dict[str, Any],
    step: int,
    progress: dict[str, Any],
) -> None:
    """Saves what going on behind ``step`` steps needs. ``progress``: plain values of the training loop."""
    folder = steps_folder(out) / f"{step:08d}"
    state = {"step": step, **progress}
    save_checkpoint(
        folder,
        model=model,
        recipe=recipe,
        body=body,
        features=features,
        metrics={},
        step=step,
        beside=lambda unfinished: save_training_state(unfinished, model=model, optimiser=optimiser, progress=state),
    )
    for old in saved_steps(out)[KEPT:]:
        shutil.rmtree(steps_folder(out) / f"{old:08d}", ignore_errors=True)


def resume(out: Path, *, model: GLoT, optimiser: torch.optim.Optimizer, quiet: bool = False) -> dict[str, Any]:
    """Puts model and optimiser where the newest readable checkpoint has them and returns its progress; {} without one.

    One that is damaged is said and passed over. InputError if all of them are: starting over is not for us to decide.
    """
    steps = saved_steps(out)
    for step in steps:
        folder = steps_folder(out) / f"{step:08d}"
        try:
            return load_training_state(folder, model=model, optimiser=optimiser)
        except InputError as error:
            if not quiet:
                print(f"warning: {error}; trying the checkpoint before it", file=sys.stderr, flush=True)
    if steps:
        raise InputError(f"{steps_folder(out)}: none of its checkpoints can be read; start over with --fresh")
    return {}
