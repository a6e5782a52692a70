"""Where feature sets are kept: a folder that this machine sees, or an object store's URI such as s3://bucket/features.

Both are used as paths. They differ in two things, which are here. Parquet is opened in another way. And a file must
appear only when it is complete: an object store does that itself; in a folder, a finished temporary file is renamed.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from glot.errors import InputError

BLOCK_BYTES = 1 << 20
# Scheme of a URI -> the package that reads it.
EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def location(text: str | Path) -> Path:
    """The folder or URI that an option names.

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
    return cast(Path, place)


def is_remote(path: Path) -> bool:
    return not isinstance(path, Path)


def cache_folder() -> Path:
    """The folder of files that can be made again: $GLOT_CACHE, else glot below $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("GLOT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glot"


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


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in one step: nobody sees a part of ``content``, and a failure leaves the file as it was before."""
    if is_remote(path):
        path.write_bytes(content)
        return
    temporary = temporary_of(path)
    temporary.write_bytes(content)
    os.replace(temporary, path)


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


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The Parquet file at ``path``. Of a remote file, only the parts that are read are fetched. pa.ArrowInvalid if it
    is not a Parquet file."""
    if is_remote(path):
        with path.open("rb") as file, pq.ParquetFile(pa.PythonFile(file, "r")) as opened:
            yield opened
    else:
        with pq.ParquetFile(path) as opened:
            yield opened
