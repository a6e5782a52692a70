"""Clips with features in, a feature set folder out: parts and records as units finish, the manifest when all have.

A unit is done when its record is there; the record is written after its part, and each by one rename. So whatever is
killed, whenever: the next run finds whole units only, does the missing ones, and the rows are the same.
"""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import MANIFEST, SCHEMA_VERSION, Manifest, column, schema, write_manifest
from glot.location import is_remote, move_in, open_parquet, temporary_of, write_whole
from pipelines.decoders.clips import Clip, Unit
from pipelines.extraction.lease import hold

RECORDS = ".extraction"  # folder of records beside the parts
ROW_GROUP = 2048  # rows; a shorter track is one row group
WORDS = ["dataset", "split", "track_id", "image", "gender"]  # dictionary encoding is for these, not for features


@dataclass(frozen=True)
class Record:
    """What became of a unit. ``part`` is {name, rows, tracks, bytes}, or None where no row was left."""

    unit: str
    sources: list[dict[str, Any]]
    part: dict[str, Any] | None
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)  # {what, reason, frames}


def part_name(unit: Unit) -> str:
    return f"part-{unit.name}.parquet"


def write_part(
    folder: Path, unit: Unit, pieces: Iterable[tuple[Clip, NDArray]], *, dataset: str, split: str
) -> dict[str, Any] | None:
    """Writes a unit's rows, of which one piece is held at a time: clips with their (N, F) float32 features. A track may
    come in several pieces, one right behind the other. Returns its record; None, and no file, where not one row came.
    """
    path = folder / part_name(unit)
    # What goes to an object store is made on this machine first.
    temporary = temporary_of(Path(tempfile.gettempdir()) / path.name if is_remote(folder) else path)
    rows, tracks, last = 0, 0, None
    writer: pq.ParquetWriter | None = None
    try:
        for clip, values in pieces:
            if not len(clip):
                continue
            columns = schema(values.shape[1])
            if writer is None:
                writer = pq.ParquetWriter(temporary, columns, compression="zstd", use_dictionary=WORDS)
            table = _table(clip, values, columns, dataset=dataset, split=split)
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += len(clip)
            tracks += clip.track_id != last
            last = clip.track_id
        if writer is None:
            return None
        writer.close()
        size = temporary.stat().st_size
        move_in(temporary, path)
    finally:
        if writer is not None and writer.is_open:
            with suppress(OSError):  # of a full disk, which has been said
                writer.close()
        temporary.unlink(missing_ok=True)
    return {"name": path.name, "rows": rows, "tracks": tracks, "bytes": size}


def begin(folder: Path, unit: Unit, *, run: str, tries: int) -> bool:
    """Notes that a worker begins with a unit; False where ``tries`` of this ``run`` have begun and none came to an end.

    Ray starts a worker that died anew, with the unit it died on. Without this, a file that crashes a decoder would
    keep the whole job for ever.
    """
    for number in range(tries):
        note = folder / RECORDS / f"{unit.name}.try-{run}-{number}"
        if not note.exists():
            write_whole(note, f"{os.getpid()} on {socket.gethostname()}\n".encode())
            return True
    return False


def write_record(folder: Path, record: Record) -> None:
    _write_json(folder / RECORDS / f"{record.unit}.json", asdict(record))


