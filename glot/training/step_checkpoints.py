"""The checkpoints that an interrupted run continues from: OUT/steps/<step>/. The newest two are kept."""

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

KEPT = 2  # the older checkpoint is used where the newest cannot be read


def steps_folder(out: Path) -> Path:
    """The folder of these checkpoints in the folder of a run."""
    return out / "steps"


def saved_steps(out: Path) -> list[int]:
    """The numbers of steps after which there is a checkpoint, newest first."""
    folder = steps_folder(out)
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in found if re.fullmatch(r"\d{8}", name)), reverse=True)


def newest_step(out: Path) -> int:
    """The number of steps that were done when the newest checkpoint was saved; 0 without a checkpoint."""
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
    """Saves what a run needs to continue after ``step`` steps. ``progress``: plain values of the training loop."""
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
    """Loads the newest readable checkpoint into model and optimiser and returns its progress; {} without a checkpoint.

    A damaged checkpoint is skipped, with a warning unless ``quiet``. Raises InputError if all are damaged, because the
    user has to decide whether to start over.
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
