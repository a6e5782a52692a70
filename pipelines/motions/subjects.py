"""Names of clips, or the table in an npz file of clips, in; the person in each clip and its split out."""

import re
from pathlib import Path

import numpy as np

from glot.errors import InputError

TABLE = ("clips", "subjects", "splits")  # arrays of strings, one entry a clip
# "01_05" in "01_05", "subjects-01-01_05" and "01_05-walk": the fifth trial of CMU's subject 01.
TRIAL = re.compile(r"(?:^|[-_/ ])(\d{1,3})_(\d{2,3})[a-z]?(?=$|[-_ .])")

NUMBERED = re.compile(r"subject[-_ ]?(\d+)", re.IGNORECASE)  # "aiming1_subject3", as LAFAN's files are named


def subject_of(name: str) -> str:
    """Who moves in a clip, by its name: CMU's number, two digits or three, or "subject3"; "" if the name does not say.

    CMU does not say which of its numbers are the same person.
    """
    if found := TRIAL.search(name):
        return f"{int(found[1]):02d}"
    return f"subject{int(found[1])}" if (found := NUMBERED.search(name)) else ""


def read_table(file: Path, npz: np.lib.npyio.NpzFile) -> dict[str, tuple[str, str]]:
    """Clip -> (subject, split) of an npz file that has the arrays of TABLE; splits may be missing ("")."""
    if not set(TABLE[:2]) <= set(npz.files):
        return {}
    clips, subjects = (npz[key].astype(str).tolist() for key in TABLE[:2])
    splits = npz[TABLE[2]].astype(str).tolist() if TABLE[2] in npz.files else [""] * len(clips)
    if not len(clips) == len(subjects) == len(splits):
        raise InputError(f"{file}: 'clips', 'subjects' and 'splits' have different lengths; write one entry a clip")
    return {clip: (subject, split) for clip, subject, split in zip(clips, subjects, splits, strict=True)}
