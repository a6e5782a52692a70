"""A folder or a URI of an object store in; its videos out, each as one whole unit. No video is opened."""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, overload
from urllib.parse import quote

from glot.errors import InputError, NotNowError
from glot.location import is_remote
from glot.people.versions import version_of
from glot.people.video import VIDEOS
from glot.retries import retried
from pipelines.decoders.clips import Unit
from pipelines.decoders.video_boxes import PlannedBoxes

LONGEST_NAME = 150  # bytes of a unit's name
FEW_NAMES = 3  # files that a message names
MOST_ENDINGS = 8  # endings that a message counts


class File(NamedTuple):
    """A file below the root. ``change`` is its time (ns) in a folder, and its ETag in a store."""

    path: str
    bytes: int
    change: int | str


class VideoFiles(Sequence[Unit]):
    """The videos below a root in the order of their paths. A unit is made when it is read: a million fit in memory.

    ``note`` says in one line which files are no videos, "" where there are none. ``boxes`` is what the plan notes of
    their boxes.
    """

    def __init__(self, files: Sequence[File], note: str = "") -> None:
        self.files, self.note = files, note
        self.names = unit_names([file.path for file in files])
        self.boxes = PlannedBoxes({}, {})

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        file = self.files[index]
        changed = "etag" if isinstance(file.change, str) else "modified"
        entry = {"path": file.path, "bytes": file.bytes, changed: file.change}
        boxes = self.boxes.entries.get(file.path)
        sources = (entry, boxes) if boxes else (entry,)
        facts = self.boxes.facts.get(file.path, {})
        return Unit(self.names[index], file.path, file.path, 0, sources, facts=facts)


def list_videos(root: Path) -> VideoFiles:
    """The videos at any depth below ``root``. InputError if it is no folder, or if there are none.

    Linked folders are listed, too. A folder that can be reached in several ways is listed once.
    """
    if not is_remote(root):
        if root.is_file():
            raise InputError(f"--root {root}: is a file; give the folder that contains it")
        if not root.is_dir():
            raise InputError(f"--root {root}: there is no such folder")
    videos: list[File] = []
    others: list[File] = []
    for file in _stored(root) if is_remote(root) else _below(root):
        (videos if _ending(file.path) in VIDEOS else others).append(file)
    if not videos:
        there = f"; {_note(others)}" if others else ""
        raise InputError(f"--root {root}: no videos in it ({', '.join(VIDEOS)}){there}")
    return VideoFiles(sorted(videos, key=lambda file: file.path.split("/")), _note(others))


def unit_names(paths: Sequence[str]) -> list[str]:
    """Names of units that can be names of files, also on disks that take "a" and "A" for the same letter.

    A name is the quoted path. A long name, and one that differs only by case from an earlier one, ends in a hash.
    """
    names, taken = [], set()
    for path in paths:
        name = quote(path, safe=" ", errors="surrogateescape")
        if len(name) > LONGEST_NAME:  # file systems allow 255 bytes
            name = _hashed(name, path)
        if (key := name.casefold()) in taken:
            key = (name := _hashed(name, path)).casefold()
        taken.add(key)
        names.append(name)
    return names


def _hashed(name: str, path: str) -> str:
    digest = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{name[: LONGEST_NAME - 17]}-{digest}"


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _below(root: Path) -> Iterator[File]:
    """All files below a folder. Links to files count as files; those that lead nowhere do not."""
    seen: set[tuple[int, int]] = set()
    folders, linked = [""], deque[str]()  # links are followed last, so that a folder is listed under its own path
    while folders or linked:
        prefix = folders.pop() if folders else linked.popleft()
        try:
            place = _identity(os.stat(root / prefix))
            if place in seen:
                continue
            seen.add(place)
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    if entry.is_dir():
                        (linked if entry.is_symlink() else folders).append(f"{prefix}{entry.name}/")
                    elif entry.is_file():
                        status = entry.stat()
                        yield File(prefix + entry.name, status.st_size, status.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went while it was listed
        except OSError as error:
            # To pass it over would mean that its videos are gone.
            raise NotNowError(f"--root {root / prefix}: cannot be listed ({error.strerror or error})") from None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _stored(root: Path) -> Iterator[File]:
    """All files below a store's URI: one request for every thousand."""
    place = cast(Any, root)
    base = place.path.rstrip("/")
    try:
        found = retried(lambda: place.fs.find(base, detail=True), root, remote=True)
    except FileNotFoundError:
        return
    for name, details in found.items():
        path = name[len(base) :].lstrip("/")
        # Some tools mark a folder with an empty object whose name ends with a slash.
        if details.get("type") == "file" and path and not path.endswith("/"):
            yield File(path, *version_of(details))


def _note(others: Sequence[File]) -> str:
    """One line about the files that are no videos, such as "3 files are no videos: a.txt, ... (2 .txt, 1 .zip)"."""
    if not others:
        return ""
    names = sorted(file.path for file in others)
    endings = Counter(_ending(name) or "without an ending" for name in names)
    counted = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(MOST_ENDINGS))
    more = ", ..." if len(names) > FEW_NAMES or len(endings) > MOST_ENDINGS else ""
    files = "1 file is no video" if len(names) == 1 else f"{len(names)} files are no videos"
    shown = ", ".join(printable(name) for name in names[:FEW_NAMES])
    return f"{files}: {shown}{more} ({counted})"


def printable(name: str) -> str:
    """The name as it can be printed and stored: bytes that are no text are written as \\xff."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
