"""A set that earlier code has begun or finished in; the same set as a plan, outcomes and packed parts out.

Earlier code kept a record for each source, ``.extraction/NAME.json``, and its rows in a part of their own. A source is
taken over if it has not changed since and its rows are there. All others are planned and extracted like new ones.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glot.features.schema import MANIFEST
from glot.location import file_hash
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.source_entries import same_sources, with_bytes
from pipelines.decoders.video_boxes import boxes_of, hash_of, is_shared
from pipelines.jobs.bookkeeper import DAMAGED, DONE
from pipelines.jobs.job_progress import say
from pipelines.sets.outcomes import Outcome, merge
from pipelines.sets.packed import Packed, write_packed
from pipelines.sets.plan_file import FOLDER, written_plan
from pipelines.sets.settings import RECORDS, SETTINGS, read_file, remove_files

UNKNOWN = "an earlier version"  # of the code, where no manifest names it


@dataclass(frozen=True)
class _Record:
    """What earlier code wrote of a source. ``part`` is {name, rows, tracks, bytes}, or None if it has no row."""

    unit: str
    sources: list[dict[str, Any]]
    part: dict[str, Any] | None
    counts: dict[str, int]
    skipped: list[dict[str, Any]]


def continue_earlier(folder: Path, decoder: Decoder, root: Path, split: str, files: Mapping[str, int]) -> bool:
    """Takes over what earlier code did in ``folder``; returns whether there was anything.

    ``files`` is ``list_set(folder)``, which is out of date afterwards. The folder must be held (``open_set``). If this
    is interrupted, the next call does it again.
    """
    records = earlier_records(files)
    if not records:
        return False
    if not any(name.startswith(f"{RECORDS}/{FOLDER}/") for name in files):
        found = decoder.find(root, split)
        _take_over(folder, found, list(_read(folder, records)), files, decoder.tracks, root)
    notes = [name for name in files if name.startswith(f"{RECORDS}/") and ".try-" in name]  # of tries
    remove_files(folder, [*records, *notes])
    return True


def earlier_records(files: Iterable[str]) -> list[str]:
    """The records of earlier code among the files of a set."""
    places = ((name, *name.rpartition("/")[::2]) for name in files)
    return [name for name, place, file in places if place == RECORDS and file.endswith(".json") and file != SETTINGS]


def _read(folder: Path, names: Sequence[str]) -> Iterable[_Record]:
    for name in names:
        try:
            yield _Record(**json.loads(read_file(folder / name)))
        except (ValueError, TypeError):
            say(f"{folder / name}: not readable; this source is extracted again")


def _take_over(
    folder: Path,
    found: Sequence[Unit],
    records: Sequence[_Record],
    files: Mapping[str, int],
    tracks: Path | None,
    root: Path,
) -> None:
    numbers = {found[number].name: number for number in range(len(found))}
    there = [record for record in records if record.unit in numbers and _has_rows(record, files)]
    boxes = _Boxes(tracks, [found[number].images for number in range(len(found))])
    units, outcomes, parts = [], dict[str, Outcome](), []
    code = code_of(folder, files)
    for record in sorted(there, key=lambda record: numbers[record.unit]):
        unit = _unit(record, found[numbers[record.unit]], boxes, root)
        if unit is None:
            continue
        id = f"0000/{unit.key}"
        units.append(unit)
        kind = DAMAGED if record.part is None and record.skipped else DONE
        outcomes[id] = Outcome(id, kind, record.part, record.counts, record.skipped, unit.frames, code)
        if record.part:
            parts.append({**record.part, "units": [(id, record.part["rows"], record.part["bytes"])], "split": {}})
    write_packed(folder, Packed.of(-1, parts))
    merge(folder, outcomes, files)
    with written_plan(folder, 0, {}) as plan:  # last: it says that the set has been taken over
        for number, unit in enumerate(units):
            plan.add(unit, number)
    _say(folder, len(units), len(records), sum(outcome.kind == DAMAGED for outcome in outcomes.values()))


def _say(folder: Path, taken: int, records: int, damaged: int) -> None:
    others = f", {records - taken} have changed or have no rows any more and are done again" if taken < records else ""
    say(f"{folder}: continues a set of earlier code: {taken} of {records} sources are taken over{others}")
    if damaged:
        say(f"{folder}: earlier code skipped {damaged} of them, perhaps by a fault that passed; --retry-skipped tries "
            "them again")  # fmt: skip


def _has_rows(record: _Record, files: Mapping[str, int]) -> bool:
    return record.part is None or files.get(record.part["name"]) == record.part["bytes"]


class _Boxes:
    """The boxes of people in today's entries, where one file holds those of many videos.

    Earlier code noted the hash of the whole file. If the file is the same, the boxes of each video are.
    """

    def __init__(self, tracks: Path | None, videos: Sequence[str]) -> None:
        self.name = tracks.name if tracks is not None and is_shared(tracks) else None
        self.hash = file_hash(tracks) if tracks is not None and self.name else ""
        self.hashes = (
            {video: hash_of(boxes) for video, boxes in boxes_of(videos, tracks)}
            if tracks is not None and self.name
            else {}
        )

    def entries(self, video: str, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The ``entries`` of a record as they are written today; those of a file that changed get no hash that fits."""
        out = []
        for entry in entries:
            if "hash" in entry and entry["path"] == self.name:
                same = entry["hash"] == self.hash
                entry = {"path": entry["path"], "hash": self.hashes.get(video, "") if same else "changed"}
            elif "hash" in entry:  # a file for one video is compared by its size and time
                entry = {"path": entry["path"], "bytes": entry["bytes"]}
            out.append(entry)
        return out


def _unit(record: _Record, found: Unit, boxes: _Boxes, root: Path) -> Unit | None:
    """The unit of today for the record's source; None if the source has changed."""
    found = with_bytes(root, found)
    today = [
        {**entry, "hash": boxes.hashes.get(found.images, "")} if entry["path"] == boxes.name else entry
        for entry in found.sources
    ]
    before = boxes.entries(found.images, record.sources)
    if not same_sources(before, today):
        return None
    frames = found.frames or record.counts.get("frames", 0)
    return replace(found, sources=tuple(today), frames=frames, facts={}, boxes=None)


def code_of(folder: Path, files: Mapping[str, int]) -> str:
    """The version of the code that made a set of before; it is known if the set is finished."""
    if MANIFEST not in files:
        return UNKNOWN
    try:
        return str(json.loads(read_file(folder / MANIFEST))["code_version"]) or UNKNOWN
    except (ValueError, KeyError, TypeError):
        return UNKNOWN
