"""The folder of a set: its files, the settings that the set was started with, and one run at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from glot.errors import InputError
from glot.features.schema import MANIFEST, READABLE, SCHEMA_VERSION
from glot.location import is_remote, list_folder, read_whole, write_whole
from glot.retries import retried
from pipelines.sets.lease import Lease, hold

RECORDS = ".extraction"  # folder of everything beside the parts and the manifest
SETTINGS = "settings.json"  # in RECORDS
LOCK = "lock"  # in RECORDS
IMPLIED = {"dtype": "float32"}  # settings that are written only where they are others


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
    found = retried(lambda: list_folder(folder, recursive=True), folder, remote=is_remote(folder), doing="listed")
    return {name: entry.bytes for name, entry in found.items()}


def read_file(path: Path) -> bytes:
    """The content of a file of a set. FileNotFoundError where it is missing; NotNowError where it cannot be read."""
    return retried(lambda: read_whole(path), path, remote=is_remote(path))


def write_file(path: Path, content: bytes) -> None:
    """Writes a file of a set in one step; errors as in ``written``."""
    written(path, lambda: write_whole(path, content))


def written(path: Path, write: Callable[[], None]) -> None:
    """Calls ``write``, which writes ``path`` in one step; on an object store again, if it fails in a way that may pass.

    On a disk, an OSError is raised at once, for the disk may be full. NotNowError where a store does not answer.
    """
    if is_remote(path):
        retried(write, path, remote=True, doing="written")
    else:
        write()


def remove_files(folder: Path, names: Sequence[str]) -> None:
    """Removes files below ``folder``; those that are gone already are no error. A store is asked once for 1,000."""
    if not is_remote(folder):
        for name in names:
            (folder / name).unlink(missing_ok=True)
    elif names:
        store, top = cast(Any, folder).fs, cast(Any, folder).path.rstrip("/")
        with suppress(FileNotFoundError):
            retried(lambda: store.rm([f"{top}/{name}" for name in names]), folder, remote=True, doing="cleaned up")


def _check_ours(folder: Path) -> None:
    if (folder / MANIFEST).exists() and not (folder / RECORDS).is_dir():
        raise InputError(f"{folder}: holds a feature set that was not extracted here; give another --out")


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / RECORDS / SETTINGS
    settings = {**settings, "schema_version": SCHEMA_VERSION}
    try:
        text = read_file(path)
    except FileNotFoundError:
        if is_remote(folder):
            _check_ours(folder)
        write_file(path, f"{json.dumps(settings, indent=1)}\n".encode())
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
    return (
        (value["hash"], value.get("dtype", IMPLIED["dtype"])) if isinstance(value, dict) and "hash" in value else value
    )


def _differences(old: Any, new: Any) -> tuple[str, str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return str(old), str(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    old_text, new_text = (
        ", ".join(f"{key} {value.get(key, IMPLIED.get(key))}" for key in keys) for value in (old, new)
    )
    return old_text, new_text
