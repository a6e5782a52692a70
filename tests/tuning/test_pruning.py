"""Pruning: trials are compared with trials of earlier starts, and a trial that begins again is still the same one."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from glot.recipes import recipe_named
from tuning.outcomes import Attempt
from tuning.pruning import Pruner

RECIPE = recipe_named("open_sample", ["epochs=6"])
EPOCHS = 6


def trial(number: int, tune_id: str) -> Any:
    return SimpleNamespace(trial_id=tune_id, config={"attempt": asdict(Attempt(number, {"lr": 0.1}, 1))})


def rows(error: float, epochs: int = EPOCHS) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_pa_mpjpe": error} for epoch in range(1, epochs + 1)]


def epochs_until_stopped(pruner: Pruner, number: int, error: float, *, tune_id: str = "a", begun: bool = True) -> int:
    """How many epochs a trial trains."""
    one = trial(number, tune_id)
    if begun:
        pruner.on_trial_add(None, one)
    for row in rows(error):
        if pruner.on_trial_result(None, one, row) == TrialScheduler.STOP:
            return int(row["epoch"])
    pruner.on_trial_complete(None, one, rows(error)[-1] | {"outcome": "finished"})
    return EPOCHS


def test_a_trial_is_compared_with_those_of_an_earlier_start() -> None:
    """The decisions are those of a scheduler that heard of all trials itself; none has to be run again for that."""
    one = Pruner(RECIPE, {})
    heard = [epochs_until_stopped(one, number, error) for number, error in enumerate((50.0, 52, 60, 40))]
    earlier = {f"{number:03d}-seed1": rows(error, heard[number]) for number, error in enumerate((50.0, 52))}
    other = Pruner(RECIPE, earlier)
    assert [epochs_until_stopped(other, number, error) for number, error in ((2, 60.0), (3, 40.0))] == heard[2:]
    assert heard[2] < EPOCHS and heard[3] == EPOCHS and other.stopped == {"002-seed1"}


def test_a_trial_that_begins_again_counts_once_and_stays_stopped() -> None:
    pruner = Pruner(RECIPE, {"000-seed1": rows(50.0), "001-seed1": rows(51.0)})
    assert epochs_until_stopped(pruner, 2, 70.0) < EPOCHS
    assert epochs_until_stopped(pruner, 2, 70.0, tune_id="b") == 1  # its process was lost before the end was stored
    known = [len(recorded) for _, recorded in pruner._brackets[0]._rungs]
    first = trial(0, "c")
    pruner.on_trial_add(None, first)
    assert {pruner.on_trial_result(None, first, row) for row in rows(50.0)} == {TrialScheduler.CONTINUE}
    assert [len(recorded) for _, recorded in pruner._brackets[0]._rungs] == known
