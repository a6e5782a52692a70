"""A feature set of Parquet parts in, a folder with one .npy file per column out: the copy that training reads.

The copy has the features in the type that the set has, and the rows of each track together. It is a cache: its folder
may be deleted at any time. Every machine builds its copy once, with only a few batches of rows in RAM.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from glot.cli import progress
from glot.errors import InputError, NotNowError, is_passing
from glot.features.layout import Layout, Piece, batches, layout_of
from glot.features.schema import KEYPOINTS, Manifest, Part, parts

LAYOUT = 1  # version of the copy; part of its folder's name
INDEX = "index.json"

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


def local_copy(folder: Path, manifest: Manifest, cache: Path) -> Path:
    """The folder below ``cache`` with the copy of the feature set in ``folder``; built if it is not there.

    Any number of processes may ask for the same copy at once: one builds it, the others wait. InputError where the
    feature set is damaged, or the copy does not fit. NotNowError where a disk or a store fails meanwhile.
    """
    files = parts(folder, manifest)
    # The manifest's key changes with the content of the set, the parts' stamps when the same set is made again.
    stamps = "".join(f"{part.path.name} {part.stamp}\n" for part in files)
    name = f"{manifest.key}-{hashlib.sha256(stamps.encode()).hexdigest()[:8]}-{LAYOUT}"
    target = cache / name
    if _whole(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / f".{name}.lock"):
            if not _whole(target):
                # This process has the lock, so an unfinished copy by this machine is left from a build that was killed.
                for stale in cache.glob(f".{name}.building-{socket.gethostname()}-*"):
                    shutil.rmtree(stale, ignore_errors=True)
                building = cache / f".{name}.building-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
                try:
                    _build(files, manifest, building)
                    if parts(folder, manifest) != files:
                        raise NotNowError(f"{folder}: was written while it was copied; try again later")
                    _put_in_place(building, target)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
    except OSError as error:  # of the cache: errors of the feature set have their own kinds
        kind = NotNowError if is_passing(error) else InputError
        raise kind(f"{cache}: the local copy of {folder} cannot be kept there ({error}); set GLOT_CACHE") from error
    return target


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """A lock that one process at a time holds; the kernel releases it however that process ends."""
    with path.open("w") as handle:
        # On a file system without locks several processes may build, and the first to finish wins.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _put_in_place(building: Path, target: Path) -> None:
    try:
        os.rename(building, target)
    except OSError:
        if _whole(target):  # another machine with the same cache built the same copy first
            return
        shutil.rmtree(target)  # somebody deleted some of its files
        os.rename(building, target)


def _whole(copy: Path) -> bool:
    """Whether every file that the index lists is there and has its size. The index is written last, then the rename."""
    try:
        sizes = json.loads((copy / INDEX).read_text())["bytes"]
        return all((copy / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(files: list[Part], manifest: Manifest, building: Path) -> None:
    """Copies the parts into the folder ``building``: one .npy file per column, and the index."""
    feature = (np.dtype(manifest.feature_dtype).type, (manifest.backbone["feature_size"],))
    columns: Columns = {**COLUMNS, "feature": feature}
    layout = layout_of(files, manifest.row_schema)
    if layout.rows != manifest.rows or len(layout.tracks) != manifest.tracks:
        raise InputError(
            f"{files[0].path.parent if files else building}: {layout.rows} rows of {len(layout.tracks)} tracks, but "
            f"the manifest has {manifest.rows} of {manifest.tracks}; extract the features again"
        )
    building.mkdir()
    _check_free(building, manifest.rows, columns)
    outputs: dict[str, BinaryIO] = {}
    try:
        for name, (dtype, shape) in columns.items():
            outputs[name] = (building / f"{name}.npy").open("wb", buffering=0)
            header = {
                "descr": npy.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": (manifest.rows, *shape),
            }
            npy.write_array_header_1_0(outputs[name], header)
        what = f"local copy of {manifest.dataset}/{manifest.split}"
        rows = _rows(progress(files, total=len(files), what=what), manifest.row_schema, columns)
        _write_rows(rows, layout, outputs)
        for output in outputs.values():
            os.fsync(output.fileno())
    finally:
        for output in outputs.values():
            output.close()
    index = {
        "tracks": layout.tracks,
        "bytes": {f"{name}.npy": (building / f"{name}.npy").stat().st_size for name in columns},
    }
    with (building / INDEX).open("w") as handle:
        json.dump(index, handle)
        handle.flush()
        os.fsync(handle.fileno())


def _check_free(folder: Path, rows: int, columns: Columns) -> None:
    needed = rows * sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in columns.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder.parent}: the local copy needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; point "
            "GLOT_CACHE to a larger disk"
        )


# The rows of a batch: column -> (N, ...).
Rows = dict[str, NDArray[Any]]


def _rows(files: Iterable[Part], expected: pa.Schema, columns: Columns) -> Iterator[Rows]:
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


def _write_rows(found: Iterable[Rows], layout: Layout, outputs: dict[str, BinaryIO]) -> None:
    """Writes each row to its place in the outputs, behind what they hold."""
    first = {name: output.tell() for name, output in outputs.items()}
    pieces = iter(layout.pieces)
    piece = Piece(0, 0)
    for values in found:
        done, rows = 0, len(values["feature"])
        while done < rows:
            piece = piece if piece.rows else next(pieces)
            count = min(piece.rows, rows - done)
            for name, column in values.items():
                block = column[done : done + count]
                _write_at(outputs[name], block, first[name] + piece.start * (column.nbytes // rows))
            done, piece = done + count, Piece(piece.rows - count, piece.start + count)


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
