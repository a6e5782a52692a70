"""A file of ready-made features in (joblib or HDF5), its arrays out as columns that are read a few rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from pipelines.imports.joblib_file import LazyArray, open_joblib

# The arrays of a file that are used. Those in NAMES have a name or a frame number in each row; the others have numbers.
NAMES = ("vid_name", "frame_id", "img_name", "gender")
NUMBERS = ("features", "joints2D", "joints3D", "pose", "shape", "bbox", "valid", "valid_i")
BLOCK_BYTES = 1 << 28  # bytes of a chunked HDF5 dataset that are read at once


class Column(Protocol):
    """An array from which some rows can be read without reading all of them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def rows(self, start: int, stop: int) -> NDArray[Any]: ...


@contextmanager
def open_columns(path: Path, *, scratch: Path) -> Iterator[dict[str, Column]]:
    """{name: column} of the arrays in NAMES and NUMBERS that the file has.

    ``scratch`` is a folder for a compressed file, which has to be uncompressed first. InputError with the reason where
    the file is missing, incomplete or of another kind, or asks to execute or fetch something.
    """
    if not path.is_file():
        raise InputError(f"--src {path}: there is no such file")
    if h5py.is_hdf5(path):
        with _open_h5(path) as columns:
            yield columns
        return
    with open_joblib(path, scratch=scratch) as content:
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of arrays")
        yield {
            name: value if isinstance(value, LazyArray) else InMemory(value)
            for name, value in content.items()
            if name in (*NAMES, *NUMBERS) and isinstance(value, (LazyArray, np.ndarray))
        }


class InMemory:
    """A column that is in memory already."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        return self.values[start:stop]


class _Chunked:
    """A dataset of an HDF5 file. A dataset that is stored in chunks is read in blocks of whole chunks.

    h5py's usual chunks have some thousand rows and few columns. If a few rows were read at a time, each chunk would be
    unpacked many times.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset, self.shape, self.dtype = dataset, dataset.shape, dataset.dtype
        row_bytes = max(int(np.prod(self.shape[1:])) * self.dtype.itemsize, 1)
        self.block = 0
        if dataset.chunks:
            height = dataset.chunks[0]
            self.block = height * max(1, min(8192, BLOCK_BYTES // row_bytes) // height)
        self.first, self.values = 0, np.empty((0, *self.shape[1:]), self.dtype)

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        if not self.block:
            return self._read(start, stop)
        if start < self.first or stop > self.first + len(self.values):
            self.first = start // self.block * self.block
            self.values = self._read(self.first, max(stop, self.first + self.block))
        return self.values[start - self.first : stop - self.first]

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        try:
            return self.dataset[start:stop]
        except OSError as error:
            name = f"{self.dataset.file.filename}: {self.dataset.name[1:]}"
            raise InputError(f"{name}: rows {start} to {stop} cannot be read ({error}); fetch the file again") from None


@contextmanager
def _open_h5(path: Path) -> Iterator[dict[str, Column]]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error}); fetch it again") from None
    with file:
        columns: dict[str, Column] = {}
        for name in set(file) & {*NAMES, *NUMBERS}:
            # Through links and external storage, a file could make this program read other files of this machine.
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{path}: {name} is a link to another place; refused")
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise InputError(f"{path}: {name} is a group, not an array")
            if dataset.external or dataset.is_virtual:
                raise InputError(f"{path}: {name} keeps its values in other files; refused")
            if dataset.dtype.kind not in "biufSU" and not h5py.check_string_dtype(dataset.dtype):
                raise InputError(f"{path}: {name} holds {dataset.dtype}, neither numbers nor names")
            if dataset.chunks and np.prod(dataset.chunks) * dataset.dtype.itemsize > BLOCK_BYTES:
                raise InputError(
                    f"{path}: {name} has chunks of more than {BLOCK_BYTES >> 20} MB; write it again with smaller ones"
                )
            columns[name] = _Chunked(dataset)
        yield columns
