"""Settings and the names of clips in, the sequences of a sample out: their splits, clips and first clips."""

import hashlib
from dataclasses import dataclass

import numpy as np

from glot.errors import InputError
from pipelines.motions.motion_clip import MotionClip
from pipelines.scenes.people_splits import SPLITS
from pipelines.scenes.spec import SampleSettings

# The shipped clips outside of train. The walks are nearly alike, so all of them are in test: nobody walks in train.
HELD_OUT = {
    "validation": ("jump", "punch"),
    "test": ("run", "walk", "walk_forward", *(f"walk_turn_{side}{i}" for side in ("left", "right") for i in (0, 1))),
}


@dataclass(frozen=True)
class PlannedSequence:
    """One sequence: its number and name, its split, the clips of that split, and the clip that it begins with."""

    index: int
    name: str
    split: str
    first: str
    clips: tuple[str, ...]


def split_clips(names: list[str], *, seed: int) -> dict[str, tuple[str, ...]]:
    """The clips of each split; no clip is in two splits. The splits of the shipped clips are fixed. Other clips are
    divided at random by the seed, 70/10/20. Raises InputError for fewer than three clips."""
    held_out = {name for clips in HELD_OUT.values() for name in clips}
    if held_out < set(names):
        splits = {split: tuple(n for n in names if n in HELD_OUT.get(split, ())) for split in SPLITS}
        return splits | {"train": tuple(n for n in names if n not in held_out)}
    if len(names) < 3:
        raise InputError(
            f"--motions holds {len(names)} clip(s); train, validation and test need one each, so at least 3"
        )
    order = [names[i] for i in np.random.default_rng([seed, 0]).permutation(len(names))]
    test, validation = max(1, round(0.2 * len(order))), max(1, round(0.1 * len(order)))
    return {
        "train": tuple(sorted(order[test + validation :])),
        "validation": tuple(sorted(order[test : test + validation])),
        "test": tuple(sorted(order[:test])),
    }


def plan_sequences(settings: SampleSettings, names: list[str]) -> list[PlannedSequence]:
    """The sequences of a sample, about 70/10/20 % in the splits. A split's sequences begin with its clips in turn."""
    clips = split_clips(names, seed=settings.seed)
    total = settings.sequences
    counts = {"test": max(1, round(0.2 * total)), "validation": max(1, round(0.1 * total)) if total > 2 else 0}
    counts["train"] = total - sum(counts.values())
    planned: list[PlannedSequence] = []
    for split in SPLITS:
        order = np.random.default_rng([settings.seed, 2]).permutation(len(clips[split]))
        for number in range(counts[split]):
            first = clips[split][order[number % len(order)]]
            name = f"{split}_{first}_{number:02d}".replace("/", "-").replace(" ", "-")
            planned.append(PlannedSequence(len(planned), name, split, first, clips[split]))
    return planned


def plan_bench(
    settings: SampleSettings, splits: dict[str, tuple[str, ...]], *, lengths: dict[str, int]
) -> list[PlannedSequence]:
    """The sequences of a bench, 80/6/14 % in the splits.

    If there are enough sequences, every clip begins one, and long clips begin more: ``lengths`` are frames.
    """
    counts = {"validation": round(0.06 * settings.sequences), "test": round(0.14 * settings.sequences)}
    counts["train"] = settings.sequences - sum(counts.values())
    planned: list[PlannedSequence] = []
    for split in SPLITS:
        clips, count = splits[split], max(counts[split], 1)
        rng = np.random.default_rng([settings.seed, 3, SPLITS.index(split)])
        firsts = [clips[i] for i in rng.permutation(len(clips))][:count]
        ends = np.cumsum([lengths[clip] for clip in clips])
        places = (np.arange(count - len(firsts)) + rng.random()) / max(count - len(firsts), 1) * ends[-1]
        firsts += [clips[i] for i in np.searchsorted(ends, places, side="right")]
        for number, first in enumerate(firsts):
            name = f"{split}_{number:04d}_{first}".replace("/", "-").replace(" ", "-")
            planned.append(PlannedSequence(len(planned), name, split, first, clips))
    return planned


def hash_of_clips(clips: dict[str, MotionClip]) -> str:
    """16 hexadecimal digits that identify the clips and their names."""
    digest = hashlib.sha256()
    for name in sorted(clips):
        digest.update(name.encode() + clips[name].poses.tobytes() + clips[name].trans.tobytes())
    return digest.hexdigest()[:16]
