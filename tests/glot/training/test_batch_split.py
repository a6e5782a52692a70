"""How the windows of a step are split between workers: what is refused, what is advised."""

from dataclasses import replace
from typing import Any

import pytest

from glot.config import DataConfig, Recipe
from glot.errors import InputError
from glot.recipes import recipe_named
from glot.training.batch_split import check_split, describe_split, efficiency, windows_of_kinds
from glot.training.spec import TrainSpec

PAPER = recipe_named("table1_3dpw")  # 38 + 26 windows


@pytest.mark.parametrize("data", [PAPER.data, DataConfig(batch_size=5), DataConfig(sets_2d=("a",), fraction_2d=0.9)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_remedies_of_a_refusal_are_enough_and_no_more_than_that(data: DataConfig, parts: int) -> None:
    least = min(kind for kind in windows_of_kinds(data) if kind)
    workers = least // parts
    if workers:
        check_split(data, workers, parts=parts)
    with pytest.raises(InputError, match=r"windows of 2D and 3D sets: too few for") as refused:
        check_split(data, workers + 1, parts=parts)
    message = str(refused.value)
    assert (f"use at most {workers} of them, or" in message) == bool(workers)
    assert ("accumulate" in message) == (parts > 1)
    enough = int(message.partition("data.batch_size=")[2].partition("data.batch_size=")[2].partition(",")[0])
    check_split(replace(data, batch_size=enough), workers + 1, parts=parts)
    with pytest.raises(InputError):
        check_split(replace(data, batch_size=enough - 1), workers + 1, parts=parts)


def test_eight_gpus_on_a_batch_of_64_are_told_what_is_sensible() -> None:
    first, second = describe_split(PAPER, 8, gpus=True).splitlines()
    assert first.startswith("64 windows per step, 8 per worker; lr up to 0.0001 for the whole batch")
    assert "8 are few: 8 workers are about 2.0 times as fast as one, 25% of their speed" in second
    # The advised settings give each worker a full share, of as many windows in all, with a rate that the user chooses.
    advised = recipe_named("table1_3dpw", ["data.batch_size=256", "steps_per_epoch=250", "lr=0.0004"])
    for setting in (
        "data.batch_size=256",
        "steps_per_epoch=250",
        "0.0004 in proportion, 0.0002 by the root, 0.0001 as",
    ):
        assert setting in second
    assert advised.steps_per_epoch * advised.data.batch_size == PAPER.steps_per_epoch * PAPER.data.batch_size
    assert "tuning.search --gpus-per-trial 1" in second
    assert "\n" not in describe_split(advised, 8, gpus=True)


@pytest.mark.parametrize(("recipe", "workers"), [(PAPER, 1), (PAPER, 2), (recipe_named("open_sample"), 1)])
def test_enough_windows_for_each_worker_get_no_advice(recipe: Recipe, workers: int) -> None:
    for gpus in (False, True):
        assert "\n" not in describe_split(recipe, workers, gpus=gpus)


@pytest.mark.parametrize("gpus", [False, True])
def test_efficiency_falls_with_the_share_and_more_workers_are_never_slower(gpus: bool) -> None:
    parts = [efficiency(64, workers, gpus=gpus) for workers in range(1, 33)]
    assert parts[0] == 1 and parts == sorted(parts, reverse=True) and parts[-1] < 0.4
    speeds = [workers * part for workers, part in enumerate(parts, 1)]
    assert all(after >= before * 0.999 for before, after in zip(speeds, speeds[1:], strict=False))
    assert efficiency(4096, 8, gpus=gpus) > 0.97


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 40}, "is 38 .* 26 windows of 2D and 3D sets: too few for 40 workers; use at most 26 of them"),
        ({"workers": 8, "settings": ("accumulate=4",)}, "8 workers that take 4 parts each; use at most 6 of them"),
    ],
)
def test_more_workers_than_windows_are_refused_before_anything_starts(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainSpec(recipe="table1_3dpw", **options)
