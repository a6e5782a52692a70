"""Copies of remote sources on this machine's disk, shared by its processes; the least recently used go first.

A copy is named after the source's URI, size and version, so a source that was replaced is never read from an old copy.
It gets its name only when it is whole. A copy that is removed while somebody reads it stays readable to the end.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from glot.location import cache_bytes, cache_folder
from glot.people.versions import Version
from glot.retries import ChangedError

LARGEST = 256 << 20  # bytes of a source that is copied; of a longer one, only the ranges that are read are fetched
LIMIT = 20 << 30  # bytes of all copies, where a tenth of the disk's free space is more
LIMIT_VARIABLE = "GLOT_SOURCE_CACHE_BYTES"  # bytes of all copies, instead of this rule
PARTIAL = ".part"  # suffix of a copy that is being made; its file is locked as long as somebody makes it


class _Unusable(Exception):
    """The cache cannot take this copy: no room, a full or read-only disk, or a disk without locks."""


def cached_copy(uri: str, version: Version, blocks: Callable[[], Iterable[bytes]] | None) -> BinaryIO | None:
    """An open local copy of a source. If there is none yet, it is made of ``blocks()``, the bytes in order.

    Any number of processes may ask at once: one copies, the others wait for it. None if the copy cannot be kept, or if
    there is none and ``blocks`` is None. Errors of ``blocks`` are raised as they are; ChangedError if its bytes are not
    as many as the version says, InputError if the variable that limits the cache is no number.
    """
    folder, size = _folder(), version.bytes
    if size > LARGEST or not version.mark:
        return None
    target = folder / hashlib.sha256(f"{uri}\n{size}\n{version.mark}".encode()).hexdigest()[:32]
    try:
        with _own_errors():
            folder.mkdir(parents=True, exist_ok=True)
        found = _opened(target, size)
        if found or not blocks:
            return found
        with _locked(target.with_suffix(PARTIAL)) as partial:
            if found := _opened(target, size):  # while we waited, another process made it
                return found
            _make_room(folder, size, partial)
            if (written := _write(partial, blocks())) != size:
                raise ChangedError(f"{uri}: changed while it was read ({written} bytes instead of {size})")
            with _own_errors():
                os.fsync(partial)  # a name without its bytes would look whole if the machine went down
                os.replace(target.with_suffix(PARTIAL), target)
            return _opened(target, size)
    except _Unusable:
        return None


@contextmanager
def _own_errors() -> Iterator[None]:
    """Marks errors of the cache's own disk, so that none is taken for one of the source."""
    try:
        yield
    except OSError as error:
        raise _Unusable from error


def _opened(target: Path, size: int) -> BinaryIO | None:
    with _own_errors():
        try:
            file = target.open("rb", buffering=0)
            os.utime(target)  # its last use
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size == size:
            return file
        file.close()
        target.unlink(missing_ok=True)
    return None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """An empty file at ``path``, opened and locked; waits while another process has it. Removed at the end."""
    with _own_errors():
        while True:
            partial = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(partial, fcntl.LOCK_EX)
            except OSError:
                os.close(partial)
                raise
            if _is_at(path, partial):
                break
            os.close(partial)  # the process that had it has given it its name, or has removed it
    try:
        yield partial
    finally:
        with suppress(OSError):
            if _is_at(path, partial):
                path.unlink()
        os.close(partial)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _make_room(folder: Path, size: int, partial: int) -> None:
    """Removes copies until ``size`` bytes more are allowed, and books these by giving ``partial`` its final length."""
    allowed = cache_bytes(LIMIT_VARIABLE)
    with _own_errors(), (folder / ".room").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(partial, 0)
        copies: list[tuple[float, int, Path]] = []  # last use, bytes, path
        used = 0
        for path in _files(folder):
            with suppress(FileNotFoundError):
                facts = path.stat()
                if path.suffix == PARTIAL:
                    used += 0 if _removed_if_left(path) else facts.st_size
                else:
                    copies.append((facts.st_mtime, facts.st_size, path))
                    used += facts.st_size
        free = shutil.disk_usage(folder).free
        if allowed is None:
            allowed = min(LIMIT, (free + used) // 10)
        if size > allowed:
            raise _Unusable
        for _, bytes_, path in sorted(copies):
            if used + size <= allowed and size <= free:
                break
            path.unlink(missing_ok=True)
            used, free = used - bytes_, free + bytes_
        if used + size > allowed or size > free:
            raise _Unusable
        os.ftruncate(partial, size)


def _removed_if_left(path: Path) -> bool:
    """Removes a partial copy that nobody has locked: the process that made it was killed."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
        return True


class Contents(NamedTuple):
    """What the cache holds: how many copies, their bytes, when one was used last, and how many are being made."""

    copies: int
    bytes: int
    used: float | None  # seconds of time.time(); None without copies
    making: int


def contents() -> Contents:
    """What is in the cache now. OSError where it cannot be read."""
    copies, size, used, making = 0, 0, None, 0
    for path in _files(_folder()):
        with suppress(FileNotFoundError):
            facts = path.stat()
            size += facts.st_size
            if path.suffix == PARTIAL:
                making += 1
            else:
                copies, used = copies + 1, max(used or 0.0, facts.st_mtime)
    return Contents(copies, size, used, making)


def remove_all() -> int:
    """Removes all copies but those that are being made; the number of bytes. A copy that is read now stays readable."""
    freed = 0
    for path in _files(_folder()):
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            if path.suffix == PARTIAL:
                freed += size if _removed_if_left(path) else 0
            else:
                path.unlink()
                freed += size
    return freed


def _folder() -> Path:
    return cache_folder() / "sources"


def _files(folder: Path) -> list[Path]:
    """Copies, and those that are being made. The folder may hold other files, if $GLOT_CACHE names a wrong folder."""
    names = re.compile(rf"[0-9a-f]{{32}}({re.escape(PARTIAL)})?")
    return [path for path in folder.iterdir() if names.fullmatch(path.name)] if folder.is_dir() else []


def _write(partial: int, blocks: Iterable[bytes]) -> int:
    """Writes the blocks from the start of a file; the number of bytes."""
    written = 0
    for block in blocks:
        view = memoryview(block)
        while view:
            with _own_errors():
                count = os.pwrite(partial, view, written)
            written, view = written + count, view[count:]
    return written
