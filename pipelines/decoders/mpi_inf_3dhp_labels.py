"""Annotation files of MPI-INF-3DHP in, joints in SPIN's order out: annot.mat (MATLAB v5), annot_data.mat (v7.3)."""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from glot.errors import InputError, raise_if_passing
from glot.human.joints import SPIN49, match
from glot.scoring.track_errors import MPI17
from pipelines.decoders.dataset_facts import MPI28


class Labels(NamedTuple):
    """The labels of R frames."""

    keypoints2d: NDArray[np.float64]  # (R, 49, 2) px, 0 where there is no such joint
    joints3d: NDArray[np.float64]  # (R, 49, 3) m, camera frame
    valid: NDArray[np.bool_]  # (R,)
    known: NDArray[np.bool_]  # (49,) joints that the source has

    def take(self, rows: NDArray[np.integer]) -> "Labels":
        """The labels of the frames with these row numbers."""
        return Labels(self.keypoints2d[rows], self.joints3d[rows], self.valid[rows], self.known)


def read_train(path: Path, *, camera: int, most: int, what: str) -> tuple[Labels, int]:
    """The first ``most`` rows of a camera's labels (annot2, annot3), and how many rows there are.

    InputError that names ``what`` where the file is broken. The variable ``frames`` is not needed: row i is frame i of
    the video.
    """
    try:
        numbers = [int(np.asarray(number).ravel()[0]) for number in _variable(path, what, "cameras").ravel()]
    except (ValueError, TypeError, IndexError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{what}: its cameras are not numbers") from None
    if camera not in numbers:
        raise InputError(f"{what}: no camera {camera} among its cameras {numbers}")
    cell = numbers.index(camera)  # cells are in the order of this list
    keypoints2d = _cell(path, what, "annot2", cell, 2 * len(MPI28))
    joints3d = _cell(path, what, "annot3", cell, 3 * len(MPI28))
    rows = len(keypoints2d)
    if len(joints3d) != rows:
        raise InputError(f"{what}: {rows} rows of annot2, {len(joints3d)} of annot3")
    keypoints2d, joints3d = keypoints2d[:most].reshape(-1, 28, 2), joints3d[:most].reshape(-1, 28, 3)
    return _labels(MPI28, keypoints2d, joints3d, np.ones(len(joints3d), bool)), rows


def read_test(path: Path, *, most: int, what: str) -> tuple[Labels, int]:
    """The first ``most`` rows of a test video's labels (annot2, univ_annot3, valid_frame), and how many there are."""
    try:
        with h5py.File(path, "r") as file:
            valid = _dataset(file, what, "valid_frame", (1,))
            keypoints2d = _dataset(file, what, "annot2", (1, 17, 2))
            joints3d = _dataset(file, what, "univ_annot3", (1, 17, 3))
            rows = len(valid)
            if not rows == len(keypoints2d) == len(joints3d):
                lengths = f"{rows} of valid_frame, {len(keypoints2d)} of annot2, {len(joints3d)} of univ_annot3"
                raise InputError(f"{what}: the numbers of rows differ: {lengths}")
            arrays = keypoints2d[:most, 0], joints3d[:most, 0], valid[:most, 0] != 0
    except InputError:
        raise
    except Exception as error:  # whatever h5py raises on a broken file
        raise_if_passing(error, path)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what}: not a readable MATLAB v7.3 (HDF5) file ({reason})") from None
    return _labels(MPI17, *arrays), rows


def _labels(names: tuple[str, ...], keypoints2d: NDArray, joints3d: NDArray, valid: NDArray) -> Labels:
    """Joints (R, J, 2) px and (R, J, 3) mm called ``names`` -> the 49 joints, in metres."""
    pairs = match(names, SPIN49)
    sources, slots = [i for i, _ in pairs], [j for _, j in pairs]
    full2d, full3d = np.zeros((len(valid), len(SPIN49), 2)), np.zeros((len(valid), len(SPIN49), 3))
    full2d[:, slots], full3d[:, slots] = keypoints2d[:, sources], joints3d[:, sources] / 1000
    known = np.zeros(len(SPIN49), bool)
    known[slots] = True
    return Labels(full2d, full3d, valid, known)


def _cell(path: Path, what: str, name: str, cell: int, columns: int) -> NDArray[np.float64]:
    """The array (F, columns) of one camera; ``cell`` is its position in the variable."""
    cells = _variable(path, what, name).ravel()
    if cells.dtype != object or len(cells) <= cell:
        raise InputError(f"{what}: {name} has no cell for every camera")
    values = np.asarray(cells[cell])
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != columns:
        raise InputError(f"{what}: {name} is {values.dtype} {values.shape}, expected numbers (F, {columns})")
    return values.astype(np.float64)


def _variable(path: Path, what: str, name: str) -> NDArray[Any]:
    """One variable of a MATLAB v5 file. The largest takes about 120 MB."""
    try:
        content = scipy.io.loadmat(path, variable_names=[name])
    except Exception as error:  # whatever scipy's parser raises on a broken file
        raise_if_passing(error, path)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what}: not a readable MATLAB v5 file ({reason})") from None
    if name not in content or not isinstance(content[name], np.ndarray):
        raise InputError(f"{what}: no {name} in it")
    return content[name]


def _dataset(file: h5py.File, what: str, name: str, tail: tuple[int, ...]) -> h5py.Dataset:
    """The dataset (N, *tail), not read yet; InputError where its values are in another file."""
    inside = isinstance(file.get(name, getlink=True), h5py.HardLink)
    found = file[name] if inside else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise InputError(f"{what}: no {name} in it")
    if found.dtype.kind not in "fiub" or found.ndim != 1 + len(tail) or found.shape[1:] != tail:
        expected = f"expected numbers (N, {', '.join(map(str, tail))})"
        raise InputError(f"{what}: {name} is {found.dtype} {found.shape}, {expected}")
    return found
