"""Motion files and the names of their clips in; which clips are for training, validation and test out, by person.

Nobody is in two splits. Who moves in a clip is in the tables that some motion files have (arrays ``clips``,
``subjects`` and ``splits``), or in the clip's name (``01_05``: the fifth clip of CMU's subject 01; ``subject3``).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glot.errors import InputError

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
CMU_NAME = re.compile(r"(?:^|[-_/ ])(\d{1,3})_(\d{2,3})[a-z]?(?=$|[-_ .])")
NUMBERED = re.compile(r"subject[-_ ]?(\d+)", re.IGNORECASE)


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


def split_people(motions: Path, names: Iterable[str]) -> PeopleSplits:
    """The splits of the clips that ``load_motions(motions)`` has read, or of some of them.

    A table decides first, then CMU_SPLITS, then a hash of the person. Clips whose person is not known are in train,
    because the other splits promise people that training has not seen. Raises InputError for a table that has one
    person in two splits, and where a split would be empty.
    """
    table = read_tables(motions)
    clips: dict[str, list[str]] = {split: [] for split in SPLITS}
    people: dict[str, str] = {}
    left_out = []
    for name in sorted(names):
        if any(name == clip or name.endswith(f"-{clip}") for clip in LEFT_OUT):
            left_out.append(name)
            continue
        person, split = table.get(name, (person_of(name), ""))
        people[name] = person
        clips[split or split_of(person)].append(name)
    _check(motions, clips, people)
    return PeopleSplits({split: tuple(chosen) for split, chosen in clips.items()}, people, tuple(left_out))


def person_of(name: str) -> str:
    """Who moves in a clip, by its name: "01" in "01_05-walk", "subject3" in "aiming1_subject3"; "" if it has none."""
    if found := NUMBERED.search(name):
        return f"subject{int(found[1])}"
    return f"{int(found[1]):02d}" if (found := CMU_NAME.search(name)) else ""


def split_of(person: str) -> str:
    """The split of a person whom no table mentions."""
    if not person:
        return "train"
    for split, subjects in CMU_SPLITS.items():
        if person in subjects:
            return split
    place = int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") / 2**32
    return "train" if place < SHARES["train"] else "validation" if place < sum(SHARES.values()) else "test"


def read_tables(motions: Path) -> dict[str, tuple[str, str]]:
    """Clip, as ``load_motions`` names it -> (person, split) of all npz files with a table.

    Raises InputError for a table that is damaged.
    """
    table: dict[str, tuple[str, str]] = {}
    files = sorted(motions.rglob("*.npz")) if motions.is_dir() else [motions]
    for file in files:
        if file.suffix.lower() != ".npz":
            continue
        with np.load(file, allow_pickle=False) as npz:
            if not {"clips", "subjects", "splits"} <= set(npz.files):
                continue
            clips, subjects, splits = (npz[key].astype(str).tolist() for key in ("clips", "subjects", "splits"))
        if not len(clips) == len(subjects) == len(splits) or not set(splits) <= set(SPLITS):
            raise InputError(
                f"{file}: clips, subjects and splits must be as long, and splits one of {', '.join(SPLITS)}"
            )
        prefix = (
            file.relative_to(motions).with_suffix("").as_posix().replace("/", "-") + "-" if motions.is_dir() else ""
        )
        table.update({prefix + c: (p, s) for c, p, s in zip(clips, subjects, splits, strict=True)})
    return table


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
