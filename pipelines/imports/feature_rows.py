"""Rows of a feature file in, clips as feature sets need them and features out."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.joints import COMMON14, SPIN49, match
from pipelines.decoders.clips import Clip, without_3d, without_smpl
from pipelines.decoders.dataset_facts import mpi_inf_3dhp_fps
from pipelines.decoders.insta_variety import STORED_BOX
from pipelines.imports.feature_dbs import Database, TrackRows, decoded

LARGEST = 1e30  # px or m; a larger number is no measurement, and close to the end of float32
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]


@dataclass(frozen=True)
class RowReader:
    """Reads rows of an open file. ``database.counts`` counts what it corrects and what it cannot use."""

    database: Database
    preprocessing: str
    crop_scale: float  # crop scale of the 2D targets

    def piece(self, track: TrackRows, start: int, stop: int) -> tuple[Clip, NDArray[np.float32], Counter[str]]:
        """The clip of rows [start, stop) of the file, its features (n, F), and {reason: rows left out for it}.

        All of the rows belong to ``track``.
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
            track_id=track.track_id,
            fps=self._fps(track.track_id),
            crop_scale=self.crop_scale,
            gender=self._gender(track),
            frame_index=self.database.frame_index[start:stop] - (0 if self.database.has_frames else track.start),
            image=self._images(track, start, stop),
            bbox=np.where(kept[:, None], box, 1.0),
            keypoints2d=self._keypoints2d(start, stop),
            valid=self._valid(start, stop),
            **self._joints3d(start, stop),
            **self._smpl(start, stop),
        )
        return clip.take(kept), features[kept], +reasons

    def _numbers(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Rows of a column; NaN where a number is too large for a measurement."""
        values = self.database.columns[name].rows(start, stop).astype(np.float64)
        values[~(np.abs(values) < LARGEST)] = np.nan
        return values

    def _features(self, start: int, stop: int) -> NDArray[np.float32]:
        stored = self.database.columns["features"].rows(start, stop)
        values = stored.astype(np.float32, copy=False)
        if stored.dtype != np.float32 and not np.array_equal(values, stored, equal_nan=True):
            raise InputError(
                f"{self.database.name}: features are {stored.dtype} and lose digits as float32; round them first"
            )
        return values

    def _boxes(self, start: int, stop: int) -> NDArray[np.float64]:
        """(n, 4) centre x, centre y, width, height. A box that is not square becomes a larger square around it."""
        if "bbox" not in self.database.columns:
            return np.tile(STORED_BOX, (stop - start, 1))
        # Feature sets store boxes in float32. Rounded here, a size that becomes 0 is noticed before it is stored.
        box = self._numbers("bbox", start, stop).astype(np.float32).astype(np.float64)
        oblong = box[:, 2] != box[:, 3]
        self.database.counts["boxes_made_square"] += int((oblong & _finite(box)).sum())
        box[oblong, 2:] = box[oblong, 2:].max(1, keepdims=True)
        return box

    def _gender(self, track: TrackRows) -> str:
        if "gender" not in self.database.columns:
            return "neutral"
        name = decoded(self.database.columns["gender"].rows(track.start, track.start + 1)[0])
        return name if name in ("male", "female") else "neutral"

    def _keypoints2d(self, start: int, stop: int) -> NDArray[np.float64]:
        if not self.database.order2d:
            return np.zeros((stop - start, len(SPIN49), 3))
        stored = self._numbers("joints2D", start, stop)
        broken = ~_finite(stored)
        self.database.counts["joints2d_not_finite"] += int(broken.sum())
        stored[broken] = 0
        self.database.counts["confidences_outside_0_to_1"] += int(((stored[..., 2] < 0) | (stored[..., 2] > 1)).sum())
        stored[..., 2] = stored[..., 2].clip(0, 1)
        if self.preprocessing == "corrected":
            stored[stored[..., 2] == 0] = 0
        out = np.zeros((len(stored), len(SPIN49), 3))
        for source, target in match(self.database.order2d, SPIN49):
            out[:, target] = stored[:, source]
        return out

    def _joints3d(self, start: int, stop: int) -> dict[str, Any]:
        """The columns joints3d (n, 49, 3), joints3d_valid (n, 49) and has_3d (n,) of a clip.

        Joints are in metres, relative to the mean of the hips; unknown ones are 0. With "reference" they are as stored,
        with minus the pelvis at joints that the source does not have.
        """
        if not self.database.order3d:
            return without_3d(stop - start)
        joints, known = np.zeros((stop - start, len(SPIN49), 3)), np.zeros((stop - start, len(SPIN49)), bool)
        stored = self._numbers("joints3D", start, stop)
        for source, target in match(self.database.order3d, SPIN49):
            joints[:, target] = stored[:, source]
            known[:, target] = SPIN49[target] in self.database.layout.known3d
        finite = _finite(joints)
        self.database.counts["joints3d_not_finite"] += int((~finite & known).sum())
        joints[~finite] = 0
        if self.preprocessing == "corrected":
            joints -= joints[:, HIPS].mean(1, keepdims=True)
            joints[~(known & finite)] = 0
        wanted = [
            SPIN49.index(name)
            for name in COMMON14
            if name in self.database.order3d and name in self.database.layout.known3d
        ]
        usable = np.asarray(finite[:, wanted].all(axis=1)) & _finite(joints.reshape(len(joints), -1))
        joints[~usable] = 0
        self.database.counts["rows_without_3d"] += int((~usable).sum())
        return {"joints3d": joints, "joints3d_valid": known & finite & usable[:, None], "has_3d": usable}

    def _smpl(self, start: int, stop: int) -> dict[str, Any]:
        """The columns pose (n, 24, 3) rad, betas (n, 10) and has_smpl (n,) of a clip; zeros in rows without a fit."""
        if "pose" not in self.database.columns or "shape" not in self.database.columns:
            return without_smpl(stop - start)
        pose, betas = self._numbers("pose", start, stop), self._numbers("shape", start, stop)
        finite = _finite(pose) & _finite(betas)
        has_smpl = finite & pose.any(1)
        self.database.counts["smpl_not_finite"] += int((~finite).sum())
        self.database.counts["rows_without_smpl"] += int((~has_smpl).sum())
        pose[~has_smpl], betas[~has_smpl] = 0, 0
        return {"pose": pose.reshape(-1, 24, 3), "betas": betas, "has_smpl": has_smpl}

    def _valid(self, start: int, stop: int) -> NDArray[np.bool_]:
        name = next((name for name in ("valid", "valid_i") if name in self.database.columns), None)
        if name is None:
            return np.ones(stop - start, bool)
        return self._numbers(name, start, stop).reshape(stop - start, -1)[:, 0] > 0

    def _images(self, track: TrackRows, start: int, stop: int) -> list[str]:
        """Paths of the pictures below the dataset's root. A file without paths gets names from track and frame."""
        if "img_name" in self.database.columns:
            return [self._below_root(decoded(name)) for name in self.database.columns["img_name"].rows(start, stop)]
        file, _, record = track.track_id.partition("~")[0].rpartition("-")
        name = f"train/{file}#{record}/" if file.endswith(".tfrecord") else f"{track.track_id}/"
        return [f"{name}{frame}" for frame in self.database.frame_index[start:stop]]

    def _below_root(self, path: str) -> str:
        found = (
            re.search(rf"(^|/)({self.database.layout.images})", path.replace("\\", "/"))
            if self.database.layout.images
            else None
        )
        return path[found.start(2) :] if found else path

    def _fps(self, track_id: str) -> float:
        found = re.match(r"subj(\d+)_seq(\d+)_", track_id) if self.database.dataset == "mpi_inf_3dhp" else None
        return mpi_inf_3dhp_fps(int(found[1]), int(found[2])) if found else self.database.layout.fps


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all numbers along the last axis are finite."""
    return np.asarray(np.isfinite(values).all(axis=-1))
