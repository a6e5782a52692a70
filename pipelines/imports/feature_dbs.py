"""Files of ready-made features in (VIBE's, TCMR's and GLoT's *_db.pt and insta_train_db.h5), pieces of tracks out.

A file is a dict of arrays with one row a frame: vid_name, frame_id, img_name, features, joints2D, joints3D, pose,
shape, bbox, valid; which of them, and in which joint order, depends on the dataset. N rows of the file.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import COMMON14, SPIN49, match
from pipelines.decoders.clips import Clip
from pipelines.decoders.insta_variety import INSTA25, STORED_BOX, STORED_SCALE
from pipelines.decoders.mpi_inf_3dhp import training_fps
from pipelines.imports.feature_columns import NAMES, NUMBERS, Column

TEXT_ROWS = 16_384  # names are looked at so many at a time: as 4-byte characters a path has some 400 bytes
LARGEST = 1e30  # px or m; nothing above it is a measurement, nor fits into float32 for long
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]
# What Human3.6M and MPI-INF-3DHP know. The files fill the other slots of joints3D with minus the pelvis.
MOCAP17 = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What is particular about a dataset's files."""

    fps: float
    crop_scale: float  # of the features, where the file's name does not say
    joints2d: tuple[tuple[str, ...], ...] = (SPIN49, COMMON14)  # orders they come in; their lengths tell them apart
    known3d: tuple[str, ...] = MOCAP17  # the joints of joints3D that are measured
    first_frame: int = 0  # what frames in names of pictures are counted from
    images: str = ""  # what paths of pictures begin with, below the dataset's root


LAYOUTS = {
    "3dpw": Layout(30.0, 1.3, known3d=SPIN49, images="imageFiles/"),
    # Every second frame was kept: frame_id goes 0, 2, 4 at 50 a second.
    "human36m": Layout(50.0, DEFAULT_CROP_SCALE, images="images/"),
    "mpi_inf_3dhp": Layout(25.0, DEFAULT_CROP_SCALE, first_frame=1, images=r"S\d+/Seq\d+/|mpi_inf_3dhp_test_set/"),
    # Stored in the common order, whatever the code that reads it supposes (it takes ankles for heads).
    "penn_action": Layout(30.0, DEFAULT_CROP_SCALE, first_frame=1, images="frames/"),
    "posetrack": Layout(25.0, 1.3, images="images/"),
    "insta_variety": Layout(30.0, STORED_SCALE, joints2d=(INSTA25,)),
}


class Run(NamedTuple):
    """A track: rows [start, stop) of the file."""

    track_id: str
    start: int
    stop: int


