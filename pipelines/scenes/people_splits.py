"""Clips in; which of them are for training, validation and test out, by the people in them. Nobody is in two splits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glot.errors import InputError
from pipelines.motions.motion_clip import MotionClip

SPLITS = ("train", "validation", "test")
# Subjects of the CMU database whose split is fixed, so that all files made from it agree. 06, 08 and so on are, or may
# be, the people of the clips in LEFT_OUT.
CMU_SPLITS = {
    "train": ("01", "02", "03", "05", "85", "135"),
    "validation": ("09", "43", "88", "90", "131"),
    "test": ("06", "07", "08", "10", "11", "13", "14", "15", "16", "35", "49", "127", "139", "140"),
}
# The clips on which the cards of the shipped models report errors. Nobody trains on them.
LEFT_OUT = (
    *(f"basketball_signal-basketball_signal_{i}" for i in (1, 2)),
    "directing_traffic-directing_traffic_4",
    "jumping-jumping_2",
    *(f"walking-walking_{i}" for i in (4, 5)),
    *(f"walking_extra-walking_{i}" for i in (28, 31, 39, 45, 46, 47, 50, 51)),
)
SHARES = {"train": 0.75, "validation": 0.08}  # of the people whom no table puts into a split; the others are in test


@dataclass(frozen=True)
class PeopleSplits:
    """``clips``: the clips of each split. ``people``: who moves in each of them, "" where nobody knows. ``left_out``:
    clips of no split."""

    clips: dict[str, tuple[str, ...]]
    people: dict[str, str]
    left_out: tuple[str, ...]

    @property
    def unknown(self) -> int:
        """The number of clips of people whom nobody knows."""
        return sum(not person for person in self.people.values())

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that identify the splits."""
        rows = sorted(f"{split} {name} {self.people[name]}" for split, names in self.clips.items() for name in names)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def split_people(motions: Path, clips: Mapping[str, MotionClip]) -> PeopleSplits:
    """The splits of clips from ``motions``.

    The table of a file decides first, for all clips of its people; then CMU_SPLITS, then a hash of the person.
    Clips whose person is not known are in train, because the other splits promise people that training has not seen.

    Raises InputError for a table that
    has one person in two splits, and where a split would be empty.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    people: dict[str, str] = {}
    left_out = []
    tables = {clip.subject: clip.split for clip in clips.values() if clip.subject and clip.split}
    for name, clip in sorted(clips.items()):
        if any(name == other or name.endswith(f"-{other}") for other in LEFT_OUT):
            left_out.append(name)
            continue
        if clip.split not in ("", *SPLITS):
            raise InputError(f"--motions {motions}: {name} is in the split {clip.split!r}; give {', '.join(SPLITS)}")
        people[name] = clip.subject
        splits[clip.split or tables.get(clip.subject) or split_of(clip.subject)].append(name)
    _check(motions, splits, people)
    return PeopleSplits({split: tuple(names) for split, names in splits.items()}, people, tuple(left_out))


def split_of(person: str) -> str:
    """The split of a person whom no table mentions."""
    if not person:
        return "train"
    for split, subjects in CMU_SPLITS.items():
        if person in subjects:
            return split
    place = int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") / 2**32
    return "train" if place < SHARES["train"] else "validation" if place < sum(SHARES.values()) else "test"


def _check(motions: Path, clips: dict[str, list[str]], people: dict[str, str]) -> None:
    where: dict[str, str] = {}
    for split, names in clips.items():
        if not names:
            raise InputError(
                f"--motions {motions}: nobody for {split}; a bench needs several people, whom it knows by a table "
                "in an npz file (clips, subjects, splits) or by names like 01_05 (the fifth clip of subject 01)"
            )
        for name in names:
            if (person := people[name]) and where.setdefault(person, split) != split:
                raise InputError(f"--motions {motions}: {person} is in {where[person]} and, in {name}, in {split}")
