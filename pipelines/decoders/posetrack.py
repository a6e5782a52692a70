"""PoseTrack 2018's folders in (Andriluka et al. 2018), clips out: one for the track of each person, 2D joints only.

posetrack_data/annotations/{train,val}/<sequence>.json (much like COCO) and images/{train,val}/<sequence>/000000.jpg.
"""

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError, raise_if_passing
from glot.human.joints import SPIN49
from pipelines.decoders.clips import (
    Clip,
    Decoded,
    Decoder,
    Unit,
    without_3d,
    without_smpl,
)
from pipelines.decoders.source_entries import NOTHING, Before, check_root, unit_of_pictures

if TYPE_CHECKING:
    from glot.human.body import Body

SPLITS = {"train": "train", "validation": "val"}  # split -> folder; the labels of the test videos are not public
ANNOTATIONS = ("posetrack_data/annotations", "annotations")
ENLARGE, CROP_SCALE = 0.8, 1.3  # PoseTrack's boxes are wide; a crop has 0.8 * 1.3 = 1.04 of the larger side
REFERENCE_SCALE = 1.2  # crop scale of all 2D targets in the reference
FEWEST_ROWS = 8  # shorter tracks are left out, as in the published set
FARTHEST = 1e6  # px; larger coordinates are not positions
FPS = 25.0  # nominal: the files do not contain it
RENAMED = {"head_bottom": "neck", "head_top": "headtop", "nose": "nose"}


class Image(NamedTuple):
    """One picture of a video."""

    path: str  # below the root
    number: int  # 0-based
    labelled: bool


