"""Lists of frame numbers and boxes in, checked boxes of people out, with a hash of their content."""

import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FARTHEST = 1e6  # px from the origin; boxes beyond it are mistakes
MOST_FRAMES = 2**31


class FrameBoxes(NamedTuple):
    """Where one person is, in some frames."""

    frames: NDArray[np.int64]  # (n,) 0-based, rising
    bbox: NDArray[np.float64]  # (n, 4) left, top, width, height: px

    def with_size(self) -> NDArray[np.bool_]:
        """(n,) whether a box has a width and a height above 0, and pixel values below FARTHEST."""
        return np.asarray((self.bbox[:, 2:] > 0).all(1) & (np.abs(self.bbox) < FARTHEST).all(1))

    def between(self, start: int, stop: int | None) -> "FrameBoxes":
        """The boxes with ``start`` <= frame < ``stop``; ``stop`` None: to the end. No numbers are copied."""
        first = int(np.searchsorted(self.frames, start))
        last = len(self.frames) if stop is None else int(np.searchsorted(self.frames, stop))
        return FrameBoxes(self.frames[first:last], self.bbox[first:last])


class VideoBoxes(NamedTuple):
    """The boxes of a video's people, as a file has them."""

    people: dict[str, FrameBoxes]  # by their names, in the order of the file
    hash: str  # 16 hex digits: of the names and numbers, not of the file's other content or of how it is written
    left_out: int = 0  # boxes that MOT's ground truth marks as no pedestrian, or as not to be considered


def video_boxes(people: dict[str, FrameBoxes], *, left_out: int = 0) -> VideoBoxes:
    """The boxes with their hash. ValueError if a name is not text that can be written as UTF-8."""
    return VideoBoxes(people, hash_of(people), left_out)


def hash_of(people: Mapping[str, FrameBoxes]) -> str:
    """16 hex digits of the SHA-256 of names, frames and boxes. The order of the people does not matter."""
    digest = hashlib.sha256()
    for person in sorted(people):
        frames, bbox = people[person]
        name = person.encode()
        digest.update(np.array([len(name), len(frames)], "<i8").tobytes() + name)
        digest.update(frames.astype("<i8").tobytes())
        digest.update((bbox + 0.0).astype("<f8").tobytes())  # -0.0 becomes 0.0, which is the same number
    return digest.hexdigest()[:16]


def boxes_of_lists(frames: Any, bbox: Any, person: str) -> FrameBoxes:
    """Boxes from what a JSON file holds: ``frames`` [n floats], ``bbox`` [n lists of 4 floats].

    ValueError for anything else, for example true, null or "12" among the numbers.
    """
    numbers = _as_numbers(frames, f"person {person}: frames")
    if not isinstance(bbox, list) or not set(map(type, bbox)) <= {list}:
        raise ValueError(f"person {person}: bbox is not a list of boxes [left, top, width, height]")
    sizes = set(map(len, bbox))
    if len(bbox) != len(numbers) or not sizes <= {4}:
        shape = f"{len(bbox)} with {' or '.join(map(str, sorted(sizes)))} numbers each" if bbox else "none"
        raise ValueError(f"person {person}: {len(numbers)} frames, boxes: {shape}; expected 4 numbers for each frame")
    values = _as_numbers(list(chain.from_iterable(bbox)), f"person {person}: bbox")
    return frame_boxes(numbers, values.reshape(-1, 4), person)


def frame_boxes(frames: NDArray[np.float64], bbox: NDArray[np.float64], person: str) -> FrameBoxes:
    """Boxes (n, 4) at ``frames`` (n,), 0-based, in any order. ValueError if they are no boxes of one person."""
    if not ((frames >= 0) & (frames < MOST_FRAMES) & (frames == np.floor(frames))).all():  # NaN fails, too
        raise ValueError(f"person {person}: frames must be whole numbers from the first frame on")
    order = np.argsort(frames, kind="stable")
    rising, values = frames[order].astype(np.int64), bbox[order]
    if len(twice := np.flatnonzero(np.diff(rising) == 0)):
        raise ValueError(f"person {person}: two boxes in frame {rising[twice[0]]} (counted from 0)")
    if not (finite := np.isfinite(values).all(1)).all():
        raise ValueError(f"person {person}: the box in frame {rising[~finite][0]} holds NaN or an infinite number")
    return FrameBoxes(rising, values)


def _as_numbers(values: Any, what: str) -> NDArray[np.float64]:
    if not isinstance(values, list) or not set(map(type, values)) <= {float}:
        raise ValueError(f"{what} is not a list of numbers")
    return np.fromiter(values, np.float64, len(values))
