"""A save that is cut anywhere, or that finds no room, leaves a checkpoint: the earlier one or the new one."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from glot.errors import NotNowError
from glot.human.body import load_body
from glot.models.checkpoint import load_checkpoint, save_checkpoint
from glot.models.glot import GLoT
from glot.recipes import recipe_named
from glot.training.loop import first_model
from glot.training.step_checkpoints import recover, saving
from tests.fixtures.full_disk import full_disk
from tests.fixtures.interruptions import Interrupted, interrupted_at
from tests.glot.training.test_driver import SMALL

RECIPE = recipe_named("open_sample", [*SMALL, "model.feature_size=32"])


@pytest.fixture(scope="module")
def model() -> GLoT:
    return first_model(RECIPE, load_body())


def save(model: GLoT, folder: Path, *, step: int) -> None:
    """Saves it with a second file of the same size, which torch writes."""
    options: dict[str, Any] = {"body": {}, "features": {}, "metrics": {}, "recipe": RECIPE, "step": step}
    with saving(folder):
        save_checkpoint(
            folder, model=model, beside=lambda there: torch.save(model.state_dict(), there / "training.pt"), **options
        )


def steps_of(out: Path) -> dict[str, int]:
    """Name of a checkpoint -> its step. All of them can be read, and nothing else is there."""
    return {str(path.relative_to(out)): load_checkpoint(path).info["step"] for path in out.iterdir()}


@pytest.mark.parametrize("earlier", [True, False])
def test_a_cut_save_leaves_a_whole_checkpoint(model: GLoT, tmp_path: Path, earlier: bool) -> None:
    ends = set()
    for number in itertools.count(1):
        out = tmp_path / str(number)
        if earlier:
            save(model, out / "best", step=1)
        try:
            with interrupted_at(number):
                save(model, out / "best", step=2)
            break
        except Interrupted:
            recover(out)
        ends.add(steps_of(out).get("best"))
    assert ends == ({1, 2} if earlier else {None}) and number > 1


@pytest.mark.parametrize("fits", [0.2, 0.7])
def test_a_full_disk_is_not_now_and_the_earlier_checkpoint_stays(model: GLoT, tmp_path: Path, fits: float) -> None:
    """safetensors finds no room for its file, which is the first half of the checkpoint, or torch finds none."""
    save(model, tmp_path / "measured", step=1)
    size = sum(path.stat().st_size for path in (tmp_path / "measured").iterdir())
    with full_disk(tmp_path, megabytes=8) as (disk, fill):
        save(model, disk / "best", step=1)
        (disk / "room").write_bytes(bytes(int(fits * size)))
        with fill():
            (disk / "room").unlink()
            with pytest.raises(NotNowError, match="best: No space left on device"):
                save(model, disk / "best", step=2)
        assert steps_of(disk) == {"best": 1}


def test_a_mistake_of_ours_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ours"), saving(tmp_path / "best"):
        raise RuntimeError("ours")
    assert list(tmp_path.iterdir()) == []
