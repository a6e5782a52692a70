"""A finished sample in; what it holds, how long its rendering took, and a hash of its files, out: summary.json."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from glot.human.safe_pickle import load_pickle
from glot.location import write_json
from pipelines.decoders.threedpw import FEWEST_VISIBLE, LIMBS_IN_2D, VISIBLE
from pipelines.scenes.people_splits import PeopleSplits
from pipelines.scenes.sequence import annotation_file, image_folder, seconds_of
from pipelines.scenes.sequence_plan import SPLITS, PlannedSequence

SUMMARY_FILE = "summary.json"


def write_summary(out: Path, planned: list[PlannedSequence], *, people: PeopleSplits | None) -> None:
    """Writes ``out``/summary.json.

    For each split: sequences, pictures, ``rows`` (frames of a person that extraction keeps), ``valid`` (rows whose
    camera is right), clips, and people as far as they are known. Then bytes, seconds of one core, the machine, and the
    hash that this prints in ``out``: `find imageFiles sequenceFiles -type f | LC_ALL=C sort | xargs sha256sum |
    sha256sum`
    """
    splits = {split: _split(out, [s for s in planned if s.split == split], people) for split in SPLITS}
    seconds = [seconds_of(out, sequence) for sequence in planned]
    known = [value for value in seconds if value is not None]
    sha256, size = hash_of_files(out)
    content: dict[str, Any] = {
        "splits": splits,
        **{key: sum(split[key] for split in splits.values()) for key in ("sequences", "pictures", "rows", "valid")},
        "bytes": size,
        # A run that was killed may have left sequences whose seconds nobody knows.
        "core_seconds": round(sum(known) * len(seconds) / len(known), 1) if known else None,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))},
        "sha256": sha256,
    }
    if people is not None:
        content |= {"left_out": list(people.left_out), "clips_of_unknown_people": people.unknown}
    write_json(out / SUMMARY_FILE, content)


def _split(out: Path, planned: list[PlannedSequence], people: PeopleSplits | None) -> dict[str, Any]:
    counts = {"sequences": len(planned), "pictures": 0, "rows": 0, "valid": 0}
    for sequence in planned:
        counts["pictures"] += len(os.listdir(image_folder(out, sequence)))
        record = load_pickle(annotation_file(out, sequence))
        for poses2d, valid in zip(record["poses2d"], record["campose_valid"], strict=True):
            kept = (poses2d[:, 2, LIMBS_IN_2D] > VISIBLE).sum(1) >= FEWEST_VISIBLE
            counts["rows"] += int(kept.sum())
            counts["valid"] += int((kept & (valid > 0)).sum())
    clips = planned[0].clips if planned else ()
    who = sorted({people.people[clip] for clip in clips} - {""}) if people else []
    return counts | {"clips": len(clips)} | ({"people": who} if people else {})


def hash_of_files(out: Path) -> tuple[str, int]:
    """The hash of all pictures and annotations by their names and contents, and their size in bytes."""
    digest, size = hashlib.sha256(), 0
    files = [file for folder in ("imageFiles", "sequenceFiles") for file in (out / folder).rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: os.fsencode(file.relative_to(out))):
        content = file.read_bytes()
        digest.update(f"{hashlib.sha256(content).hexdigest()}  {file.relative_to(out)}\n".encode())
        size += len(content)
    return digest.hexdigest(), size
