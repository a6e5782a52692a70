"""A feature set as memory-mapped arrays: Parquet folder in, batches of training windows out.

Random windows straight from Parquet are some hundred times too slow to train on, so every node keeps one local copy,
built once. It is a cache: delete its folder whenever you like. N rows, B windows, T frames, F feature size.
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
from glot.features.schema import KEYPOINTS, SCHEMA_VERSION, Manifest, parts, read_manifest, schema
from glot.human.crop import keypoints_to_crop
from glot.location import cache_folder, open_parquet

LAYOUT = 1  # of the copy; part of its folder's name
INDEX = "index.json"
ROWS_AT_ONCE = 2048  # bounds memory while building: 17 MB of features

# Column -> (dtype, shape of a row); the features are added with their own size. Strings stay in Parquet.
COLUMNS: dict[str, tuple[type, tuple[int, ...]]] = {
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
# What one row of a training window carries besides the features and the keypoints.
LABELS = ("joints3d", "joints3d_valid", "pose", "betas", "has_3d", "has_smpl", "valid")


class Track(NamedTuple):
    """Rows [start, stop) of the store are one person's, in time order."""

    track_id: str
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


class FeatureStore:
    """The rows of one feature set: read-only memory maps of N rows, and where the tracks are.

    Units are those of glot.features.schema: keypoints2d in px of the image, joints3d in metres, pose in rad.
    """

    features: NDArray[np.float32]  # (N, F)
    frame_index: NDArray[np.int32]  # (N,)
    fps: NDArray[np.float32]  # (N,)
    bbox: NDArray[np.float32]  # (N, 4) centre x, centre y, width, height
    crop_scale: NDArray[np.float32]  # (N,)
    keypoints2d: NDArray[np.float32]  # (N, 49, 3)
    joints3d: NDArray[np.float32]  # (N, 49, 3)
    joints3d_valid: NDArray[np.bool_]  # (N, 49)
    pose: NDArray[np.float32]  # (N, 24, 3)
    betas: NDArray[np.float32]  # (N, 10)
    has_3d: NDArray[np.bool_]  # (N,)
    has_smpl: NDArray[np.bool_]  # (N,)
    valid: NDArray[np.bool_]  # (N,)

    def __init__(self, folder: Path, manifest: Manifest, copy: Path) -> None:
        self.folder = folder  # of the feature set
        self.manifest = manifest
        self.copy = copy
        for name in COLUMNS:
            setattr(self, name, _load(copy / f"{name}.npy"))
        self.features = _load(copy / "feature.npy")
        self._file = (copy / "feature.npy").open("rb", buffering=0)
        self.tracks = [Track(*track) for track in json.loads((copy / INDEX).read_text())["tracks"]]

    @classmethod
    def open(cls, folder: Path, *, cache: Path | None = None) -> "FeatureStore":
        """The store of the feature set in ``folder``, built on first use below ``cache``.

        ``cache`` is glot.location.cache_folder by default. Any number of processes may open the same set at once:
        one builds, the others wait. InputError where the feature set is missing, broken, or does not fit on disk.
        """
        manifest = read_manifest(folder)
        cache = Path(cache or cache_folder()).expanduser()
        return cls(folder, manifest, _local_copy(folder, manifest, cache))

    def __len__(self) -> int:
        return len(self.features)

    def track(self, track_id: str) -> Track:
        """The track of that name; InputError with some that exist."""
        for track in self.tracks:
            if track.track_id == track_id:
                return track
        some = ", ".join(track.track_id for track in self.tracks[:5])
        raise InputError(f"track {track_id!r}: not in {self.folder}; there are {len(self.tracks)}, e.g. {some}")

    def batch(self, window_starts: NDArray[np.integer], frames: int) -> dict[str, NDArray[Any]]:
        """Windows of ``frames`` rows from each of ``window_starts`` (B,): fresh arrays of shape (B, T, ...).

        ``features`` (B, T, F); ``keypoints2d`` (B, T, 49, 3) with x, y in [-1, 1] over the crop that the features saw
        (the official code always takes 1.2 for its targets, also where the features were cropped wider) and the
        confidence; and the labels of LABELS as stored. ValueError for a window that does not fit into the store.
        """
        starts = np.asarray(window_starts, np.int64)
        if len(starts) and not (starts.min() >= 0 and starts.max() + frames <= len(self)):
            raise ValueError(
                f"windows of {frames} rows from {starts.min()} to {starts.max()}: there are {len(self)} rows"
            )
        out = {name: _windows(getattr(self, name), starts, frames) for name in LABELS}
        out["features"] = self._read_features(starts, frames)
        boxes = _windows(self.bbox, starts, frames)
        scales = _windows(self.crop_scale, starts, frames)
        keypoints = _windows(self.keypoints2d, starts, frames)  # a copy: the stored pixels stay what they are
        out["keypoints2d"] = np.asarray(keypoints_to_crop(keypoints, boxes, scales), np.float32)
        return out

    def _read_features(self, starts: NDArray[np.int64], frames: int) -> NDArray[np.float32]:
        """(B, frames, F), read instead of mapped: mapped pages would make the process look, and some clusters' limits
        count it, as large as the set."""
        size = self.features.shape[1]
        out = np.empty((len(starts), frames, size), np.float32)
        first = os.fstat(self._file.fileno()).st_size - self.features.nbytes  # behind the header
        for window, start in zip(out, starts.tolist(), strict=True):
            view, place = window.data.cast("B"), first + start * size * 4
            while view:  # one read may bring less than was asked for
                got = os.preadv(self._file.fileno(), [view], place)
                if not got:
                    raise OSError(f"{self._file.name}: was cut short while it was read")
                view, place = view[got:], place + got
        return out