@dataclass
class Database:
    """An open file. ``counts`` gathers what was found on the way."""

    name: str
    dataset: str
    columns: dict[str, Column]
    preprocessing: str
    crop_scale: float
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.layout = LAYOUTS[self.dataset]
        self.columns = {name: self.columns[name] for name in (*NAMES, *NUMBERS) if name in self.columns}
        needed = ["vid_name", "features", "joints2D"] + ["bbox"] * (self.dataset != "insta_variety")
        if missing := [name for name in needed if name not in self.columns]:
            raise InputError(f"{self.name}: no {', '.join(missing)} in it, so not a feature file of {self.dataset}")
        self.rows = self.columns["features"].shape[0] if self.columns["features"].shape else 0
        for name, column in self.columns.items():
            if column.shape[:1] != (self.rows,):
                raise InputError(f"{self.name}: {name} has shape {column.shape}, but features has {self.rows} rows")
            if name in NUMBERS and column.dtype.kind not in "biuf":
                raise InputError(f"{self.name}: {name} holds {column.dtype}, not numbers")
        if not self.rows:
            raise InputError(f"{self.name}: no rows in it")
        self.order2d = self._order("joints2D", self.layout.joints2d)
        self.order3d = self._order("joints3D", (SPIN49, COMMON14)) if "joints3D" in self.columns else ()
        for name, width in (("features", None), ("pose", 72), ("shape", 10), ("bbox", 4)):
            shape = self.columns[name].shape[1:] if name in self.columns else (width,)
            if len(shape) != 1 or not shape[0] or shape[0] != (width or shape[0]):
                raise InputError(f"{self.name}: {name} has shape {shape} a row, expected {(width or 2048,)}")
        self.feature_size = self.columns["features"].shape[1]
        self.frame_index = self._frame_index()

    def runs(self) -> list[Run]:
        """The tracks, in the file's order: rows of one name that lie together and whose frames rise."""
        falls = np.diff(self.frame_index, prepend=self.frame_index[:1]) <= 0
        edges: list[int] = []
        names: list[str] = []
        last: Any = None
        for start, chunk in self._text("vid_name"):
            changed = np.empty(len(chunk), bool)
            changed[0] = last is None or chunk[0] != last
            changed[1:] = chunk[1:] != chunk[:-1]
            back = falls[start : start + len(chunk)] & ~changed
            self.counts["tracks_cut_where_time_goes_back"] += int(back.sum())
            for row in np.flatnonzero(changed | back):
                names.append(_short(_decoded(chunk[row])))
                edges.append(start + int(row))
            last = chunk[-1]
        edges.append(self.rows)
        used: Counter[str] = Counter()
        found = []
        for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True):
            used[name] += 1
            # A name that comes back later is another track here; the code these files were made for swallows it.
            found.append(Run(name if used[name] == 1 else f"{name}~{used[name]}", start, stop))
        self.counts["tracks_of_a_name_used_before"] += sum(count - 1 for count in used.values())
        return found

    def piece(self, run: Run, start: int, stop: int) -> tuple[Clip, NDArray[np.float32], Counter[str]]:
        """Rows [start, stop) of the file, all of ``run``: their clip, features (n, F), and rows left out by reason."""
        features, box = self._features(start, stop), self._boxes(start, stop)
        lost = {
            "features with NaN or infinite values": ~_finite(features),
            "features that are all zero": (features == 0).all(1),
            "a box without a finite, positive size": ~(_finite(box) & (box[:, 2] > 0)),
        }
        reasons: Counter[str] = Counter()
        kept = np.ones(len(features), bool)
        for reason, rows in lost.items():
            reasons[reason] = int((rows & kept).sum())
            kept &= ~rows
        joints3d, known, has_3d = self._joints3d(start, stop)
        pose, betas, has_smpl = self._smpl(start, stop)
        clip = Clip(
            track_id=run.track_id,
            fps=self._fps(run.track_id),
            crop_scale=self.crop_scale,
            gender="neutral",
            frame_index=self.frame_index[start:stop] - (0 if self.dated else run.start),
            image=self._images(run, start, stop),
            bbox=np.where(kept[:, None], box, 1.0),
            keypoints2d=self._keypoints2d(start, stop),
            joints3d=joints3d,
            joints3d_valid=known,
            pose=pose,
            betas=betas,
            has_3d=has_3d,
            has_smpl=has_smpl,
            valid=self._valid(start, stop),
        )
        return clip.take(kept), features[kept], +reasons

    def _order(self, name: str, orders: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        shape = self.columns[name].shape[1:]
        wanted = {len(order): order for order in orders}
        if len(shape) != 2 or shape[1] != 3 or shape[0] not in wanted:
            expected = " or ".join(f"({count}, 3)" for count in wanted)
            raise InputError(f"{self.name}: {name} has shape {shape} a row, {self.dataset} has {expected}")
        return wanted[shape[0]]

    def _text(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, names) piece by piece; a piece is an array of strings or of bytes."""
        for start in range(0, self.rows, TEXT_ROWS):
            yield start, self.columns[name].rows(start, min(start + TEXT_ROWS, self.rows))

    def _frame_index(self) -> NDArray[np.int32]:
        """(N,) 0-based, from frame_id, else from the names of the pictures, else counted in the order of rows."""
        source = next((name for name in ("frame_id", "img_name") if name in self.columns), None)
        self.dated = source is not None
        if source is None:
            return np.arange(self.rows, dtype=np.int32)
        frames = np.empty(self.rows, np.int64)
        if self.columns[source].dtype.kind in "iu":
            frames[:] = self.columns[source].rows(0, self.rows)
        else:
            for start, chunk in self._text(source):
                for row, value in enumerate(chunk, start):
                    digits = re.search(r"(\d+)(\.\w+)?$", _decoded(value))
                    if digits is None or len(digits[1]) > 9:
                        raise InputError(f"{self.name}: {source} of row {row} is {_decoded(value)!r}, not a frame")
                    frames[row] = int(digits[1]) - self.layout.first_frame
        if len(bad := np.flatnonzero((frames < 0) | (frames > 2**31 - 1))):
            raise InputError(f"{self.name}: frame {frames[bad[0]]} in row {bad[0]}, which no video has")
        return frames.astype(np.int32)

    def _numbers(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Rows of a column; NaN where a number is too large to be meant."""
        values = self.columns[name].rows(start, stop).astype(np.float64)
        values[~(np.abs(values) < LARGEST)] = np.nan
        return values

    def _features(self, start: int, stop: int) -> NDArray[np.float32]:
        stored = self.columns["features"].rows(start, stop)
        values = stored.astype(np.float32, copy=False)
        if stored.dtype != np.float32 and not np.array_equal(values, stored, equal_nan=True):
            raise InputError(f"{self.name}: features are {stored.dtype} and lose digits as float32; round them first")
        return values

    def _boxes(self, start: int, stop: int) -> NDArray[np.float64]:
        """(n, 4) centre x, centre y, width, height; a box that is not square is made so around its centre."""
        if "bbox" not in self.columns:
            return np.tile(STORED_BOX, (stop - start, 1))
        # As the contract stores them, so that a size that is zero in float32 is found out here.
        box = self._numbers("bbox", start, stop).astype(np.float32).astype(np.float64)
        oblong = box[:, 2] != box[:, 3]
        self.counts["boxes_made_square"] += int((oblong & _finite(box)).sum())
        box[oblong, 2:] = box[oblong, 2:].max(1, keepdims=True)
        return box

    def _keypoints2d(self, start: int, stop: int) -> NDArray[np.float64]:
        stored = self._numbers("joints2D", start, stop)
        broken = ~_finite(stored)
        self.counts["joints2d_not_finite"] += int(broken.sum())
        stored[broken] = 0
        self.counts["confidences_outside_0_to_1"] += int(((stored[..., 2] < 0) | (stored[..., 2] > 1)).sum())
        stored[..., 2] = stored[..., 2].clip(0, 1)
        if self.preprocessing == "corrected":
            stored[stored[..., 2] == 0] = 0
        out = np.zeros((len(stored), len(SPIN49), 3))
        for source, target in match(self.order2d, SPIN49):
            out[:, target] = stored[:, source]
        return out

    def _joints3d(self, start: int, stop: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """(n, 49, 3) metres from the middle of the hips, which of them are known (n, 49), and rows that can be used.

        With "reference" they are as stored, and minus the pelvis where the source knows nothing.
        """
        joints, known = np.zeros((stop - start, len(SPIN49), 3)), np.zeros((stop - start, len(SPIN49)), bool)
        if not self.order3d:
            return joints, known, np.zeros(stop - start, bool)
        stored = self._numbers("joints3D", start, stop)
        for source, target in match(self.order3d, SPIN49):
            joints[:, target] = stored[:, source]
            known[:, target] = SPIN49[target] in self.layout.known3d
        finite = _finite(joints)
        self.counts["joints3d_not_finite"] += int((~finite & known).sum())
        joints[~finite] = 0
        if self.preprocessing == "corrected":
            joints -= joints[:, HIPS].mean(1, keepdims=True)
            joints[~(known & finite)] = 0
        wanted = [SPIN49.index(name) for name in COMMON14 if name in self.order3d and name in self.layout.known3d]
        usable = np.asarray(finite[:, wanted].all(axis=1)) & _finite(joints.reshape(len(joints), -1))
        joints[~usable] = 0
        self.counts["rows_without_3d"] += int((~usable).sum())
        return joints, known & finite & usable[:, None], usable

    def _smpl(self, start: int, stop: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(n, 24, 3) rad, (n, 10), and where there is a fit: files without, and frames without, hold zeros."""
        if "pose" not in self.columns or "shape" not in self.columns:
            return np.zeros((stop - start, 24, 3)), np.zeros((stop - start, 10)), np.zeros(stop - start, bool)
        pose, betas = self._numbers("pose", start, stop), self._numbers("shape", start, stop)
        finite = _finite(pose) & _finite(betas)
        there = finite & pose.any(1)
        self.counts["smpl_not_finite"] += int((~finite).sum())
        self.counts["rows_without_smpl"] += int((~there).sum())
        pose[~there], betas[~there] = 0, 0
        return pose.reshape(-1, 24, 3), betas, there

    def _valid(self, start: int, stop: int) -> NDArray[np.bool_]:
        name = next((name for name in ("valid", "valid_i") if name in self.columns), None)
        if name is None:
            return np.ones(stop - start, bool)
        return self._numbers(name, start, stop).reshape(stop - start, -1)[:, 0] > 0

    def _images(self, run: Run, start: int, stop: int) -> list[str]:
        if "img_name" in self.columns:
            return [self._below_root(_decoded(name)) for name in self.columns["img_name"].rows(start, stop)]
        file, _, record = run.track_id.partition("~")[0].rpartition("-")
        name = f"train/{file}#{record}/" if file.endswith(".tfrecord") else f"{run.track_id}/"
        return [f"{name}{frame}" for frame in self.frame_index[start:stop]]

    def _below_root(self, path: str) -> str:
        found = re.search(rf"(^|/)({self.layout.images})", path.replace("\\", "/")) if self.layout.images else None
        return path[found.start(2) :] if found else path

    def _fps(self, track_id: str) -> float:
        found = re.match(r"subj(\d+)_seq(\d+)_", track_id) if self.dataset == "mpi_inf_3dhp" else None
        return training_fps(int(found[1]), int(found[2])) if found else self.layout.fps


def crop_scale_of(path: Path, dataset: str) -> float:
    """What the features were cropped with: names say it as "scale12" (1.2), "scale1" and "tight" (both 1)."""
    if dataset == "insta_variety":
        return STORED_SCALE
    if found := re.search(r"_scale(\d)(\d?)_", path.name):
        return int(found[1]) + int(found[2] or 0) / 10
    return 1.0 if "_tight" in path.name else LAYOUTS[dataset].crop_scale


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether all along the last axis is."""
    return np.asarray(np.isfinite(values).all(axis=-1))


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(name: str) -> str:
    """A track's name without the folders of whoever made the file, nor the ending of an annotation."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".mat") or name or "unnamed"
