"""Sources (videos, pictures, files of boxes) on a disk or in an object store, opened in one way.

Failures that may pass are tried again, then raised as NotNowError. A missing source is FileNotFoundError; one that was
listed or opened before and is replaced or gone now is ChangedError. A remote file is read from a copy on this machine's
disk (``source_cache``); a long one is streamed, range by range.
"""

import errno
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from glot.location import is_remote
from glot.people.ranges import Ranges
from glot.people.source_cache import cached_copy
from glot.people.versions import Version, local_version, version_of
from glot.retries import CHANGED, ChangedError, http_status, retried

COPIED_AT_ONCE = 16 << 20  # bytes of one request while a source is copied
WRONG_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def open_file(path: Path, expected: Mapping[str, Any] | None = None) -> "SourceFile":
    """The source at ``path``, opened to be read as bytes.

    ``expected`` is its entry in a list of sources: {"bytes", and "etag" or "modified"}. ChangedError, which is a
    NotNowError, if another content or nothing is there now. Without an entry, FileNotFoundError and its kin are raised
    as they are. NotNowError when some tries have failed.
    """
    return SourceFile(path, expected or {})


def read_bytes(path: Path) -> bytes:
    """The whole of a small file, such as a picture. Errors as of ``open_file``; one request where it is remote."""
    return retried(lambda: read_once(path), path, remote=is_remote(path))


def read_once(path: Path) -> bytes:
    """The whole of a small file, with one request where it is remote. Raises what the disk or the store raises."""
    if not is_remote(path):
        return path.read_bytes()
    store, inside = _store(path)
    try:
        found: bytes = store.cat_file(inside, start=0)  # without a start, s3fs asks for the size first
    except Exception as error:
        if http_status(error) not in CHANGED:  # an empty file has no byte 0
            raise
        found = store.cat_file(inside)
    return found


def is_changed(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a remote source is not what its ``entry`` says, which was read with ``open_file``. NotNowError as there.

    S3 is not asked: its requests name the version that was listed, so reading would have failed.
    """
    store, inside = _store(path)
    if "etag" not in entry or "s3" in store.protocol:
        return False
    try:
        now = retried(lambda: version_of(store.info(inside)), path, remote=True)
    except WRONG_PATH:
        return True
    return not now.agrees(entry)


def _store(path: Path) -> tuple[Any, str]:
    """fsspec's file system of a remote path, and the path in it."""
    place = cast(Any, path)
    return place.fs, place.path


def _open_local(path: Path) -> tuple[BinaryIO, Version]:
    file = path.open("rb", buffering=0)
    return cast(BinaryIO, file), local_version(os.fstat(file.fileno()))


def _open_remote(path: Path, expected: Mapping[str, Any]) -> tuple[BinaryIO | Ranges, Version]:
    store, inside = _store(path)
    uri = str(path)
    if expected.get("etag") and "bytes" in expected:  # what was copied before is opened without a request
        version = Version(int(expected["bytes"]), str(expected["etag"]).strip('"'))
        if copy := cached_copy(uri, version, None):
            return copy, version
    file = store.open(inside, "rb", cache_type="none")
    facts = getattr(file, "details", None) or store.info(inside)
    if facts.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), uri)
    version = version_of(facts)
    ranges = Ranges(file, version.bytes)

    def blocks() -> Iterator[bytes]:
        for start in range(0, version.bytes, COPIED_AT_ONCE):
            stop = min(start + COPIED_AT_ONCE, version.bytes)
            yield retried(lambda: ranges.fetch(start, stop), path, remote=True)  # noqa: B023
        if not ranges.pinned and retried(lambda: version_of(store.info(inside)), path, remote=True) != version:
            raise ChangedError(f"{path}: changed while it was read")

    copy = cached_copy(uri, version, blocks)
    if copy:
        ranges.close()
    return copy or ranges, version


class SourceFile(io.RawIOBase):
    """A file that is opened again, at the same place, when reading fails in a way that may pass.

    ``version`` is the content that is read. ``failure`` is the error that ended the reading, or None: decoders may
    take an error for the end of the file, so look here before a short source is called damaged.
    """

    def __init__(self, path: Path, expected: Mapping[str, Any]) -> None:
        self.path = path
        self.remote = is_remote(path)
        self.failure: Exception | None = None
        self.place = 0
        self.expected = expected
        self.handle: BinaryIO | Ranges | None = None
        try:
            self.handle, self.version = retried(self._open, path, remote=self.remote)
        except WRONG_PATH as error:
            if "etag" in expected or "modified" in expected:
                raise ChangedError(f"{path}: changed since it was listed (it is gone)") from error
            raise

    def readinto(self, buffer: Any) -> int:
        if self.failure:
            raise self.failure
        view = memoryview(buffer).cast("B")
        try:
            count = retried(lambda: self._read(view), self.path, remote=self.remote)
        except WRONG_PATH as error:
            self.failure = ChangedError(f"{self.path}: changed while it was read (it is gone)")
            raise self.failure from error
        except Exception as error:
            self.failure = error
            raise
        self.place += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.version.bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.path}: no place {start + offset}")
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def check_unchanged(self) -> None:
        """ChangedError if the source is not the one that was opened, for example because it still grows.

        One request for a remote source that is streamed from a store whose requests name no version (S3's do).
        """
        try:
            is_same = self.fixed or retried(self._current, self.path, remote=self.remote) == self.version
        except WRONG_PATH:
            is_same = False
        if not is_same:
            raise ChangedError(f"{self.path}: changed while it was read")

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def _current(self) -> Version:
        if self.remote:
            store, inside = _store(self.path)
            return version_of(store.info(inside))
        return local_version(self.path.stat())

    def _open(self) -> tuple[BinaryIO | Ranges, Version]:
        opened = _open_remote(self.path, self.expected) if self.remote else _open_local(self.path)
        if not opened[1].agrees(self.expected):
            opened[0].close()
            raise ChangedError(f"{self.path}: changed since it was listed")
        # A copy does not change, and a store that is asked for one version gives no other.
        self.fixed = opened[0].pinned if isinstance(opened[0], Ranges) else self.remote
        return opened

    def _read(self, view: memoryview) -> int:
        if self.handle is None:
            self.handle, version = self._open()
            if version != self.version:
                raise ChangedError(f"{self.path}: changed while it was read")
        try:
            self.handle.seek(self.place)
            return cast(Any, self.handle).readinto(view) or 0
        except Exception:
            self._drop()  # a handle of a network disk can be stale; the next try opens the file again
            raise

    def _drop(self) -> None:
        handle, self.handle = self.handle, None
        if handle:
            with suppress(OSError):
                handle.close()
