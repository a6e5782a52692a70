"""The folder of local copies: which are there, which are in use, and room for one more; the least recently used go.

A copy is a folder with an index. Every process that reads or builds a copy has a shared lock on the index, and the
kernel frees it when that process ends, even if it is killed. A copy is removed only by a process that gets the index
for itself alone, and it is renamed first. So a copy that is removed is never one that is in use, and never half there.
"""

import json
import os
import re
import shutil
import socket
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from glot.errors import InputError, NotNowError
from glot.file_lock import alone, shared, turn
from glot.location import cache_bytes

INDEX = "index.json"
LIMIT_VARIABLE = "GLOT_FEATURE_CACHE_BYTES"  # bytes of all copies; where it is not set, see ``room_for``
ROOM = ".copies.lock"  # whose turn it is to remove copies or to take room
NAME = r"[0-9a-f]{16}-[0-9a-f]{8}-\d+"  # see local_copy
UNFINISHED = re.compile(rf"\.({NAME})\.(?:building|removing)-.+")


class HeldCopy:
    """A whole copy. As long as this object lives in a process, no process removes the copy."""

    here: "weakref.WeakSet[HeldCopy]" = weakref.WeakSet()  # those of this process

    def __init__(self, folder: Path, index: BinaryIO | None) -> None:
        """``index``: the open index, with its shared lock."""
        assert index is not None
        self.folder = folder
        self.place = _place(os.fstat(index.fileno()))
        weakref.finalize(self, index.close)
        self.here.add(self)


class Copy(NamedTuple):
    """A copy that is there, whole or damaged."""

    folder: Path
    bytes: int
    used: float  # when it was opened last, in seconds of time.time(); 0 without an index
    place: tuple[int, int] | None  # device and inode of the index; None without one


def copies(cache: Path) -> list[Copy]:
    """The copies in the folder ``cache``, the least recently used first; [] where there is no such folder."""
    found = []
    for folder in _listed(cache, NAME):
        with suppress(FileNotFoundError):  # removed meanwhile
            index = folder / INDEX
            facts = index.stat() if index.exists() else None
            used, place = (facts.st_mtime, _place(facts)) if facts else (0.0, None)
            found.append(Copy(folder, _size(folder)[0], used, place))
    return sorted(found, key=lambda copy: copy.used)


def hold(copy: Path) -> HeldCopy | None:
    """The copy in the folder ``copy``. None where there is none, or it is damaged."""
    index = shared(copy / INDEX)
    if index is None:
        return None
    if not _is_whole(copy):
        index.close()
        return None
    return HeldCopy(copy, index)


def count_as_used(copy: Path) -> None:
    """Makes the copy the most recently used one."""
    with suppress(OSError):  # a cache that may only be read
        os.utime(copy / INDEX)


def building_of(target: Path) -> Path:
    """The folder in which the copy ``target`` is built."""
    return target.with_name(f".{target.name}.building-{socket.gethostname()}-{uuid.uuid4().hex[:8]}")


def begun(building: Path) -> HeldCopy:
    """Makes the folder of an unfinished copy and holds it. Within ``room_for``."""
    building.mkdir()
    (building / INDEX).touch()
    return HeldCopy(building, shared(building / INDEX))


def write_index(building: Path, index: dict[str, Any]) -> None:
    """Writes what ``index_of`` returns; "bytes": the size of each file. It is written last, when all files are."""
    with (building / INDEX).open("w") as handle:
        json.dump(index, handle)
        handle.flush()
        os.fsync(handle.fileno())


def put_in_place(held: HeldCopy, target: Path) -> HeldCopy:
    """Gives a finished copy the name ``target``; the copy that has it already, if another machine was first."""
    try:
        os.rename(held.folder, target)
    except OSError:
        if there := hold(target):  # another machine with the same cache built the same copy first
            return there
        clear(target)  # somebody deleted some of its files, or the copy whose second name it is
        os.rename(held.folder, target)
    held.folder = target
    return held


def clear(target: Path) -> None:
    """Removes a damaged copy, or the second name of a copy."""
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)


