"""An epoch's number and the errors of the epochs before it in; its learning rate out.

The rate is for the batch of all workers together (``data.batch_size``), and does not depend on their number.
"""

import math
from collections.abc import Mapping, Sequence

from glot.config import Recipe
from glot.training.run_state import BEST_BY

FACTOR = 0.1  # of the rate, where the error stays on a plateau
THRESHOLD = 1e-4  # part of the smallest error so far by which an epoch must be better


class LearningRate:
    """The rate of every epoch. ``history``: the metrics of the epochs that are done, in order."""

    def __init__(self, recipe: Recipe, history: Sequence[Mapping[str, float]] = ()) -> None:
        self.recipe, self.errors = recipe, [row.get(BEST_BY, math.inf) for row in history]

    def validated(self, errors: Mapping[str, float]) -> None:
        """Takes note of an epoch's errors. Every worker has to call it, with the same errors."""
        self.errors.append(errors.get(BEST_BY, math.inf))

    def __call__(self, epoch: int) -> float:
        """The rate of an epoch (0-based) that is at most the next one."""
        if self.recipe.schedule == "plateau":
            return self.recipe.lr * FACTOR ** plateaus(self.errors[:epoch], patience=self.recipe.patience)
        return cosine_rate(self.recipe, epoch)


def cosine_rate(recipe: Recipe, epoch: int) -> float:
    """Linear from a tenth to the maximum over the warm-up, then a cosine back to a tenth."""
    low, span, warmup = recipe.lr / 10, recipe.lr * 9 / 10, recipe.warmup_epochs
    if epoch < warmup:
        return low + span * epoch / warmup
    return low + span * (1 + math.cos(math.pi * (epoch - warmup) / (recipe.epochs - warmup))) / 2


def plateaus(errors: Sequence[float], *, patience: int) -> int:
    """How often the rate has been divided, by the rule of torch's ReduceLROnPlateau with its defaults.

    Epochs that were not validated (infinite) do not count.
    """
    best, worse, found = math.inf, 0, 0
    for error in filter(math.isfinite, errors):
        if error < best * (1 - THRESHOLD):
            best, worse = error, 0
        else:
            worse += 1
        if worse > patience:
            worse, found = 0, found + 1
    return found