def _windows(column: NDArray[Any], starts: NDArray[np.int64], frames: int) -> NDArray[Any]:
    """(B, frames, ...) rows. A window is one contiguous block, so it is copied as one."""
    out = np.empty((len(starts), frames, *column.shape[1:]), column.dtype)
    for window, start in zip(out, starts.tolist(), strict=True):
        window[...] = column[start : start + frames]
    return out


def _load(path: Path) -> NDArray[Any]:
    """Memory-mapped, as a plain array: np.memmap's own indexing is several times slower."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _local_copy(folder: Path, manifest: Manifest, cache: Path) -> Path:
    files = parts(folder, manifest)
    # The manifest names what is in the set; the parts' times catch a set made again by code that calls itself the same.
    stamp = "".join(f"{path.name} {path.stat().st_mtime_ns}\n" for path in files)
    name = f"{manifest.key}-{hashlib.sha256(stamp.encode()).hexdigest()[:8]}-{LAYOUT}"
    target = cache / name
    if _whole(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / f".{name}.lock"):
            if not _whole(target):
                # The lock is ours, so what lies here from this machine was left by a build that was killed.
                for stale in cache.glob(f".{name}.building-{socket.gethostname()}-*"):
                    shutil.rmtree(stale, ignore_errors=True)
                building = cache / f".{name}.building-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
                try:
                    _build(files, manifest, building)
                    _publish(building, target)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{cache}: the local copy of {folder} cannot be kept there ({error}); set GLOT_CACHE"
        ) from error
    return target


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel releases it however that process ends."""
    with path.open("w") as handle:
        # On a file system without locks several may build, and the first to finish wins.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _publish(building: Path, target: Path) -> None:
    try:
        os.rename(building, target)
    except OSError:
        if _whole(target):  # another machine's build on a shared cache was first; it is the same
            return
        shutil.rmtree(target)  # files were taken out of it by hand
        os.rename(building, target)


def _whole(copy: Path) -> bool:
    """Whether every file the index lists is there in its size. The index is written last, before the rename."""
    try:
        sizes = json.loads((copy / INDEX).read_text())["bytes"]
        return all((copy / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(files: list[Path], manifest: Manifest, building: Path) -> None:
    """Streams the parts into one .npy file per column; RAM stays at some batches of rows."""
    feature_size = manifest.backbone["feature_size"]
    specs = {**COLUMNS, "feature": (np.float32, (feature_size,))}
    row_bytes = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in specs.values())
    building.mkdir()
    free = shutil.disk_usage(building).free
    if free < manifest.rows * row_bytes:
        raise InputError(
            f"{building.parent}: the local copy needs {manifest.rows * row_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB "
            "are free; point GLOT_CACHE to a larger disk"
        )
    outputs: dict[str, BinaryIO] = {}
    try:
        for name, (dtype, shape) in specs.items():
            outputs[name] = (building / f"{name}.npy").open("wb")
            header = {
                "descr": npy.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": (manifest.rows, *shape),
            }
            npy.write_array_header_1_0(outputs[name], header)
        what = f"local copy of {manifest.dataset}/{manifest.split}"
        tracks = _copy_rows(progress(files, total=len(files), what=what), feature_size, specs, outputs)
        for output in outputs.values():
            output.flush()
            os.fsync(output.fileno())
    finally:
        for output in outputs.values():
            output.close()
    rows = tracks[-1].stop if tracks else 0
    if rows != manifest.rows or len(tracks) != manifest.tracks:
        raise InputError(
            f"{files[0].parent if files else building}: {rows} rows of {len(tracks)} tracks, but the manifest says "
            f"{manifest.rows} of {manifest.tracks}; extract the features again"
        )
    index = {
        "tracks": tracks,
        "bytes": {f"{name}.npy": (building / f"{name}.npy").stat().st_size for name in specs},
    }
    with (building / INDEX).open("w") as handle:
        json.dump(index, handle)
        handle.flush()
        os.fsync(handle.fileno())


def _copy_rows(
    files: Iterable[Path],
    feature_size: int,
    specs: dict[str, tuple[type, tuple[int, ...]]],
    outputs: dict[str, BinaryIO],
) -> list[Track]:
    """Appends every row to the outputs; returns the tracks, which must be contiguous and in time order."""
    expected = schema(feature_size)
    tracks: list[Track] = []
    seen: set[str] = set()
    row, last_frame = 0, -1
    for path in files:
        for batch in _batches(path, expected, ["track_id", *specs]):
            for name, (dtype, shape) in specs.items():
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
    try:
        with open_parquet(path) as file:
            if not file.schema_arrow.remove_metadata().equals(expected):
                raise InputError(f"{path}: its columns are not those of schema version {SCHEMA_VERSION}; extract again")
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not readable as Parquet ({error}); extract the features again") from None


def _to_numpy(column: pa.Array, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    rows = len(column)
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    values = column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    if values.size != rows * int(np.prod(shape)):
        raise InputError("a list in the feature set is null; extract the features again")
    return np.ascontiguousarray(values).reshape(rows, *shape)
