"""Files of boxes of a video's people, made by another program (JSON, or the MOT challenge's text), in; boxes out."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError

MOT_COLUMNS = 6  # frame (from 1), id, left, top, width, height; what follows (confidence, ...) is not needed
FARTHEST = 1e6  # px from the origin; boxes beyond it are mistakes
TRACK_FILES = (".json", ".txt", ".csv")


class FrameBoxes(NamedTuple):
    """Where one person is, in some frames."""

    frames: NDArray[np.int64]  # (n,) 0-based, rising
    bbox: NDArray[np.float64]  # (n, 4) left, top, width, height: px

    def with_size(self) -> NDArray[np.bool_]:
        """(n,) whether a box has a width and a height above 0, and pixel values below FARTHEST."""
        return np.asarray((self.bbox[:, 2:] > 0).all(1) & (np.abs(self.bbox) < FARTHEST).all(1))  # NaN fails, too


def read_tracks(video: str, tracks: Path) -> dict[str, FrameBoxes]:
    """The boxes of a video's people, by their names. InputError if there is no file in one of the two formats.

    JSON: {"person": {"frames": [0, 1, ...], "bbox": [[left, top, width, height], ...]}}, frames counted from 0; or an
    object with one such object for each video, under the video's path below the root. Text: the MOT challenge's lines,
    frames counted from 1.
    """
    path = track_file(video, tracks)
    if path is None:
        raise InputError(f"{video}: {tracks} has no boxes for it; expected a file {Path(video).stem}.json or .txt")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from None
    try:
        found = _from_json(json.loads(text), video) if path.suffix.lower() == ".json" else _from_mot(text)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: holds no boxes in JSON or in the MOT format ({error})") from None
    if found is None:
        raise InputError(f"{path}: has no boxes for {video}")
    return found


def track_file(video: str, tracks: Path) -> Path | None:
    """The file of a video's boxes: ``tracks`` itself, or the file in that folder with the video's name, or None."""
    if tracks.is_file():
        return tracks
    bases = (tracks / Path(video).with_suffix(""), tracks / Path(video).stem)
    names = [base.with_name(base.name + suffix) for base in bases for suffix in TRACK_FILES]
    return next((name for name in names if name.is_file()), None)


def _from_json(content: Any, video: str) -> dict[str, FrameBoxes] | None:
    if not isinstance(content, dict):
        raise ValueError("the content is not an object with people")
    people: Any = content
    if not all(isinstance(value, dict) and "frames" in value for value in content.values()):
        people = content.get(video, content.get(Path(video).name))
        if people is None:
            return None
    return {str(person): _boxes(value["frames"], value["bbox"], person) for person, value in people.items()}


def _from_mot(text: str) -> dict[str, FrameBoxes]:
    rows: dict[str, list[list[float]]] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if not row:
            continue
        if len(row) < MOT_COLUMNS:
            raise ValueError(f"line {number} has {len(row)} numbers, fewer than {MOT_COLUMNS}")
        rows.setdefault(f"{float(row[1]):g}", []).append([float(row[0]) - 1, *map(float, row[2:MOT_COLUMNS])])
    return {
        person: _boxes([row[0] for row in values], [row[1:] for row in values], person)
        for person, values in rows.items()
    }


def _boxes(frames: Any, bbox: Any, person: str) -> FrameBoxes:
    numbers, values = np.asarray(frames, np.float64).ravel(), np.asarray(bbox, np.float64)
    if values.shape != (len(numbers), 4):
        raise ValueError(f"person {person}: {len(numbers)} frames, boxes {values.shape}")
    if not ((numbers >= 0) & (numbers < 2**31) & (numbers == np.floor(numbers))).all():
        raise ValueError(f"person {person}: frames must be whole numbers from 0 on")
    order = np.argsort(numbers, kind="stable")
    rising, values = numbers[order].astype(np.int64), values[order]
    if len(twice := np.flatnonzero(np.diff(rising) == 0)):
        raise ValueError(f"person {person}: two boxes in frame {rising[twice[0]]}")
    return FrameBoxes(rising, values)
