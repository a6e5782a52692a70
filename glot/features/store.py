"""A feature set in, batches of training windows out, read from memory-mapped arrays.

Reading random windows from Parquet is about a hundred times too slow for training, so every machine builds one local
copy (glot.features.local_copy). N rows, B windows, T frames, F feature size.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.copy_cache import HeldCopy, index_of
from glot.features.copy_writing import COLUMNS
from glot.features.layout import Track
from glot.features.local_copy import local_copy
from glot.features.schema import GUESS, Manifest, read_manifest
from glot.human.crop import keypoints_to_crop
from glot.location import cache_folder

# The columns of a training batch besides the features and the keypoints.
LABELS = ("joints3d", "joints3d_valid", "pose", "betas", "has_3d", "has_smpl", "valid")


class FeatureStore:
    """The rows of one feature set: read-only memory maps of N rows, and the row ranges of the tracks.

    Units are those of glot.features.schema: keypoints2d in px of the image, joints3d in metres, pose in rad.
    """

    features: NDArray[np.floating]  # (N, F), float32 or float16 as in the set; ``features_of`` gives float32
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

    def __init__(self, folder: Path, manifest: Manifest, copy: HeldCopy) -> None:
        self.folder = folder  # the folder of the feature set
        self.manifest = manifest
        self.copy = copy.folder
        self._held = copy  # as long as it lives, the copy is not removed
        for name in COLUMNS:
            setattr(self, name, _load(self.copy / f"{name}.npy"))
        self.features = _load(self.copy / "feature.npy")
        self._guess = [_load(self.copy / f"{name}.npy") for name in GUESS if manifest.has_guess]
        self._file = (self.copy / "feature.npy").open("rb", buffering=0)
        self.tracks = [Track(*track) for track in index_of(self.copy)["tracks"]]

    @classmethod
    def open(cls, folder: Path, *, cache: Path | None = None) -> "FeatureStore":
        """The store of the feature set in ``folder``, with a local copy below ``cache`` that the first use builds.

        ``cache`` is glot.location.cache_folder by default. Any number of processes may open the same set at once: one
        builds the copy, the others wait. The copy is not removed as long as the store lives. InputError where the
        feature set is missing or damaged, or the copy does not fit on disk; NotNowError where it does not fit now.
        """
        manifest = read_manifest(folder)
        cache = Path(cache or cache_folder()).expanduser()
        return cls(folder, manifest, local_copy(folder, manifest, cache))

    def __len__(self) -> int:
        return len(self.features)

    def track(self, track_id: str) -> Track:
        """The track of that name; else an InputError that names some tracks that exist."""
        for track in self.tracks:
            if track.track_id == track_id:
                return track
        some = ", ".join(track.track_id for track in self.tracks[:5])
        raise InputError(f"track {track_id!r}: not in {self.folder}; there are {len(self.tracks)}, e.g. {some}")

    def features_of(self, rows: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, F) features of ``rows``, a slice or row numbers (n,), for a model; read from the file, as in ``batch``.

        IndexError for rows that are not there.
        """
        chosen = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()}: there are {len(self)}")
        out = np.empty((len(chosen), self.features.shape[1]), self.features.dtype)
        edges = [0, *(np.flatnonzero(np.diff(chosen) != 1) + 1).tolist(), len(chosen)]  # of rows that follow each other
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            if first < stop:
                self._read(out[first:stop], int(chosen[first]))
        return out.astype(np.float32, copy=False)

    def guess_of(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, GUESS_SIZE) first guesses of the rows (n,). For a set that has them: ``manifest.has_guess``."""
        return np.concatenate([values[rows].reshape(len(rows), -1) for values in self._guess], axis=1)

    def batch(self, window_starts: NDArray[np.integer], frames: int) -> dict[str, NDArray[Any]]:
        """Windows of ``frames`` rows from each of ``window_starts`` (B,): new arrays of shape (B, T, ...).

        ``features`` (B, T, F). ``keypoints2d`` (B, T, 49, 3): x and y in [-1, 1] over the crop that the feature was
        made from, and the confidence. (The official code uses a crop scale of 1.2 for all 2D targets, even where
        features have another scale.) The columns LABELS as they are stored. ValueError for a window that does not fit
        into the store.
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
        keypoints = _windows(self.keypoints2d, starts, frames)  # a copy, so the stored keypoints do not change
        out["keypoints2d"] = np.asarray(keypoints_to_crop(keypoints, boxes, scales), np.float32)
        return out

    def _read_features(self, starts: NDArray[np.int64], frames: int) -> NDArray[np.float32]:
        """(B, frames, F)"""
        out = np.empty((len(starts), frames, self.features.shape[1]), self.features.dtype)
        for window, start in zip(out, starts.tolist(), strict=True):
            self._read(window, start)
        return out.astype(np.float32, copy=False)

    def _read(self, out: NDArray[Any], first: int) -> None:
        """Fills ``out`` (n, F) with the features from row ``first`` on, read from the file instead of the memory map.

        Mapped pages would count as memory of the process, up to the size of the set, and clusters limit that memory.
        """
        offset = os.fstat(self._file.fileno()).st_size - self.features.nbytes  # of the values, after the header
        view, place = out.data.cast("B"), offset + first * self.features.shape[1] * self.features.itemsize
        while view:  # a read may return less than was asked for
            got = os.preadv(self._file.fileno(), [view], place)
            if not got:
                raise OSError(f"{self._file.name}: was cut short while it was read")
            view, place = view[got:], place + got


def _windows(column: NDArray[Any], starts: NDArray[np.int64], frames: int) -> NDArray[Any]:
    """(B, frames, ...) rows. A window is contiguous, so it is copied as one block."""
    out = np.empty((len(starts), frames, *column.shape[1:]), column.dtype)
    for window, start in zip(out, starts.tolist(), strict=True):
        window[...] = column[start : start + frames]
    return out


def _load(path: Path) -> NDArray[Any]:
    """The file, memory-mapped, as a plain array: indexing of np.memmap is several times slower."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