@contextmanager
def open_set(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Holds the folder for one run at a time; starts it with ``settings``, or checks that it was started with them.

    ``settings`` = {dataset, split, backbone, crop, body, ...}. InputError where another run is at work in the folder,
    or it was made by another tool or with other settings.
    """
    records = folder / RECORDS
    if (folder / MANIFEST).exists() and not records.is_dir():
        raise InputError(f"{folder}: holds a feature set that was not extracted here; give another --out")
    records.mkdir(parents=True, exist_ok=True)
    with hold(records / "lock", folder):
        _check_settings(folder, settings)
        for leftover in [*folder.glob(".part-*"), *records.glob(".*.json.*"), *records.glob("*.try-*")]:
            leftover.unlink(missing_ok=True)
        yield


def finished(folder: Path, units: Sequence[Unit]) -> dict[str, Record]:
    """Records of the units that need no more work. A unit that lost something is redone once its sources have changed;
    one that was whole and now has other sources raises InputError, as does a unit that the source no longer has."""
    done = {}
    by_name = {unit.name: unit for unit in units}
    for path in sorted((folder / RECORDS).glob("*.json")):
        if path.name == "settings.json":
            continue
        record = Record(**json.loads(path.read_text()))
        remedy = "give another --out, or remove this folder to extract everything again"
        if record.unit not in by_name:
            raise InputError(f"{folder}: holds {record.unit}, which is no longer in the source; {remedy}")
        if record.sources != list(by_name[record.unit].sources):
            if not record.skipped:
                raise InputError(f"{folder}: {record.unit} was extracted from files of other sizes; {remedy}")
            continue
        part = record.part
        if part and (not (folder / part["name"]).is_file() or (folder / part["name"]).stat().st_size != part["bytes"]):
            continue
        done[record.unit] = record
    return done


def publish(folder: Path, units: Sequence[Unit], records: dict[str, Record], settings: dict[str, Any]) -> Manifest:
    """Checks the parts and writes the manifest, last. InputError, and no manifest, where not one row was extracted."""
    ordered = [records[unit.name] for unit in units]
    parts = [record.part for record in ordered if record.part]
    skipped = [entry for record in ordered for entry in record.skipped]
    if not parts:
        why = (
            f"; first reason: {skipped[0]['what']}: {skipped[0]['reason']}" if skipped else ": nobody is visible in it"
        )
        raise InputError(f"{folder}: nothing could be extracted from {len(units)} sequences{why}")
    for part in parts:
        with open_parquet(folder / part["name"]) as file:
            found = file.metadata.num_rows
        if found != part["rows"]:
            raise InputError(
                f"{folder / part['name']}: {found} rows, its record says {part['rows']}; remove the folder"
            )
    sources = []
    for record, unit in zip(ordered, units, strict=True):
        own = [dict(source) for source in record.sources]  # units may share an annotation file, each with its counts
        next(source for source in own if source["path"] == unit.annotation).update(record.counts)
        sources += own
    manifest = Manifest(
        dataset=settings["dataset"],
        split=settings["split"],
        rows=sum(part["rows"] for part in parts),
        tracks=sum(part["tracks"] for part in parts),
        backbone=settings["backbone"],
        crop=settings["crop"],
        body=settings["body"],
        parts=parts,
        sources=sources,
        skipped=skipped,
        code_version=code_version(),
    )
    write_manifest(folder, manifest)
    for note in (folder / RECORDS).glob("*.try-*"):
        note.unlink()
    for stray in set(folder.glob("part-*.parquet")) - {folder / part["name"] for part in parts}:
        stray.unlink()  # of a unit that lost all its rows in a second run; readers of part-*.parquet must not see it
    return manifest


def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout."""
    try:
        release = version("glot")
    except PackageNotFoundError:
        release = "not installed"
    try:
        here = Path(__file__).parent
        command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return f"{release} ({commit})" if commit else release


def _table(clip: Clip, features: NDArray, columns: pa.Schema, *, dataset: str, split: str) -> pa.Table:
    rows = len(clip)
    assert len(features) == rows
    values: dict[str, Any] = {
        "dataset": [dataset] * rows,
        "split": [split] * rows,
        "track_id": [clip.track_id] * rows,
        "image": list(clip.image),
        "fps": np.full(rows, clip.fps, np.float32),
        "crop_scale": np.full(rows, clip.crop_scale, np.float32),
        "gender": [clip.gender] * rows,
        "feature": features,
    }
    arrays = [column(values.get(field.name, getattr(clip, field.name, None)), field.type) for field in columns]
    return pa.table(arrays, schema=columns)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / RECORDS / "settings.json"
    settings = {**settings, "schema_version": SCHEMA_VERSION}
    if not path.is_file():
        _write_json(path, settings)
        return
    try:
        before = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable; remove {folder} and extract again") from None
    for key in settings:
        old, new = before.get(key), settings[key]
        if _identity(old) != _identity(new):
            old_text, new_text = _difference(old, new)
            raise InputError(
                f"{folder}: begun with {key} {old_text}, now asked for {new_text}; give another --out, or remove it"
            )


def _identity(value: Any) -> Any:
    """A file may move or be renamed: where there is a hash, it is what counts."""
    return value["hash"] if isinstance(value, dict) and "hash" in value else value


def _difference(old: Any, new: Any) -> tuple[str, str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return str(old), str(new)
    keys = [key for key in new if old.get(key) != new[key]]
    return tuple(", ".join(f"{key} {value.get(key)}" for key in keys) for value in (old, new))  # type: ignore[return-value]


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