def index_of(copy: Path) -> dict[str, Any]:
    """What the index of a copy says; {} where it cannot be read."""
    try:
        found = json.loads((copy / INDEX).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_whole(copy: Path) -> bool:
    """Whether every file that the index lists is there and has its size. The index is written last, then the rename."""
    try:
        sizes = index_of(copy)["bytes"].items()
        return all((copy / name).stat().st_size == size for name, size in sizes)
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def is_in_use(copy: Copy) -> bool:
    """Whether a process has the copy open, or that cannot be known."""
    lock = _unused(copy)
    if lock is not None:
        lock.close()
    return lock is None


@contextmanager
def room_for(needed: int, building: Path, *, what: str) -> Iterator[None]:
    """Makes room for a copy of ``needed`` bytes that will be built in the folder ``building``.

    Within it, no other process takes room: the caller makes the files there with their final lengths, which count from
    then on. Copies that nobody uses are removed, the least recently used first, until all copies together take at most
    $GLOT_FEATURE_CACHE_BYTES. If that is not set, until they take half of the disk space that they and the free space
    are; a copy that is needed may then take more, if it fits on the disk. What killed processes left is removed, too.

    InputError where the copy can never fit beside those that this process has open, NotNowError where it does not fit
    because of those of other processes; nothing is removed then. ``what`` is the copy's name in messages.
    """
    cache = building.parent
    with turn(cache / ROOM):
        taken, unwritten = _remove_left_over(cache, ours=building.name)
        there = copies(cache)
        used = taken + sum(copy.bytes for copy in there)
        free = shutil.disk_usage(cache).free - unwritten
        limit = cache_bytes(LIMIT_VARIABLE)
        kept = (free + used) // 2 if limit is None else limit
        with ExitStack() as locks:
            chosen = []
            for copy in there:
                if used + needed <= kept and needed <= free:
                    break
                lock = _unused(copy)
                if lock is None:
                    count_as_used(copy.folder)
                    continue
                locks.enter_context(lock)
                chosen.append(copy)
                used, free = used - copy.bytes, free + copy.bytes
            ours = {held.place for held in HeldCopy.here}
            others = used - sum(copy.bytes for copy in there if copy.place in ours)
            _check(cache, needed, what=what, used=used, others=others, free=free, limit=limit)
            gone = [_renamed(copy.folder) for copy in chosen]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        yield


def _check(cache: Path, needed: int, *, what: str, used: int, others: int, free: int, limit: int | None) -> None:
    """Raises an error if the copy does not fit beside the copies that stay. ``others``: bytes of other processes'."""
    wants = f"{cache}: {what} needs {needed / 1e9:.1f} GB"
    others_have = f"{others / 1e9:.1f} GB are in use by other processes"
    if limit is not None and used + needed > limit:
        allowed = f"copies may take {limit / 1e9:.1f} GB ({LIMIT_VARIABLE})"
        if used - others + needed > limit:
            raise InputError(f"{wants}, and {allowed}; allow more, with GLOT_CACHE on a disk that holds it")
        raise NotNowError(f"{wants}; {allowed}, and {others_have}; try again when these have ended, or allow more")
    if needed > free:
        if needed > free + others:
            raise InputError(f"{wants}, and {free / 1e9:.1f} GB are free; point GLOT_CACHE to a larger disk")
        raise NotNowError(f"{wants}, {free / 1e9:.1f} GB are free, and {others_have}; try again when these have ended")


def remove_unused(cache: Path) -> int:
    """Removes all copies that no process has open, and what killed processes left; the number of bytes."""
    if not cache.is_dir():
        return 0
    freed = 0
    with turn(cache / ROOM):
        before = sum(_size(folder)[0] for folder in _listed(cache, UNFINISHED.pattern))
        freed += before - _remove_left_over(cache)[0]
        for copy in copies(cache):
            if (lock := _unused(copy)) is not None:
                with lock:
                    gone = _renamed(copy.folder)
                shutil.rmtree(gone, ignore_errors=True)
                freed += copy.bytes
        _remove_left_over(cache)  # second names of the copies that are gone
    return freed


def _unused(copy: Copy) -> ExitStack | None:
    """Locks by which no other process can use the copy, or None where one does. A copy without an index is none."""
    lock = ExitStack()
    if copy.place is not None:
        index = alone(copy.folder / INDEX)
        if index is None:
            return None
        lock.enter_context(index)
    return lock


def _renamed(folder: Path) -> Path:
    """Gives a copy the name of one that is being removed. If this process is killed, the next one removes the rest."""
    gone = folder.with_name(f".{folder.name}.removing-{socket.gethostname()}-{uuid.uuid4().hex[:8]}")
    os.rename(folder, gone)
    return gone


def _remove_left_over(cache: Path, *, ours: str = "") -> tuple[int, int]:
    """Removes what killed processes left in the cache. The bytes of copies that are being built, and how many of these
    are not written yet.

    ``ours``: the folder's name of a copy that this process is going to build, so that no other process builds it.
    """
    taken = unwritten = 0
    for folder in _listed(cache, UNFINISHED.pattern):
        wanted = [folder / INDEX]
        if _name(folder.name) != _name(ours):
            wanted.append(cache / f".{_name(folder.name)}.lock")  # earlier code locks nothing else while it builds
        with ExitStack() as locks:
            found = [alone(path) for path in wanted if path.exists()]
            for file in found:
                locks.enter_context(file or nullcontext())
            if all(found):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                size, written = _size(folder)
                taken, unwritten = taken + size, unwritten + max(0, size - written)
    for path in cache.iterdir():
        if re.fullmatch(NAME, path.name) and path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)  # a second name of a copy that is gone
        elif re.fullmatch(rf"\.{NAME}\.lock", path.name) and (turns := alone(path)):
            with turns:
                path.unlink(missing_ok=True)
    return taken, unwritten


def _name(unfinished: str) -> str:
    match = UNFINISHED.fullmatch(unfinished)
    return match[1] if match else ""


def _listed(cache: Path, pattern: str) -> list[Path]:
    """The folders in ``cache`` with such a name; links are left out."""
    if not cache.is_dir():
        return []
    with os.scandir(cache) as entries:
        return [Path(e.path) for e in entries if re.fullmatch(pattern, e.name) and e.is_dir(follow_symlinks=False)]


def _size(folder: Path) -> tuple[int, int]:
    """The bytes of the files in a folder, and how many of them are on the disk."""
    size = written = 0
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                facts = path.stat()
                size, written = size + facts.st_size, written + facts.st_blocks * 512
    return size, written


def _place(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