class Row(NamedTuple):
    """One person in one picture."""

    number: int
    path: str
    keypoints: NDArray[np.float64]  # (K, 3) in the file's order
    bbox: tuple[float, float, float, float]  # left, top, width, height: px


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The videos of a split, sorted by name. A video without pictures is listed too; decoding it reports that."""
    check_root(root)
    name = SPLITS[split]
    folders = [root / folder / name for folder in ANNOTATIONS]
    files = sorted(next((found for folder in folders if (found := list(folder.glob("*.json")))), []))
    if not files:
        raise InputError(f"{folders[0]}: no .json files there; unpack PoseTrack 2018's annotations into --root")
    if not (root / "images").is_dir():
        raise InputError(f"{root / 'images'}: there is no such folder; unpack PoseTrack 2018's images into --root")
    return [unit_of_pictures(root, file, f"images/{name}/{file.stem}", before) for file in files]


def decode(root: Path, unit: Unit, body: "Body", preprocessing: str) -> Decoded:
    """The clips of all tracks with at least 8 usable rows.

    Rows: labels of labelled pictures that have a joint and a box. In the middle of a training video every frame is
    labelled, elsewhere every fourth; frame_index counts pictures, so it shows the gaps.
    keypoints2d: 17 joints, found by the names in the file. Confidence is 1, or 0 at (0, 0), which is how the file
    writes a missing joint. Joints that are marked as hidden have confidence 1, since they are labelled.
    bbox: around the centre of the labelled box, side 0.8 times its larger side, cropped at 1.3.
    There is no 3D and no SMPL.

    "reference" keeps a fault of the published set: its features are cropped at 1.3, but its 2D targets are placed as if
    they were cropped at 1.2. Our targets always follow the crop. To give the same targets, the joints are moved away
    from the centre of the box by a factor of 1.3 / 1.2.
    """
    data = _load(root, unit)
    names = _joint_names(unit, data)
    images = _images(unit, data)
    folder = root / unit.images
    if not folder.is_dir():
        raise InputError(f"{unit.images}: there is no such folder, but {unit.annotation} needs its pictures")
    tracks, counts = _tracks(unit, data, images, 3 * len(names))
    clips = []
    for track in sorted(tracks):
        rows = sorted(tracks[track].values(), key=lambda row: row.number)
        if len(rows) < FEWEST_ROWS:
            counts["rows_in_short_tracks"] += len(rows)
            counts["short_tracks"] += 1
            continue
        counts["rows"] += len(rows)
        clips.append(_clip(f"{unit.name}_{track}", rows, names, reference=preprocessing == "reference"))
    return Decoded(clips, dict(counts))


def _load(root: Path, unit: Unit) -> dict[str, list[dict[str, Any]]]:
    """The file's three lists of objects."""
    try:
        data = json.loads((root / unit.annotation).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise_if_passing(error, unit.annotation)
        reason = str(error).splitlines()[0]
        raise InputError(f"{unit.annotation}: not readable as JSON ({reason})") from None
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{unit.annotation}: no list of {key} in it, so it is not a PoseTrack 2018 file")
    return data


def _joint_names(unit: Unit, data: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The joints of the annotations in their order, by the names they have among the 49."""
    people = [entry for entry in data["categories"] if entry.get("name") == "person"]
    names = people[0].get("keypoints") if len(people) == 1 else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{unit.annotation}: does not list which joints a person has")
    renamed = [RENAMED.get(name, re.sub("^(left|right)_", lambda side: side[0][0], name)) for name in names]
    if unknown := [name for name, new in zip(names, renamed, strict=True) if new not in SPIN49]:
        raise InputError(f"{unit.annotation}: unknown joints {', '.join(unknown)}")
    if len(set(renamed)) < len(renamed):
        raise InputError(f"{unit.annotation}: a joint is named twice")
    return renamed


def _images(unit: Unit, data: dict[str, list[dict[str, Any]]]) -> dict[int, Image]:
    """{id: picture}. An id is any whole number, also 0."""
    images: dict[int, Image] = {}
    for entry in data["images"]:
        key, path, labelled = entry.get("id"), entry.get("file_name"), entry.get("is_labeled")
        digits = re.search(r"(\d+)\.\w+$", path) if isinstance(path, str) else None
        if type(key) is not int or not isinstance(path, str) or not digits or not isinstance(labelled, (bool, int)):
            raise InputError(f"{unit.annotation}: image {str(key)[:40]} lacks id, file_name or is_labeled")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"{unit.annotation}: {path} is not below --root")
        if key in images:
            raise InputError(f"{unit.annotation}: two images have the id {key}")
        images[key] = Image(path, int(digits[1]), bool(labelled))
    return images


def _tracks(
    unit: Unit, data: dict[str, list[dict[str, Any]]], images: dict[int, Image], values: int
) -> tuple[dict[int, dict[int, Row]], Counter[str]]:
    """{track id: {picture's number: row}}, and counts of the rows that are left out by reason.

    An annotation has ``values`` numbers for its keypoints. A broken row is left out; the rest of the file is used.
    """
    tracks: dict[int, dict[int, Row]] = {}
    counts = Counter(
        dict.fromkeys(
            (
                "person_frames", "rows", "rows_without_picture", "rows_of_unlabelled_pictures", "rows_not_finite",
                "rows_without_joints", "rows_without_box", "rows_twice", "rows_in_short_tracks", "short_tracks",
            ),
            0,
        )
    )  # fmt: skip
    for entry in data["annotations"]:
        counts["person_frames"] += 1
        track, key = entry.get("track_id"), entry.get("image_id")
        image = images.get(key) if type(key) is int else None
        numbers = _numbers(entry.get("keypoints"), values)
        if type(track) is not int or numbers is None:
            raise InputError(
                f"{unit.annotation}: annotation {entry.get('id')} has no track_id, or not {values} keypoint values"
            )
        keypoints, box = np.array(numbers).reshape(-1, 3), _numbers(entry.get("bbox"), 4)
        if image is None:
            counts["rows_without_picture"] += 1
        elif not image.labelled:
            counts["rows_of_unlabelled_pictures"] += 1
        elif not (np.abs(keypoints) < FARTHEST).all():  # also where there is NaN
            counts["rows_not_finite"] += 1
        elif not keypoints[:, :2].any():
            counts["rows_without_joints"] += 1
        elif box is None or not all(abs(value) < FARTHEST for value in box) or min(box[2:]) <= 0:
            counts["rows_without_box"] += 1
        elif image.number in tracks.get(track, {}):
            counts["rows_twice"] += 1
        else:
            left, top, width, height = box
            row = Row(image.number, image.path, keypoints, (left, top, width, height))
            tracks.setdefault(track, {})[image.number] = row
    return tracks, counts


def _numbers(values: Any, count: int) -> list[float] | None:
    """``values`` where it is a list of ``count`` numbers, else None."""
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(type(value) is float or (type(value) is int and abs(value) < 2**63) for value in values):
        return None
    return [float(value) for value in values]


def _clip(track_id: str, rows: list[Row], names: list[str], *, reference: bool) -> Clip:
    count = len(rows)
    box = np.array([row.bbox for row in rows])
    centre, side = box[:, :2] + box[:, 2:] / 2, ENLARGE * box[:, 2:].max(1, keepdims=True)
    points = np.stack([row.keypoints[:, :2] for row in rows])  # (N, K, 2)
    seen: NDArray[np.bool_] = np.asarray(points.any(-1))
    if reference:
        points = centre[:, None] + (points - centre[:, None]) * CROP_SCALE / REFERENCE_SCALE
    keypoints2d = np.zeros((count, len(SPIN49), 3))
    slots = [SPIN49.index(name) for name in names]
    keypoints2d[:, slots, :2] = points * seen[..., None]
    keypoints2d[:, slots, 2] = seen
    return Clip(
        track_id=track_id,
        fps=FPS,
        crop_scale=CROP_SCALE,
        gender="neutral",
        frame_index=np.array([row.number for row in rows]),
        image=[row.path for row in rows],
        bbox=np.concatenate([centre, side, side], 1),
        keypoints2d=keypoints2d,
        valid=np.ones(count, bool),
        **without_3d(count),
        **without_smpl(count),
    )


POSETRACK = Decoder(
    splits=tuple(SPLITS),
    find=find_units,
    decode=decode,
    box_rule=f"{ENLARGE} x larger side of the labelled box, cropped at {CROP_SCALE}",
    crop_scale=CROP_SCALE,
    reference=f"2D targets placed as if the features saw {REFERENCE_SCALE} boxes; float16",
)
