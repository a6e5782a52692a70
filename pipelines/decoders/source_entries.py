"""Files and folders of a dataset in; the entries of ``Unit.sources`` out, by which changes are noticed.

The entry of a file is {path below the root, bytes, modified (ns)}. That of a folder of pictures is {path, files,
modified (ns)}: the sizes of its pictures are read when the folder is planned, and not at every start.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.location import is_remote
from glot.people.files import is_changed
from pipelines.decoders.clips import Unit

Entry = Mapping[str, Any]
SETTLED_NS = 2_000_000_000  # a folder changed more recently may change again without another time


@dataclass(frozen=True)
class Before:
    """What is known from an earlier run about the sources of a split."""

    entries: Mapping[str, Entry] = field(default_factory=dict)  # by the path of the file or the folder
    # Names of units in which something could not be read. A picture that is replaced in place does not change the time
    # of its folder, so the pictures of these units are looked at one by one.
    suspects: Collection[str] = frozenset()
    tracks: Entry | None = None  # the entry of the JSON file that holds the boxes of all videos
    hashes: Mapping[str, str] = field(default_factory=dict)  # of each video's boxes in it, by the video's path

    def is_same(self, entry: Entry) -> bool:
        known = self.entries.get(entry["path"])
        return known is not None and same_source(entry, known)


NOTHING = Before()


def same_source(one: Entry, other: Entry) -> bool:
    """Whether all that both entries know is equal. (Entries of older sets know less.)"""
    return one == other or all(one[key] == other[key] for key in one.keys() & other.keys())


def same_sources(ones: Sequence[Entry], others: Sequence[Entry]) -> bool:
    """Whether two units have the same files, unchanged."""
    return len(ones) == len(others) and all(
        one["path"] == other["path"] and same_source(one, other) for one, other in zip(ones, others, strict=True)
    )


def check_root(root: Path) -> None:
    """InputError where the dataset's folder does not exist, or is in an object store."""
    if is_remote(root):
        raise InputError(f"--root {root}: only videos are read from an object store; copy this dataset to a folder")
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")


def file_source(root: Path, path: str) -> dict[str, Any]:
    """The entry of a file; 0 bytes where it is missing."""
    try:
        status = (root / path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return {"path": path, "bytes": 0}
    if (root / path).is_file():
        return {"path": path, "bytes": status.st_size, "modified": status.st_mtime_ns}
    return {"path": path, "bytes": 0}


def pictures_source(
    root: Path, folder: str, is_picture: Callable[[str], object], before: Before = NOTHING, *, unit: str = ""
) -> dict[str, Any]:
    """The entry of a folder of pictures; 0 files where it is missing. ``is_picture`` decides by the name of a file.

    A folder that has not changed since ``before`` is not listed. If ``unit``, the name of its unit, is among the
    suspects, the entry also has "bytes", the sizes of all files in the folder.
    """
    try:
        modified = (root / folder).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return {"path": folder, "files": 0}
    known, suspect = before.entries.get(folder), unit in before.suspects
    if known is not None and known.get("modified") == modified and not suspect:
        return dict(known)
    files = size = 0
    with os.scandir(root / folder) as found:
        for picture in found:
            if is_picture(picture.name):
                files += 1
            size += picture.stat().st_size if suspect else 0
    entry: dict[str, Any] = {"path": folder, "files": files}
    if time.time_ns() - modified > SETTLED_NS:
        entry["modified"] = modified
    return {**entry, "bytes": size} if suspect else entry


def with_bytes(root: Path, unit: Unit) -> Unit:
    """The unit with the sizes of its files: each folder of pictures gets "bytes", the sum of all files in it."""
    sources = []
    for entry in unit.sources:
        if "files" in entry and "bytes" not in entry and (root / entry["path"]).is_dir():
            with os.scandir(root / entry["path"]) as found:
                entry = {**entry, "bytes": sum(file.stat().st_size for file in found)}
        sources.append(entry)
    return replace(unit, sources=tuple(sources))


def changed_source(root: Path, unit: Unit) -> str | None:
    """The file or the folder of a unit that is not as it was when it was planned; None if there is none.

    Files of boxes are not looked at, because the plan has their content. A source in a store has been opened with its
    entry; a copy of it on this machine stays as it was when it was planned.
    """
    sources = unit.sources[:1] if "boxes_in" in unit.facts else unit.sources
    for entry in sources:
        path = str(entry["path"])
        if is_remote(root):
            if is_changed(root / path, entry):
                return path
        elif "modified" in entry and not same_source(entry, _entry_now(root, entry)):
            return path
    return None


def _entry_now(root: Path, entry: Entry) -> Entry:
    path = str(entry["path"])
    if "#" in path and not (root / path).exists():
        path = path.rpartition("#")[0]  # S1/Seq1/annot.mat#0: a part of a file
    try:
        status = (root / path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return {"modified": None}
    return (
        {"modified": status.st_mtime_ns}
        if "files" in entry
        else {"modified": status.st_mtime_ns, "bytes": status.st_size}
    )


def unit_of_pictures(root: Path, file: Path, images: str, before: Before = NOTHING) -> Unit:
    """The unit of an annotation ``file`` and of the .jpg files in the folder ``images``, which may be missing.

    ``images`` is a path below ``root``.
    """
    annotation = file.relative_to(root).as_posix()
    pictures = pictures_source(root, images, lambda name: name.endswith(".jpg"), before, unit=file.stem)
    return Unit(file.stem, annotation, images, pictures["files"], (file_source(root, annotation), pictures))
