"""The folder of a set: the names in it, the settings that the set was started with, and one run at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.features.schema import MANIFEST, READABLE, SCHEMA_VERSION
from glot.location import is_remote, list_folder, read_whole, write_json
from pipelines.extraction.lease import Lease, hold

RECORDS = ".extraction"  # folder of everything beside the parts and the manifest
SETTINGS = "settings.json"  # in RECORDS
LOCK = "lock"  # in RECORDS


@contextmanager
def open_set(folder: Path, settings: dict[str, Any]) -> Iterator[Lease]:
    """Holds the folder for one run at a time. Starts a set with ``settings``, or checks that it was started with them.

    ``settings`` = {dataset, split, backbone, crop, body, ...}. InputError if another run is at work in the folder, or
    if the set in it was made by another tool or with other settings. Yields the lease.
    """
    records = folder / RECORDS
    if not is_remote(folder):
        _check_ours(folder)
        records.mkdir(parents=True, exist_ok=True)
    with hold(records / LOCK, folder) as lease:
        _check_settings(folder, settings)
        if not is_remote(folder):
            for leftover in [*folder.glob(".part-*"), *records.glob(".*"), *records.glob("*/.*")]:
                leftover.unlink(missing_ok=True)
        yield lease


def list_set(folder: Path) -> dict[str, int]:
    """The files of a set and their sizes in bytes, by their paths below ``folder``; empty where there is no folder.

    An object store is asked once for 1,000 files. Files that come or go meanwhile may be in the list or not.
    """
    return {name: entry.bytes for name, entry in list_folder(folder, recursive=True).items()}


def _check_ours(folder: Path) -> None:
    if (folder / MANIFEST).exists() and not (folder / RECORDS).is_dir():
        raise InputError(f"{folder}: holds a feature set that was not extracted here; give another --out")


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / RECORDS / SETTINGS
    settings = {**settings, "schema_version": SCHEMA_VERSION}
    try:
        text = read_whole(path)
    except FileNotFoundError:
        if is_remote(folder):
            _check_ours(folder)
        write_json(path, settings)
        return
    try:
        before = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable; remove {folder} and extract again") from None
    for key, new in settings.items():
        old = before.get(key)
        if key == "schema_version" and old in READABLE:
            continue  # parts of both versions can be in one set
        if _identity(old) != _identity(new):
            old_text, new_text = _differences(old, new)
            raise InputError(
                f"{folder}: started with {key} {old_text}, but this command has {new_text}; give another --out, or "
                "delete the folder"
            )


def _identity(value: Any) -> Any:
    """What must be equal. If there is a hash, it is the hash, because a file may be moved or renamed, and the dtype."""
    return (value["hash"], value.get("dtype")) if isinstance(value, dict) and "hash" in value else value


def _differences(old: Any, new: Any) -> tuple[str, str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return str(old), str(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    old_text, new_text = (", ".join(f"{key} {value.get(key)}" for key in keys) for value in (old, new))
    return old_text, new_text
