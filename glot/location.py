"""Where feature sets are kept: a folder that this machine sees, or an object store's URI such as s3://bucket/features.

Both are used as paths. They differ in what is here. A file must appear only when it is complete: an object store does
that itself; in a folder, a finished temporary file is renamed. And each request to a store costs milliseconds and
money, so a listing gives sizes and ETags of a thousand files at once, and a file is read without asking for its size.
"""

import asyncio
import errno
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from glot.errors import InputError, is_passing
from glot.retries import STORE_PACKAGES, packages_of

BLOCK_BYTES = 1 << 20
# Scheme of a URI -> the package that reads it.
EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def location(text: str | Path) -> Path:
    """The folder or URI that an option names; of file:///videos, it is the folder /videos.

    Credentials and endpoints of object stores come from the environment variables that the stores' own tools read
    (AWS_PROFILE, AWS_ENDPOINT_URL, ...). InputError for a scheme that cannot be read.
    """
    if "://" not in str(text):
        return Path(text)
    scheme = str(text).partition("://")[0]
    try:
        place = UPath(text, use_listings_cache=False)  # other processes write there, too
        _ = place.fs
    except ImportError:
        raise InputError(f"{text}: needs the package {EXTRAS.get(scheme, scheme)}; pip install it") from None
    except ValueError as error:
        raise InputError(f"{text}: no such kind of place ({error}); give a folder, or s3://bucket/folder") from None
    return Path(place.path) if scheme in ("file", "local") else cast(Path, place)


def is_remote(path: Path) -> bool:
    return not isinstance(path, Path)


def cache_folder() -> Path:
    """The folder of files that can be made again: $GLOT_CACHE, else glot below $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("GLOT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glot"


def cache_bytes(variable: str) -> int | None:
    """The bytes that an environment variable allows a cache; None if it is not set. InputError if it is no number."""
    text = os.environ.get(variable)
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{variable}={text}: must be a number of bytes, e.g. {20 * 10**9}")
    return int(text)


def file_hash(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file, which is read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()[:16]


def temporary_of(path: Path) -> Path:
    """A name beside ``path`` that no other process uses."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")


def remove_temporaries(path: Path) -> None:
    """Removes what killed processes left under names that ``temporary_of(path)`` gave them, in a folder on disk.

    Only for a caller that knows that nobody writes ``path`` now.
    """
    left = re.compile(re.escape(f".{path.name}.") + r"(.+-\d+(\.old)?|\d+\.part)")
    for name in os.listdir(path.parent) if path.parent.is_dir() else ():
        if left.fullmatch(name):
            found = path.with_name(name)
            shutil.rmtree(found, ignore_errors=True) if found.is_dir() else found.unlink(missing_ok=True)


class Entry(NamedTuple):
    """A file in a listing. The ``stamp`` changes when the file is written again."""

    bytes: int
    stamp: int | str  # its time of change in ns in a folder on disk, its ETag in an object store


def list_folder(folder: Path, pattern: str = "*", *, recursive: bool = False) -> dict[str, Entry]:
    """The files in ``folder`` by name, sorted, whose name matches ``pattern``; {} where there is no such folder.

    ``recursive``: the files in all folders below it too, by their path below ``folder`` ("a/b.mp4"); the pattern is
    for the last name of the path. An object store is asked once for each 1,000 files. OSError where it cannot be read.
    """
    found = _listed_store(folder, recursive) if is_remote(folder) else _listed_disk(folder, "", recursive)
    return {name: entry for name, entry in sorted(found) if fnmatchcase(name.rpartition("/")[2], pattern)}


