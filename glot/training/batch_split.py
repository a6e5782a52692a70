"""A recipe and a number of workers in; how many windows of a step each worker gets, and whether that is sensible, out.

Nothing here imports torch.
"""

import math
from itertools import count

from glot.config import DataConfig, Recipe
from glot.errors import InputError

SMALL_SHARE = 32  # with fewer windows, most of a worker's time does not depend on their number
# The time of a step that does not depend on the number of windows, as a number of windows. Measured with one thread of
# an x86 core: a step of the paper's model takes 97 ms + 8.2 ms a window.
FIXED_CPU = 12


def windows_of_kinds(data: DataConfig) -> tuple[int, int]:
    """How many windows of 2D sets and of 3D sets a step has."""
    of_2d = int(data.batch_size * data.fraction_2d) if data.sets_2d else 0
    return of_2d, data.batch_size - of_2d


def check_split(data: DataConfig, workers: int, *, parts: int = 1) -> None:
    """InputError unless each of ``workers`` gets a window of each kind in each of the ``parts`` of its share of a step.

    The message names the most workers and the smallest batch that are possible.
    """
    kinds = windows_of_kinds(data)
    least = min(filter(None, kinds))
    if least >= workers * parts:
        return
    times = f" that take {parts} parts each" if parts > 1 else ""
    enough = next(size for size in count(data.batch_size) if _fits(data, size, workers * parts))
    remedies = [f"at most {least // parts} of them"] if least >= parts else []
    remedies += ["a smaller accumulate"] if parts > 1 else []
    remedies += [f"data.batch_size={enough}, with an lr for it"]
    raise InputError(
        f"data.batch_size={data.batch_size} is {kinds[0]} + {kinds[1]} windows of 2D and 3D sets: too few for "
        f"{workers} workers{times}; use {', or '.join(remedies)}"
    )


def _fits(data: DataConfig, size: int, wanted: int) -> bool:
    of_2d = int(size * data.fraction_2d) if data.sets_2d else 0
    return min(filter(None, (of_2d, size - of_2d)), default=0) >= wanted


def describe_split(recipe: Recipe, workers: int, *, gpus: bool) -> str:
    """What to tell the user, in one line or two: each worker's share of a step, and what to do where it is small."""
    size, lr, share = recipe.data.batch_size, recipe.lr, recipe.data.batch_size / workers
    line = f"{size} windows per step, {share:.3g} per worker"
    line += f"; lr up to {lr:g} for the whole batch, with any number of workers"
    if workers == 1 or share >= SMALL_SHARE:
        return line
    part, larger = efficiency(size, workers, gpus=gpus), SMALL_SHARE * workers
    steps = max(1, round(recipe.steps_per_epoch * size / larger))
    rates = f"{lr * larger / size:g} in proportion, {lr * math.sqrt(larger / size):.2g} by the root, {lr:g} as it is"
    search = "python -m tuning.search" + (" --gpus-per-trial 1" if gpus else "")
    return (
        f"{line}\n{share:.3g} are few: {workers} workers are about {part * workers:.1f} times as fast as one, "
        f"{part:.0%} of their speed. For more, --set data.batch_size={larger} --set steps_per_epoch={steps}, which "
        f"trains on as many windows, with a --set lr=... that you choose ({rates}); or search with one trial for each "
        f"of them, {search}"
    )


def efficiency(windows: int, workers: int, *, gpus: bool) -> float:
    """How fast ``workers`` take steps of so many ``windows``, as a part of ``workers`` times the speed of one.

    GPUs: a rule of thumb, not measured. A step launches more than a thousand kernels, however few windows it has, so
    that a GPU takes about as long for one window as for SMALL_SHARE.
    """

    def time(share: float) -> float:
        return max(share, SMALL_SHARE) if gpus else FIXED_CPU + share

    return time(windows) / (workers * time(windows / workers))
