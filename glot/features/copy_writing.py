"""The parts of a feature set in; the files of its local copy, one .npy file for each column, out.

Only a few batches of rows are in RAM. The files get their final lengths first, so that their room is known to others.
"""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.layout import Layout, Piece, batches
from glot.features.schema import GUESS, KEYPOINTS, Manifest, Part

# Column -> (dtype, shape of a row); the features are added with the size they have. Strings stay in Parquet.
Columns = dict[str, tuple[type, tuple[int, ...]]]
COLUMNS: Columns = {
    "frame_index": (np.int32, ()),
    "fps": (np.float32, ()),
    "bbox": (np.float32, (4,)),
    "crop_scale": (np.float32, ()),
    "keypoints2d": (np.float32, (KEYPOINTS, 3)),
    "joints3d": (np.float32, (KEYPOINTS, 3)),
    "joints3d_valid": (np.bool_, (KEYPOINTS,)),
    "pose": (np.float32, (24, 3)),
    "betas": (np.float32, (10,)),
    "has_3d": (np.bool_, ()),
    "has_smpl": (np.bool_, ()),
    "valid": (np.bool_, ()),
}


def columns_of(manifest: Manifest) -> Columns:
    """The columns of the copy of a feature set."""
    feature = (np.dtype(manifest.feature_dtype).type, (manifest.backbone["feature_size"],))
    guess: Columns = {name: (np.float32, shape) for name, shape in GUESS.items()} if manifest.has_guess else {}
    return {**COLUMNS, **guess, "feature": feature}


class Output(NamedTuple):
    """The file of a column, open to be written, and where its first row begins."""

    file: BinaryIO
    start: int


def copy_bytes(rows: int, columns: Columns) -> int:
    """The bytes of all files of a copy of ``rows`` rows, without the index."""
    return sum(len(_header(rows, *kind)) + rows * _row_bytes(*kind) for kind in columns.values())


@contextmanager
def outputs(folder: Path, rows: int, columns: Columns) -> Iterator[dict[str, Output]]:
    """The files of a copy in ``folder``, in their final lengths: column -> its output."""
    with ExitStack() as files:
        opened = {}
        for name, kind in columns.items():
            header = _header(rows, *kind)
            file = files.enter_context((folder / f"{name}.npy").open("wb", buffering=0))
            file.write(header)
            file.truncate(len(header) + rows * _row_bytes(*kind))
            opened[name] = Output(file, len(header))
        yield opened


def _header(rows: int, dtype: type, shape: tuple[int, ...]) -> bytes:
    described = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (rows, *shape)}
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _row_bytes(dtype: type, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * int(np.prod(shape))


# The rows of a batch: column -> (N, ...).
Rows = dict[str, NDArray[Any]]


def rows_of(files: Iterable[Part], expected: pa.Schema, columns: Columns) -> Iterator[Rows]:
    """All rows of the set in order, a few at a time. InputError where a feature is not finite."""
    row = 0
    for part in files:
        for batch in batches(part, expected, list(columns)):
            values = {name: _to_numpy(batch.column(name), *kind) for name, kind in columns.items()}
            if not np.isfinite(values["feature"]).all():
                bad = row + int(np.flatnonzero(~np.isfinite(values["feature"]).all(axis=1))[0])
                raise InputError(f"{part.path}: features of row {bad} of the set are not finite; extract them again")
            yield values
            row += len(batch)


def write_rows(found: Iterable[Rows], layout: Layout, targets: dict[str, Output]) -> None:
    """Writes each row to its place in the outputs, and all of it to the disk."""
    pieces = iter(layout.pieces)
    piece = Piece(0, 0)
    for values in found:
        done, rows = 0, len(values["feature"])
        while done < rows:
            piece = piece if piece.rows else next(pieces)
            count = min(piece.rows, rows - done)
            for name, column in values.items():
                block = column[done : done + count]
                file, start = targets[name]
                _write_at(file, block, start + piece.start * (column.nbytes // rows))
            done, piece = done + count, Piece(piece.rows - count, piece.start + count)
    for file, _ in targets.values():
        os.fsync(file.fileno())


def _write_at(output: BinaryIO, block: NDArray[Any], place: int) -> None:
    view = block.data.cast("B")
    while view:  # a write may take less than it was given
        written = os.pwrite(output.fileno(), view, place)
        view, place = view[written:], place + written


def _to_numpy(column: pa.Array, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    rows = len(column)
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    values = column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    if values.size != rows * int(np.prod(shape)):
        raise InputError("a list in the feature set is null; extract the features again")
    return np.ascontiguousarray(values).reshape(rows, *shape)