@contextmanager
def _asking() -> Iterator[None]:
    """Within it, a failure of a store or of the way to it is an OSError that may pass, unless the path is wrong.

    The libraries of stores raise errors of their own, of which none has to be installed here, and OSErrors with the
    number of a wrong argument, for example for keys that are out of date.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except Exception as error:
        packages = packages_of(error)
        known = isinstance(error, OSError | asyncio.TimeoutError | http.client.HTTPException)
        passing = isinstance(error, OSError) and error.errno is not None and is_passing(error)
        if passing or not (known or packages & {*STORE_PACKAGES, "requests"}):
            raise
        raise OSError(errno.EIO, str(error) or type(error).__name__) from error


def _listed_store(folder: Path, recursive: bool) -> Iterator[tuple[str, Entry]]:
    place = cast(Any, folder)
    try:
        with _asking():
            found = [*place.fs.find(place.path, detail=True).values()] if recursive else place.fs.ls(place.path, True)
    except FileNotFoundError:
        return
    start = place.fs._strip_protocol(place.path).rstrip("/") + "/"
    for info in found:
        name = info["name"].removeprefix(start)
        # Some tools mark a folder with an empty object whose name ends with a slash.
        if info["type"] == "file" and name and not name.endswith("/"):
            # Each store has its own name for the tag; those without a tag have a time.
            tag = next((info[key] for key in ("ETag", "etag", "LastModified", "created", "mtime") if info.get(key)), "")
            yield name, Entry(info["size"], str(tag).strip('"'))


def _listed_disk(folder: Path, above: str, recursive: bool) -> Iterator[tuple[str, Entry]]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if recursive and entry.is_dir():
                yield from _listed_disk(Path(entry.path), f"{above}{entry.name}/", recursive)
            elif entry.is_file():
                with suppress(FileNotFoundError):  # removed or renamed since
                    found = entry.stat()
                    yield above + entry.name, Entry(found.st_size, found.st_mtime_ns)


def file_exists(path: Path) -> bool:
    """Whether there is a file at ``path``. OSError where that cannot be known now; Path.is_file of a store says no."""
    try:
        if is_remote(path):
            with _asking():
                return bool(cast(Any, path).fs.info(cast(Any, path).path)["type"] == "file")
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_whole(path: Path) -> bytes:
    """The content of a file, with one request where it is in an object store."""
    if not is_remote(path):
        return path.read_bytes()
    place = cast(Any, path)
    with _asking():
        return bytes(place.fs.cat_file(place.path, max_concurrency=1))  # s3fs asks for the size before reads in pieces


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in one step: nobody sees a part of ``content``, and a failure leaves the file as it was before."""
    if is_remote(path):
        path.write_bytes(content)
        return
    temporary = temporary_of(path)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:  # on a full disk, a part of it would take the room that the next try needs
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any, *, indent: int | None = 1, sort_keys: bool = False) -> None:
    """Writes ``content`` as a JSON file that is there either whole or as it was before."""
    write_whole(path, (json.dumps(content, indent=indent, sort_keys=sort_keys) + "\n").encode())


def move_in(local: Path, target: Path) -> None:
    """Moves a finished local file to ``target``: a rename in the same file system, or an upload to an object store."""
    if is_remote(target):
        cast(Any, target).fs.put_file(str(local), cast(Any, target).path)
        local.unlink()
    else:
        os.replace(local, target)


def for_arrow(path: Path) -> Path:
    """A local path that Arrow takes for one. It takes relative paths such as run:1/part.parquet for URIs."""
    return path.absolute()


@contextmanager
def open_parquet(path: Path, *, size: int | None = None) -> Iterator[pq.ParquetFile]:
    """The Parquet file at ``path``; pa.ArrowInvalid if it is not one. Of a remote file, only what is read is fetched.

    ``size``: its bytes where a listing has told them, so that the store need not be asked. All that a read of a remote
    file needs is fetched at its start, neighbouring columns with one request: read long files by row groups.
    """
    if is_remote(path):
        place = cast(Any, path)
        if size is None:
            with _asking():
                size = place.fs.info(place.path)["size"]
        with pq.ParquetFile(pa.PythonFile(_RemoteFile(place, size), "r"), pre_buffer=True) as opened:
            yield opened
    else:
        with pq.ParquetFile(for_arrow(path)) as opened:
            yield opened


class _RemoteFile(io.RawIOBase):
    """A remote file of ``size`` bytes for Arrow: a request for each read. fsspec's own files ask for the size again."""

    def __init__(self, place: Any, size: int) -> None:
        self._place, self._size, self._at = place, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        stop = self._size if count is None or count < 0 else min(self._at + count, self._size)
        if stop <= self._at:
            return b""
        with _asking():
            found = bytes(self._place.fs.cat_file(self._place.path, start=self._at, end=stop))
            if len(found) != stop - self._at:
                raise ConnectionError(f"{len(found)} bytes came instead of {stop - self._at}")
        self._at = stop
        return found
