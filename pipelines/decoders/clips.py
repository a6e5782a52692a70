"""What decoders hand over: the units of work of a dataset, and from each unit the clips of its people."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.features.schema import KEYPOINTS
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work, done by one actor and resumed as a whole: a sequence with everybody in it."""

    name: str  # unique in its split, and a file name
    annotation: str  # file below the root
    images: str  # folder below the root
    frames: int  # pictures in that folder
    sources: tuple[dict[str, Any], ...]  # {path below the root, bytes, ...}: what it is made from, to notice changes

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Unit":
        values = json.loads(text)
        return cls(**{**values, "sources": tuple(values["sources"])})


def unit_of_pictures(root: Path, file: Path, images: str) -> Unit:
    """The unit of an annotation ``file`` and its folder ``images`` of .jpg below ``root``, which may be missing."""
    sizes = []
    if (root / images).is_dir():
        with os.scandir(root / images) as entries:
            sizes = [entry.stat().st_size for entry in entries if entry.name.endswith(".jpg")]
    annotation = file.relative_to(root).as_posix()
    sources = (
        {"path": annotation, "bytes": file.stat().st_size},
        {"path": images, "bytes": sum(sizes), "files": len(sizes)},
    )
    return Unit(file.stem, annotation, images, len(sizes), sources)


@dataclass(frozen=True)
class Clip:
    """One person through one clip, N frames in time order; the columns of glot.features.schema without the feature."""

    track_id: str
    fps: float
    crop_scale: float  # of 2D targets, and of features unless feature_scale says otherwise
    gender: str  # male, female or neutral
    frame_index: NDArray[np.integer]  # (N,), 0-based
    image: Sequence[str]  # N paths below the root
    bbox: NDArray[np.floating]  # (N, 4) centre x, centre y, width, height: px
    keypoints2d: NDArray[np.floating]  # (N, 49, 3) x, y px, confidence
    joints3d: NDArray[np.floating]  # (N, 49, 3) m
    joints3d_valid: NDArray[np.bool_]  # (N, 49)
    pose: NDArray[np.floating]  # (N, 24, 3) axis-angle, rad, camera frame
    betas: NDArray[np.floating]  # (N, 10)
    has_3d: NDArray[np.bool_]  # (N,)
    has_smpl: NDArray[np.bool_]  # (N,)
    valid: NDArray[np.bool_]  # (N,)
    feature_scale: float | None = None  # the reference crops some sets wider or closer than it places 2D targets

    def __post_init__(self) -> None:
        shapes = {
            "frame_index": (), "bbox": (4,), "keypoints2d": (KEYPOINTS, 3), "joints3d": (KEYPOINTS, 3),
            "joints3d_valid": (KEYPOINTS,), "pose": (24, 3), "betas": (10,), "has_3d": (), "has_smpl": (), "valid": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            assert found == (len(self), *shape), f"{self.track_id}: {name} is {found}"

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Clip":
        """The frames where ``rows`` (N,) is true, or those of these numbers."""
        numbers = np.arange(len(self))[rows]
        columns: dict[str, Any] = {
            name: value[numbers] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, image=[self.image[number] for number in numbers], **columns)


@dataclass(frozen=True)
class Decoded:
    """A unit's clips, and what there was to decode: {person_frames, rows, ...} for the manifest. Where some of a unit
    is unreadable and the rest is not, ``skipped`` names it: {what, reason, frames} each."""

    clips: list[Clip]
    counts: dict[str, int]
    skipped: list[dict[str, Any]] = field(default_factory=list)


PREPROCESSING = ("corrected", "reference")  # as it should be, or as the published features were made


class Decoder(NamedTuple):
    """A dataset. ``find(root, split)`` lists its units; InputError if there is no such data.
    ``decode(root, unit, body, preprocessing)`` reads one; InputError if it is unreadable, with the reason.
    preprocessing is one of PREPROCESSING."""

    splits: tuple[str, ...]
    find: Callable[[Path, str], list[Unit]]
    decode: Callable[[Path, Unit, Body, str], Decoded]
    box_rule: str
    crop_scale: float = DEFAULT_CROP_SCALE  # of its clips
    reference: str = ""  # what decode does otherwise when told "reference", in words for the manifest
