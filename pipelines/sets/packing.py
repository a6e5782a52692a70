"""Rows of finished units in, parts out: which units make a part, and the part itself.

A part holds whole sources, in the order of the plan. Only a source that is larger than a part is split over several.
Within a part the rows of a track are together, whatever ranges of the source they come from. A row group holds rows of
one track of one unit, so a part can be written again without some of its units.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from glot.errors import InputError
from glot.location import for_arrow, is_remote, open_parquet
from glot.retries import retried
from pipelines.sets.fragments import written_whole
from pipelines.sets.packed import Packed

PART_BYTES = 256 << 20  # bytes of features from which a part is full
MOST_BYTES = 512 << 20  # bytes of features from which a source is split over parts, each about PART_BYTES
NOTE = "glot"  # key in the footer of a part: {task, units, groups, tracks, split}


class UnitRows(NamedTuple):
    """Where the rows of a unit are."""

    id: str
    source: str
    rows: int
    bytes: int  # of its fragment
    file: str  # path below the set's folder: the fragment, or the part


@dataclass(frozen=True)
class PackTask:
    """A part to write."""

    name: str
    units: tuple[UnitRows, ...]  # in the order of the plan; a source's units follow each other
    split: bool = False  # whether the only source goes on in other parts
    there: bool = False  # whether there is a file of that name, perhaps this part, of a run that was interrupted


def plan_parts(units: Sequence[UnitRows], packed: Packed, *, row_bytes: int) -> tuple[list[str], list[PackTask]]:
    """The parts that stay as they are, and the parts to write, for ``units`` in the order of the plan.

    A part stays if all of its units are in ``units``, and no source has rows both in it and in something that is packed
    anew. ``row_bytes``: bytes of features in a row.
    """
    by_source: dict[str, list[UnitRows]] = {}
    for unit in units:
        by_source.setdefault(unit.source, []).append(unit)
    kept = _kept(units, by_source, packed)
    anew = [group for group in by_source.values() if group[0].file not in kept]
    name = f"part-{packed.publish + 1:04d}"
    tasks = [
        PackTask(f"{name}-{number:05d}.parquet", tuple(group), split)
        for number, (group, split) in enumerate(_groups(anew, row_bytes))
    ]
    return sorted(kept), tasks


def _kept(units: Sequence[UnitRows], by_source: dict[str, list[UnitRows]], packed: Packed) -> set[str]:
    found: dict[str, int] = {}
    for unit in units:
        found[unit.file] = found.get(unit.file, 0) + 1
    kept = {name for name, ids in packed.units.items() if len(ids) == found.get(name)}
    before = -1
    while before != len(kept):
        before = len(kept)
        for group in by_source.values():
            files = {unit.file for unit in group}
            if not files <= kept:
                kept -= files
    return kept


def _groups(sources: Sequence[list[UnitRows]], row_bytes: int) -> Iterator[tuple[list[UnitRows], bool]]:
    """The units of each part, and whether they are a piece of a source that is split."""
    part: list[UnitRows] = []
    size = 0
    for units in sources:
        more = row_bytes * sum(unit.rows for unit in units)
        if part and (size >= PART_BYTES or size + more > MOST_BYTES):
            yield part, False
            part, size = [], 0
        if more > MOST_BYTES:
            pieces = list(_split(units, -(-more // PART_BYTES)))
            yield from ((piece, len(pieces) > 1) for piece in pieces)
            continue
        part += units
        size += more
    if part:
        yield part, False


def _split(units: list[UnitRows], pieces: int) -> Iterator[list[UnitRows]]:
    """At most ``pieces`` pieces of about the same number of rows."""
    total = sum(unit.rows for unit in units)
    done, number, piece = 0, 1, list[UnitRows]()
    for unit in units:
        piece.append(unit)
        done += unit.rows
        if done * pieces >= number * total:
            yield piece
            piece = []
            number = done * pieces // total + 1


def pack_part(folder: Path, task: PackTask) -> dict[str, Any]:
    """Writes a part; one row group is in memory at a time.

    Returns {name, rows, tracks, bytes, units, split}: ``units`` = [[id, rows, bytes]], see ``PackedUnit``; ``split`` =
    {source: ids of its tracks} for a source that goes on in other parts. A part that an interrupted run has written is
    taken as it is. InputError if a file holds other rows than it should.
    """
    path = folder / task.name
    digest = hashlib.sha256(json.dumps([(u.id, u.rows, u.bytes) for u in task.units]).encode()).hexdigest()[:16]
    note, size = _found(path) if task.there else ({}, 0)
    if note.get("task") != digest or note.get("split_over") != task.split:
        note, size = _write(folder, task, digest)
    return {
        "name": task.name,
        "rows": sum(unit.rows for unit in task.units),
        "tracks": len(note["tracks"]),
        "bytes": size,
        "units": [[unit.id, unit.rows, unit.bytes] for unit in task.units],
        "split": {task.units[0].source: note["tracks"]} if task.split else {},
    }


def _write(folder: Path, task: PackTask, digest: str) -> tuple[dict[str, Any], int]:
    groups: list[int] = []  # number of the unit of each row group that was written
    tracks: list[str] = []
    numbers = {unit.id: number for number, unit in enumerate(task.units)}
    with tempfile.TemporaryDirectory(prefix="glot-pack-") as local, written_whole(folder / task.name) as out:
        files = _Files(folder, Path(local))
        for _, units in groupby(task.units, key=lambda unit: unit.source):
            by_track: dict[str, list[tuple[UnitRows, int]]] = {}
            for unit in units:
                for group, track in files.groups_of(unit):
                    by_track.setdefault(track, []).append((unit, group))
            for track, rows in by_track.items():
                tracks.append(track)
                for unit, group in rows:
                    out.write(files.read(unit.file, group))
                    groups.append(numbers[unit.id])
            files.forget_fragments()
        note = {
            "task": digest, "split_over": task.split, "units": list(numbers), "groups": groups, "tracks": tracks
        }  # fmt: skip
        out.note({NOTE: json.dumps(note)})
    return note, out.size


def _found(path: Path) -> tuple[dict[str, Any], int]:
    """What ``_write`` noted in the footer of the part at ``path``, and its bytes; empty where there is no such part."""

    def read() -> tuple[dict[str, Any], int]:
        with open_parquet(path) as file:
            return _read_note(file.metadata), path.stat().st_size

    try:
        return retried(read, path, remote=is_remote(path))
    except (FileNotFoundError, pa.ArrowInvalid):
        return {}, 0


def _read_note(footer: pq.FileMetaData) -> dict[str, Any]:
    return json.loads((footer.metadata or {}).get(NOTE.encode(), b"{}"))


class _Files:
    """Fragments and parts of a set, read row group by row group. Files of a store are copied to ``local`` first."""

    def __init__(self, folder: Path, local: Path) -> None:
        self.folder, self.local = folder, local
        self.footers: dict[str, pq.FileMetaData] = {}

    def groups_of(self, unit: UnitRows) -> list[tuple[int, str]]:
        """The numbers of the row groups that hold the unit's rows, each with its track."""
        footer = self._footer(unit.file)
        note = _read_note(footer)
        # Without a note the file is a fragment, or a part of before: it has the rows of one unit.
        number = note["units"].index(unit.id) if note else 0
        units = note["groups"] if note else [0] * footer.num_row_groups
        groups = [group for group, there in enumerate(units) if there == number]
        rows = sum(footer.row_group(group).num_rows for group in groups)
        if rows != unit.rows:
            raise InputError(
                f"{self.folder / unit.file}: {rows} rows of {unit.id}, but there should be {unit.rows}; remove this "
                "file and run the same command again"
            )
        return [(group, self._track(unit.file, group)) for group in groups]

    def read(self, name: str, group: int, columns: list[str] | None = None) -> pa.Table:
        """The rows of a row group."""
        with pq.ParquetFile(for_arrow(self._path(name)), metadata=self._footer(name)) as file:
            return file.read_row_group(group, columns=columns).replace_schema_metadata(None)

    def forget_fragments(self) -> None:
        """Removes what was read of fragments. Parts may be needed again."""
        for name in [name for name in self.footers if "/" in name]:
            del self.footers[name]
            if is_remote(self.folder):
                self._path(name).unlink()

    def _track(self, name: str, group: int) -> str:
        footer = self._footer(name)
        statistics = footer.row_group(group).column(footer.schema.names.index("track_id")).statistics
        if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
            return str(statistics.min)
        (track,) = self.read(name, group, ["track_id"])["track_id"].unique().to_pylist()
        return str(track)

    def _footer(self, name: str) -> pq.FileMetaData:
        if name not in self.footers:
            if is_remote(self.folder):
                place = cast(Any, self.folder / name)
                local = str(self._path(name))
                retried(lambda: place.fs.get_file(place.path, local), place, remote=True)
            self.footers[name] = pq.read_metadata(for_arrow(self._path(name)))
        return self.footers[name]

    def _path(self, name: str) -> Path:
        return self.local / name.replace("/", "-") if is_remote(self.folder) else self.folder / name
