"""A joblib dump in, its content out; arrays stay in the file until their rows are read. Nothing is executed.

joblib writes a pickle in which each array is a small description, followed by the array's bytes. joblib itself would
read all of it into memory and execute what the pickle asks for, so the pickle is read by glot.human.safe_pickle. The
only class of joblib that is accepted is the description of an array, which becomes a LazyArray.
"""

import bz2
import lzma
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.safe_pickle import StandIn, load_stream

COPY_BYTES = 1 << 24  # bytes that are uncompressed at once
SPARE_BYTES = 1 << 30  # bytes that stay free on the disk while a file is uncompressed


@dataclass(frozen=True)
class LazyArray:
    """An array in a file."""

    path: Path
    offset: int  # position of its first byte in the file
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str  # "C" row after row, "F" column after column

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) in this machine's byte order. Nothing else of the array is read.

        The file is read, not mapped: the pages of a mapped file would count as memory of the process.
        """
        stop = min(stop, len(self))
        shape = (max(stop - start, 0), *self.shape[1:])
        width = math.prod(self.shape[1:])
        native = self.dtype.newbyteorder("=")
        if not self.dtype.itemsize or not math.prod(shape):
            return np.zeros(shape, native)
        if self.order == "C" or len(self.shape) == 1:
            return self._read(start * width, shape[0] * width).reshape(shape).astype(native, copy=False)
        # The rows of each column lie together; columns are ordered along the second axis first.
        columns = np.stack([self._read(column * len(self) + start, shape[0]) for column in range(width)], axis=1)
        return np.ascontiguousarray(columns.reshape(shape, order="F").astype(native, copy=False))

    def _read(self, first: int, count: int) -> NDArray[Any]:
        found = np.fromfile(self.path, self.dtype, count, offset=self.offset + first * self.dtype.itemsize)
        if len(found) < count:
            raise InputError(f"{self.path}: became shorter while it was read")
        return found


@contextmanager
def open_joblib(path: Path, *, scratch: Path) -> Iterator[Any]:
    """The content of a dump, with arrays as LazyArray; only arrays of objects are read at once.

    A compressed file is first uncompressed into the folder ``scratch``; the copy is removed in the end. InputError
    where the file is missing, incomplete or no dump, or asks for a class that plain data does not need.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"ZF"):
        raise InputError(f"{path}: written by a joblib before 0.10; load and dump it again with a newer one")
    if head.startswith(b"\x04\x22\x4d\x18"):
        raise InputError(f"{path}: compressed with lz4, which is not read here; dump it again uncompressed")
    if head.startswith(b"PK"):
        raise InputError(f"{path}: a zip archive such as torch.save writes, not a joblib dump")
    reader = next((make for magic, make in _COMPRESSED.items() if head.startswith(magic)), None)
    if reader is None:
        yield load_dump(path, classes={}, load=load_stream)
        return
    with tempfile.TemporaryDirectory(prefix=".uncompressed-", dir=scratch) as folder:
        plain = Path(folder) / path.name
        print(f"{path.name}: compressed, so it is uncompressed into {scratch} first", flush=True)
        _uncompress(path, plain, reader)
        yield load_dump(plain, classes={}, load=load_stream)


def load_dump(path: Path, *, classes: Mapping[tuple[str, str], Any], load: Callable[..., Any]) -> Any:
    """The content of a dump that is not compressed, with arrays as LazyArray.

    ``classes`` are further stand-ins, by (module, name). ``load`` is ``load_stream``, or does what it does. Errors as
    of ``open_joblib``.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        wrapper = _wrapper(path, file, size)
        names = [
            (module, "NumpyArrayWrapper") for module in ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")
        ]
        return load(file, source=path, classes={**dict.fromkeys(names, wrapper), **_SUBCLASSES, **classes})


def _wrapper(path: Path, file: BinaryIO, size: int) -> type[StandIn]:
    """The class that stands for joblib's description of an array.

    The array's bytes follow the description in the file. So when the state of the description is set, the file is
    positioned before these bytes, and they are skipped.
    """

    class Wrapper(StandIn):
        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            described = self.state
            dtype, shape, order = described["dtype"].dtype(), described["shape"], described["order"]
            if order not in ("C", "F") or not isinstance(shape, tuple):
                raise ValueError(f"an array of order {order!r} and shape {shape!r}")
            if not all(type(length) is int and length >= 0 for length in shape):
                raise ValueError(f"an array of shape {shape!r}")
            self.array: Any
            if dtype.hasobject:  # such an array is another pickle
                self.array = load_stream(file, source=path, classes=_SUBCLASSES)
                return
            # Since joblib 1.2, a byte gives the number of padding bytes between it and the array.
            if described.get("numpy_array_alignment_bytes") is not None:
                file.seek(int.from_bytes(file.read(1), "little"), 1)
            offset = file.tell()
            end = offset + math.prod(shape) * dtype.itemsize
            if end > size:
                raise InputError(
                    f"{path}: incomplete, an array ends at byte {end} and the file at {size}; fetch it again"
                )
            file.seek(end)
            self.array = LazyArray(path, offset, dtype, shape, order)

        def value(self, resolve: Any) -> Any:
            return self.array

    return Wrapper


class _Subclass(StandIn):
    """Stands for numpy.memmap: a dump of a memmap contains the name of this class, but no such array is made."""

    def value(self, resolve: Any) -> Any:
        raise ValueError("an array of a subclass of numpy's arrays")


_SUBCLASSES: dict[tuple[str, str], type[StandIn]] = {
    (module, "memmap"): _Subclass for module in ("numpy", "numpy.memmap", "numpy.core.memmap", "numpy._core.memmap")
}


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """The content of a file that zlib or gzip compressed, in pieces."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    while not stream.eof:
        content = stream.unconsumed_tail or file.read(COPY_BYTES)
        piece = stream.decompress(content, COPY_BYTES)
        if not content and not piece:
            raise EOFError("the file ends too early")
        yield piece


def _opened_with(module: ModuleType) -> Callable[[BinaryIO], Iterator[bytes]]:
    """A function that gives the content of a compressed file in pieces."""

    def pieces(file: BinaryIO) -> Iterator[bytes]:
        with module.open(file) as opened:
            yield from iter(lambda: opened.read(COPY_BYTES), b"")

    return pieces


# The first bytes of a compressed file -> what reads it.
_COMPRESSED: dict[bytes, Callable[[BinaryIO], Iterator[bytes]]] = {
    b"\x78": _inflated,
    b"\x1f\x8b": _inflated,
    b"BZ": _opened_with(bz2),
    b"\xfd7zXZ": _opened_with(lzma),
    b"\x5d\x00": _opened_with(lzma),
}


def _uncompress(source: Path, target: Path, reader: Callable[[BinaryIO], Iterator[bytes]]) -> None:
    with source.open("rb") as packed, target.open("wb") as plain:
        try:
            for piece in reader(packed):
                if shutil.disk_usage(target.parent).free < SPARE_BYTES:
                    raise InputError(f"{target.parent.parent}: not enough free disk space to uncompress {source}")
                plain.write(piece)
        except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise InputError(f"{source}: cannot be uncompressed ({error}); fetch it again") from None
