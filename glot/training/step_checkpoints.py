"""The checkpoints that an interrupted run continues from: OUT/steps/<step>/. The newest two are kept."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from glot.config import Recipe
from glot.errors import InputError, raise_if_passing
from glot.location import remove_temporaries, temporary_of
from glot.models.checkpoint import load_training_state, save_checkpoint, save_training_state
from glot.models.temporal_model import TemporalModel
from glot.training.adversary import Adversary

PROBE_BYTES = 1 << 20  # a disk that has no room for so little is full
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


@contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """Within it, the checkpoint ``folder`` is saved. NotNowError where its disk does not take it, e.g. a full one.

    torch and safetensors give no OSError, so the disk is asked. What was written of the checkpoint is removed.
    """
    try:
        yield folder
    except (OSError, RuntimeError, SafetensorError) as error:
        refused = error if isinstance(error, OSError) else refusal_of(folder.parent)
        remove_temporaries(folder)
        if refused is not None:
            raise_if_passing(refused, folder)
        raise


def refusal_of(folder: Path) -> OSError | None:
    """The error with which a folder's disk refuses a small file now; None if it takes it."""
    probe = temporary_of(folder / "probe")
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, PROBE_BYTES)
    except OSError as error:
        return error
    finally:
        probe.unlink(missing_ok=True)
    return None


def recover(out: Path) -> None:
    """Tidies up after a killed save in the folder of a run. Only for the process that holds the folder.

    A checkpoint is replaced by two renames. If the process was killed between them, the earlier checkpoint comes back;
    the steps after it are done again.
    """
    steps = steps_folder(out)
    names = {match[1] for path in steps.glob(".????????.*") if (match := re.match(r"\.(\d{8})\.", path.name))}
    for folder in (out / "best", out / "last", *(steps / name for name in names)):
        earlier = sorted(folder.parent.glob(f".{folder.name}.*.old"), key=lambda path: path.stat().st_mtime)
        if earlier and not folder.exists():
            os.replace(earlier[-1], folder)
        remove_temporaries(folder)
    remove_temporaries(steps / "probe")


def save_step(
    out: Path,
    *,
    model: TemporalModel,
    optimiser: torch.optim.Optimizer,
    adversary: Adversary | None = None,
    recipe: Recipe,
    body: dict[str, Any],
    features: dict[str, Any],
    step: int,
    progress: dict[str, Any],
) -> None:
    """Saves what a run needs to continue after ``step`` steps. ``progress``: plain values of the training loop."""
    state = {"step": step, **progress}
    with saving(steps_folder(out) / f"{step:08d}") as folder:
        save_checkpoint(
            folder,
            model=model,
            recipe=recipe,
            body=body,
            features=features,
            metrics={},
            step=step,
            beside=lambda unfinished: save_training_state(
                unfinished,
                model=model,
                optimiser=optimiser,
                progress=state,
                adversary=adversary.state() if adversary else None,
            ),
        )
    for old in saved_steps(out)[KEPT:]:
        shutil.rmtree(steps_folder(out) / f"{old:08d}", ignore_errors=True)


def resume(
    out: Path,
    *,
    model: TemporalModel,
    optimiser: torch.optim.Optimizer,
    adversary: Adversary | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Loads the newest readable checkpoint and returns its progress; {} without a checkpoint.

    A damaged checkpoint is skipped, with a warning unless ``quiet``. Raises InputError if all are damaged, because the
    user has to decide whether to start over.
    """
    steps = saved_steps(out)
    for step in steps:
        folder = steps_folder(out) / f"{step:08d}"
        try:
            return load_training_state(
                folder, model=model, optimiser=optimiser, load_adversary=adversary.load if adversary else None
            )
        except InputError as error:
            if not quiet:
                print(f"warning: {error}; trying the checkpoint before it", file=sys.stderr, flush=True)
    if steps:
        raise InputError(f"{steps_folder(out)}: none of its checkpoints can be read; start over with --fresh")
    return {}
