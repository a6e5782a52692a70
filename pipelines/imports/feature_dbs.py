"""Feature files of VIBE, TCMR and GLoT in (*_db.pt and insta_train_db.h5), clips and features of their tracks out.

A file is a dict of arrays with one row for each frame: vid_name, frame_id, img_name, features, joints2D, joints3D,
pose, shape, bbox, valid. Which of them there are, and in which joint order, depends on the dataset. N rows of the file.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.joints import COMMON14, SPIN49, match
from pipelines.decoders.clips import Clip, without_3d, without_smpl
from pipelines.decoders.dataset_facts import mpi_inf_3dhp_fps
from pipelines.decoders.insta_variety import STORED_BOX
from pipelines.imports.feature_columns import NAMES, NUMBERS, Column
from pipelines.imports.layouts import LAYOUTS

TEXT_ROWS = 16_384  # of names, read at once: with 4 bytes a character, a path has some 400 bytes
LARGEST = 1e30  # px or m; a larger number is no measurement, and close to the end of float32
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]


class Run(NamedTuple):
    """One track: the rows [start, stop) of the file."""

    track_id: str
    start: int
    stop: int


@dataclass
class Database:
    """An open file. InputError where its arrays do not fit the dataset.

    ``counts`` grows while rows are read: how many of what was mended or is missing.
    """

    name: str  # of the file, for messages
    dataset: str
    columns: dict[str, Column]
    preprocessing: str
    crop_scale: float  # for 2D targets
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.layout = LAYOUTS[self.dataset]
        self.columns = {name: self.columns[name] for name in (*NAMES, *NUMBERS) if name in self.columns}
        self._check_columns()
        self.order2d = self._order("joints2D", self.layout.joints2d)
        self.order3d = self._order("joints3D", (SPIN49, COMMON14)) if "joints3D" in self.columns else ()
        self._check_widths()
        self.feature_size = self.columns["features"].shape[1]
        self.frame_index = self._frame_index()

    def _check_columns(self) -> None:
        needed = ["vid_name", "features", "joints2D"] + ["bbox"] * (self.dataset != "insta_variety")
        if missing := [name for name in needed if name not in self.columns]:
            names = ", ".join(missing)
            raise InputError(f"{self.name}: no {names} in it, so it is not a feature file of {self.dataset}")
        self.rows = self.columns["features"].shape[0] if self.columns["features"].shape else 0
        for name, column in self.columns.items():
            if column.shape[:1] != (self.rows,):
                raise InputError(f"{self.name}: {name} has shape {column.shape}, but features has {self.rows} rows")
            if name in NUMBERS and column.dtype.kind not in "biuf":
                raise InputError(f"{self.name}: {name} holds {column.dtype}, not numbers")
        if not self.rows:
            raise InputError(f"{self.name}: no rows in it")

    def _check_widths(self) -> None:
        for name, width in (("features", None), ("pose", 72), ("shape", 10), ("bbox", 4)):
            shape = self.columns[name].shape[1:] if name in self.columns else (width,)
            if len(shape) != 1 or not shape[0] or shape[0] != (width or shape[0]):
                raise InputError(f"{self.name}: {name} has shape {shape} a row, expected {(width or 2048,)}")

    def runs(self) -> list[Run]:
        """The tracks in the order of the file. A track is consecutive rows of one name with ascending frames."""
        goes_back = np.diff(self.frame_index, prepend=self.frame_index[:1]) <= 0
        edges: list[int] = []
        names: list[str] = []
        last: Any = None
        for start, chunk in self._text("vid_name"):
            changed = np.empty(len(chunk), bool)
            changed[0] = last is None or chunk[0] != last
            changed[1:] = chunk[1:] != chunk[:-1]
            back = goes_back[start : start + len(chunk)] & ~changed
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
            # A name that comes again later is another track here. The published code adds its rows to the track before.
            found.append(Run(name if used[name] == 1 else f"{name}~{used[name]}", start, stop))
        self.counts["tracks_of_a_name_used_before"] += sum(count - 1 for count in used.values())
        return found

    def piece(self, run: Run, start: int, stop: int) -> tuple[Clip, NDArray[np.float32], Counter[str]]:
        """The clip of rows [start, stop) of the file, its features (n, F), and counts of rows left out by reason.

        All of the rows belong to ``run``.
        """
        features, box = self._features(start, stop), self._boxes(start, stop)
        unusable = {
            "features with NaN or infinite values": ~_finite(features),
            "features that are all zero": (features == 0).all(1),
            "a box without a finite, positive size": ~(_finite(box) & (box[:, 2] > 0)),
        }
        reasons: Counter[str] = Counter()
        kept = np.ones(len(features), bool)
        for reason, rows in unusable.items():
            reasons[reason] = int((rows & kept).sum())
            kept &= ~rows
        clip = Clip(
            track_id=run.track_id,
            fps=self._fps(run.track_id),
            crop_scale=self.crop_scale,
            gender="neutral",
            frame_index=self.frame_index[start:stop] - (0 if self.has_frames else run.start),
            image=self._images(run, start, stop),
            bbox=np.where(kept[:, None], box, 1.0),
            keypoints2d=self._keypoints2d(start, stop),
            valid=self._valid(start, stop),
            **self._joints3d(start, stop),
            **self._smpl(start, stop),
        )
        return clip.take(kept), features[kept], +reasons

    def _order(self, name: str, orders: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        """The joint order of a column: the one of ``orders`` that has as many joints as the column."""
        shape = self.columns[name].shape[1:]
        wanted = {len(order): order for order in orders}
        if len(shape) != 2 or shape[1] != 3 or shape[0] not in wanted:
            expected = " or ".join(f"({count}, 3)" for count in wanted)
            raise InputError(f"{self.name}: {name} has shape {shape} a row, {self.dataset} has {expected}")
        return wanted[shape[0]]

    def _text(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, names) of one piece after the other; names are an array of strings or of bytes."""
        for start in range(0, self.rows, TEXT_ROWS):
            yield start, self.columns[name].rows(start, min(start + TEXT_ROWS, self.rows))

    def _frame_index(self) -> NDArray[np.int32]:
        """(N,) 0-based: from frame_id, else from the names of the pictures, else the numbers of the rows."""
        source = next((name for name in ("frame_id", "img_name") if name in self.columns), None)
        self.has_frames = source is not None
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
                        raise InputError(
                            f"{self.name}: {source} of row {row} is {_decoded(value)!r}, not the number of a frame"
                        )
                    frames[row] = int(digits[1]) - self.layout.first_frame
        if len(bad := np.flatnonzero((frames < 0) | (frames > 2**31 - 1))):
            raise InputError(f"{self.name}: frame {frames[bad[0]]} in row {bad[0]}, which no video has")
        return frames.astype(np.int32)

    def _numbers(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Rows of a column; NaN where a number is too large for a measurement."""
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
        """(n, 4) centre x, centre y, width, height; a box that is not square grows into one around its centre."""
        if "bbox" not in self.columns:
            return np.tile(STORED_BOX, (stop - start, 1))
        # In float32, as the contract stores them: a size that becomes zero there is found here.
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

    def _joints3d(self, start: int, stop: int) -> dict[str, Any]:
        """The columns joints3d (n, 49, 3), joints3d_valid (n, 49) and has_3d (n,) of a clip.

        Joints are in metres, relative to the mean of the hips; unknown ones are 0. With "reference" they are as stored,
        with minus the pelvis at joints that the source does not have.
        """
        if not self.order3d:
            return without_3d(stop - start)
        joints, known = np.zeros((stop - start, len(SPIN49), 3)), np.zeros((stop - start, len(SPIN49)), bool)
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
        return {"joints3d": joints, "joints3d_valid": known & finite & usable[:, None], "has_3d": usable}

    def _smpl(self, start: int, stop: int) -> dict[str, Any]:
        """The columns pose (n, 24, 3) rad, betas (n, 10) and has_smpl (n,) of a clip; zeros in rows without a fit."""
        if "pose" not in self.columns or "shape" not in self.columns:
            return without_smpl(stop - start)
        pose, betas = self._numbers("pose", start, stop), self._numbers("shape", start, stop)
        finite = _finite(pose) & _finite(betas)
        has_smpl = finite & pose.any(1)
        self.counts["smpl_not_finite"] += int((~finite).sum())
        self.counts["rows_without_smpl"] += int((~has_smpl).sum())
        pose[~has_smpl], betas[~has_smpl] = 0, 0
        return {"pose": pose.reshape(-1, 24, 3), "betas": betas, "has_smpl": has_smpl}

    def _valid(self, start: int, stop: int) -> NDArray[np.bool_]:
        name = next((name for name in ("valid", "valid_i") if name in self.columns), None)
        if name is None:
            return np.ones(stop - start, bool)
        return self._numbers(name, start, stop).reshape(stop - start, -1)[:, 0] > 0

    def _images(self, run: Run, start: int, stop: int) -> list[str]:
        """Paths of the pictures below the dataset's root, or names made of track and frame where there are none."""
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
        return mpi_inf_3dhp_fps(int(found[1]), int(found[2])) if found else self.layout.fps


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all numbers along the last axis are finite."""
    return np.asarray(np.isfinite(values).all(axis=-1))


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(name: str) -> str:
    """The name of a track without folders of the machine where the file was made, and without ".mat"."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".mat") or name or "unnamed"
