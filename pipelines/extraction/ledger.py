"""What became of each unit: records beside the parts of a set, and the settings that the set was started with.

A unit is done when its record is there. The record is written after the part, and each appears only when it is whole.
So after any interruption the next run finds whole units, does the missing ones, and the rows are the same.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.features.schema import MANIFEST, READABLE, SCHEMA_VERSION
from glot.location import write_json
from pipelines.decoders.clips import Unit
from pipelines.sets.lease import hold

RECORDS = ".extraction"  # folder of records beside the parts
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Record:
    """What became of a unit. ``part`` is {name, rows, tracks, bytes}, or None if the unit has no row."""

    unit: str
    sources: list[dict[str, Any]]
    part: dict[str, Any] | None
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)  # {what, reason, frames}


def write_record(folder: Path, record: Record) -> None:
    """Marks the record's unit as done."""
    write_json(folder / RECORDS / f"{record.unit}.json", asdict(record))


def note_of(folder: Path, unit: Unit, run: str) -> Path:
    """The path from which ``tries`` names the notes that count the tries of a unit in one run of the command."""
    return folder / RECORDS / f"{unit.name}.try-{run}"


@contextmanager
def open_set(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Holds the folder for one run at a time. Starts a set with ``settings``, or checks that it was started with them.

    ``settings`` = {dataset, split, backbone, crop, body, ...}. InputError if another run is at work in the folder, or
    if the set in it was made by another tool or with other settings.
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
    """The records of the units that are done, by name.

    A unit is done if it has a record and the part that the record names. It is not done if something in it was skipped
    and its sources have changed since. InputError if nothing was skipped and the sources have changed, or if the folder
    holds a unit that is not among ``units``.
    """
    done = {}
    by_name = {unit.name: unit for unit in units}
    for path in sorted((folder / RECORDS).glob("*.json")):
        if path.name == SETTINGS:
            continue
        record = Record(**json.loads(path.read_text()))
        remedy = "give another --out, or remove this folder to extract everything again"
        if record.unit not in by_name:
            raise InputError(f"{folder}: holds {record.unit}, which is no longer in the source; {remedy}")
        if record.sources != list(by_name[record.unit].sources):
            if not record.skipped:
                raise InputError(f"{folder}: the files of {record.unit} have changed since it was extracted; {remedy}")
            continue
        part = record.part
        if part and (not (folder / part["name"]).is_file() or (folder / part["name"]).stat().st_size != part["bytes"]):
            continue
        done[record.unit] = record
    return done


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / RECORDS / SETTINGS
    settings = {**settings, "schema_version": SCHEMA_VERSION}
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        before = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable; remove {folder} and extract again") from None
    if before.get("schema_version") in READABLE:  # parts of before are parts of today's sets, too
        before["schema_version"] = SCHEMA_VERSION
    for key, new in settings.items():
        old = before.get(key)
        if _identity(old) != _identity(new):
            old_text, new_text = _differences(old, new)
            raise InputError(
                f"{folder}: started with {key} {old_text}, but this command has {new_text}; give another --out, or "
                "delete the folder"
            )


def _identity(value: Any) -> Any:
    """What must be equal. If there is a hash, it is the hash alone, because a file may be moved or renamed."""
    return value["hash"] if isinstance(value, dict) and "hash" in value else value


def _differences(old: Any, new: Any) -> tuple[str, str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return str(old), str(new)
    keys = [key for key in new if old.get(key) != new[key]]
    old_text, new_text = (", ".join(f"{key} {value.get(key)}" for key in keys) for value in (old, new))
    return old_text, new_text
