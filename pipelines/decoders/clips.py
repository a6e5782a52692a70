"""What decoders give to extraction: the units of work of a dataset, and the clips of the people in each unit."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.human.joints import SPIN49

if TYPE_CHECKING:  # the body needs torch; options are checked without it
    from glot.human.body import Body
    from glot.people.track_files import FrameBoxes

PREPROCESSING = ("corrected", "reference")  # without the faults of the published features, or with them


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work: a range of pictures of one source (a sequence or a video), with all of its people.

    Its rows are those with ``start`` <= frame_index < ``stop``. Usually it is a whole source; a long one is cut into
    ranges. One worker does all of a unit; an interrupted unit is done again.
    """

    name: str  # of the source, unique in its split; also the start of its track ids
    annotation: str  # path of the annotation file, below the root
    images: str  # path of the folder of pictures or of the video, below the root
    frames: int  # number of pictures
    sources: tuple[dict[str, Any], ...]  # {path below the root, bytes, ...} of its files, so that changes are noticed
    start: int = 0  # first picture of the range, 0-based
    stop: int | None = None  # the picture after the range; None: to the end of the source
    facts: dict[str, Any] = field(default_factory=dict)  # what was read in the source when it was planned
    boxes: "Mapping[str, FrameBoxes] | None" = None  # {person: boxes in the range}, for videos with --tracks

    @property
    def key(self) -> str:
        """Unique in the split; also the name of a file."""
        return self.name if self.start == 0 and self.stop is None else f"{self.name}@{self.start:07d}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Unit":
        values = json.loads(text)
        return cls(**{**values, "sources": tuple(values["sources"])})


@dataclass(frozen=True)
class Clip:
    """One person over N frames in time order: the columns of glot.features.schema except for the feature."""

    track_id: str
    fps: float
    # For the 2D targets, and for the features too unless feature_scale is given: one number, or (N,).
    crop_scale: float | NDArray[np.floating]
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
    # Crop scale of the features if it differs from crop_scale (only with reference preprocessing).
    feature_scale: float | None = None
    # (N, 2) width and height of the person's own box, px, where the source has it; ``bbox`` is a square around it.
    box_size: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        shapes = {
            "frame_index": (), "bbox": (4,), "keypoints2d": (len(SPIN49), 3), "joints3d": (len(SPIN49), 3),
            "joints3d_valid": (len(SPIN49),), "pose": (24, 3), "betas": (10,), "has_3d": (), "has_smpl": (),
            "valid": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            assert found == (len(self), *shape), f"{self.track_id}: {name} is {found}"

    def __len__(self) -> int:
        return len(self.image)

    def scale_of(self, row: int) -> float:
        """The crop scale of a row."""
        return float(self.crop_scale[row] if isinstance(self.crop_scale, np.ndarray) else self.crop_scale)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Clip":
        """The frames where the mask ``rows`` (N,) is true, or the frames with these row numbers."""
        numbers = np.arange(len(self))[rows]
        columns: dict[str, Any] = {
            name: value[numbers] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, image=[self.image[number] for number in numbers], **columns)


def without_3d(rows: int) -> dict[str, Any]:
    """Columns of a clip with ``rows`` rows whose source has no 3D joints."""
    joints = _zeros(rows, len(SPIN49), 3)
    return {
        "joints3d": joints,
        "joints3d_valid": _zeros(rows, len(SPIN49), kind=bool),
        "has_3d": _zeros(rows, kind=bool),
    }


def without_smpl(rows: int) -> dict[str, Any]:
    """Columns of a clip with ``rows`` rows whose source has no SMPL parameters."""
    return {"pose": _zeros(rows, 24, 3), "betas": _zeros(rows, 10), "has_smpl": _zeros(rows, kind=bool)}


def _zeros(*shape: int, kind: type = float) -> NDArray[Any]:
    """Zeros that cannot be written to; whatever their shape, they take the memory of one number."""
    return np.broadcast_to(np.zeros((), kind), shape)


@dataclass(frozen=True)
class Decoded:
    """The clips of a unit, with counts of what was in its files.

    ``counts`` = {person_frames, rows, ...} goes into the manifest. ``skipped`` = [{what, reason, frames}] lists what
    could not be read in a unit that could otherwise be read.
    """

    clips: list[Clip]
    counts: dict[str, int]
    skipped: list[dict[str, Any]] = field(default_factory=list)


def of_range(unit: Unit, decoded: Decoded) -> Decoded:
    """What belongs to the unit, of a whole sequence of pictures that was decoded.

    The counts of all units of a sequence add up to those of the sequence: the first unit has the counts of the whole
    sequence, except for "rows". What was skipped while decoding is in the first unit, too.
    """
    if unit.start == 0 and unit.stop is None:
        return decoded
    stop = np.inf if unit.stop is None else unit.stop
    clips = [clip.take((clip.frame_index >= unit.start) & (clip.frame_index < stop)) for clip in decoded.clips]
    clips = [clip for clip in clips if len(clip)]
    rows = {"rows": sum(len(clip) for clip in clips)}
    if unit.start == 0:
        return Decoded(clips, {**decoded.counts, **rows}, decoded.skipped)
    return Decoded(clips, rows)


class Decoder(NamedTuple):
    """How a dataset is read.

    ``find(root, split, before)`` lists the sources, each as one whole unit; InputError where the data is missing.
    ``before`` (a ``source_entries.Before``, optional) is what an earlier run knew; of a source that has not changed
    since then, ``frames`` may be 0, because the plan of that run has the number.
    ``decode(root, unit, body, preprocessing)`` reads one unit; InputError with the reason where it is unreadable.
    ``preprocessing`` is one of PREPROCESSING.
    ``cut(root, source)`` reads in a new source what its plan needs, and returns its units. Without it, the source is
    cut by picture numbers if it is ``cuttable``; ``decode`` then gives the whole source, and ``of_range`` cuts it.
    """

    splits: tuple[str, ...]
    find: Callable[..., Sequence[Unit]]
    decode: Callable[[Path, Unit, "Body", str], Decoded]
    box_rule: str  # how boxes are made, for the manifest
    crop_scale: float  # crop scale of the clips
    reference: str = ""  # what decode does differently with "reference", for the manifest
    cuttable: bool = False
    cut: Callable[[Path, Unit], list[Unit]] | None = None
    tracks: Path | None = None  # the file or the folder of boxes, for videos
    is_cropped: bool = False  # whether the pictures are crops already
