"""A feature set of Parquet parts in, a folder with one .npy file per column out: the copy that training reads.

The copy is a cache: its folder may be deleted at any time. Every machine builds its copy once, with only a few batches
of rows in RAM.
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
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from glot.cli import progress
from glot.errors import InputError
from glot.features.schema import KEYPOINTS, Manifest, open_part, parts, schema

LAYOUT = 1  # version of the copy; part of its folder's name
INDEX = "index.json"
ROWS_AT_ONCE = 2048  # bounds memory while building: 17 MB of features

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


class Track(NamedTuple):
    """Rows [start, stop) of the copy belong to one person, in time order."""

    track_id: str
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows as an index."""
        return slice(self.start, self.stop)


def local_copy(folder: Path, manifest: Manifest, cache: Path) -> Path:
    """The folder below ``cache`` with the copy of the feature set in ``folder``; built if it is not there.

    Any number of processes may ask for the same copy at once: one builds it, the others wait. InputError where the
    feature set is damaged, or the copy cannot be kept.
    """
    files = parts(folder, manifest)
    # The manifest's key changes with the content of the set, the parts' times when the same set is made again.
    stamp = "".join(f"{path.name} {path.stat().st_mtime_ns}\n" for path in files)
    name = f"{manifest.key}-{hashlib.sha256(stamp.encode()).hexdigest()[:8]}-{LAYOUT}"
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
                    _put_in_place(building, target)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{cache}: the local copy of {folder} cannot be kept there ({error}); set GLOT_CACHE"
        ) from error
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


def _build(files: list[Path], manifest: Manifest, building: Path) -> None:
    """Streams the parts into the folder ``building``: one .npy file per column, and the index."""
    feature_size = manifest.backbone["feature_size"]
    columns: Columns = {**COLUMNS, "feature": (np.float32, (feature_size,))}
    building.mkdir()
    _check_free(building, manifest.rows, columns)
    outputs: dict[str, BinaryIO] = {}
    try:
        for name, (dtype, shape) in columns.items():
            outputs[name] = (building / f"{name}.npy").open("wb")
            header = {
                "descr": npy.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": (manifest.rows, *shape),
            }
            npy.write_array_header_1_0(outputs[name], header)
        what = f"local copy of {manifest.dataset}/{manifest.split}"
        tracks = _copy_rows(progress(files, total=len(files), what=what), columns, outputs)
        for output in outputs.values():
            output.flush()
            os.fsync(output.fileno())
    finally:
        for output in outputs.values():
            output.close()
    rows = tracks[-1].stop if tracks else 0
    if rows != manifest.rows or len(tracks) != manifest.tracks:
        raise InputError(
            f"{files[0].parent if files else building}: {rows} rows of {len(tracks)} tracks, but the manifest has "
            f"{manifest.rows} of {manifest.tracks}; extract the features again"
        )
    index = {
        "tracks": tracks,
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


def _copy_rows(files: Iterable[Path], columns: Columns, outputs: dict[str, BinaryIO]) -> list[Track]:
    """Appends every row to the outputs; returns the tracks, which must be contiguous and in time order."""
    (feature_size,) = columns["feature"][1]
    expected = schema(feature_size)
    tracks: list[Track] = []
    seen: set[str] = set()
    row, last_frame = 0, -1
    for path in files:
        for batch in _batches(path, expected, ["track_id", *columns]):
            for name, (dtype, shape) in columns.items():
                values = _to_numpy(batch.column(name), dtype, shape)
                if name == "feature" and not np.isfinite(values).all():
                    bad = row + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                    raise InputError(f"{path}: features of row {bad} of the set are not finite; extract them again")
                values.tofile(outputs[name])
            frames = batch.column("frame_index").to_pylist()
            for track_id, frame in zip(batch.column("track_id").to_pylist(), frames, strict=True):
                if not tracks or tracks[-1].track_id != track_id:
                    if track_id in seen:
                        raise InputError(f"{path}: the rows of track {track_id} are not together; extract them again")
                    seen.add(track_id)
                    tracks.append(Track(track_id, row, row))
                elif frame <= last_frame:
                    raise InputError(f"{path}: track {track_id} is not in time order at frame {frame}; extract again")
                row, last_frame = row + 1, frame
                tracks[-1] = tracks[-1]._replace(stop=row)
    return tracks


def _batches(path: Path, expected: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with open_part(path, expected) as file:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)


def _to_numpy(column: pa.Array, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    rows = len(column)
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    values = column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    if values.size != rows * int(np.prod(shape)):
        raise InputError("a list in the feature set is null; extract the features again")
    return np.ascontiguousarray(values).reshape(rows, *shape)
