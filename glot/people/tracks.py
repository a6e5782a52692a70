"""Detections of people in each frame in; tracks of them through the video, without gaps and with smooth boxes, out.

n boxes of a picture, N frames of a track. Boxes are left, top, width, height: px of the upright picture.
"""

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from trackforge import TRACKTRACK

from glot.people.detection import PersonDetector
from glot.people.footage import Footage
from glot.people.track_files import FrameBoxes

# trackforge (MIT) has wheels for every Python here and no dependencies; better known packages need another OpenCV or an
# old numpy. Of its trackers, only TrackTrack (Shim et al., CVPR 2025) distinguished people who cross, by their
# appearance. People in similar clothes it mostly distinguishes by their movement.
LEAST_SCORE = 0.5  # least score of a detection that continues a track
SURE_SCORE = 0.6  # least score of a detection that begins a track
LOST_SECONDS = 2.0  # a person who comes back after a longer time gets a new track
SHORT_SECONDS = 0.5  # a person seen for a shorter time is reported, not reconstructed
SMOOTH_SECONDS = 0.1  # standard deviation of the Gaussian that smooths boxes
# A detection is added in front of a track that begins within BEFORE_SECONDS after it, if the intersection over union of
# both boxes is at least SAME_PLACE.
BEFORE_SECONDS, SAME_PLACE = 0.2, 0.3
HUES, SATURATIONS, VALUES = 12, 4, 4  # bins of the colour histograms


class Track(NamedTuple):
    """One person at every frame from the first to the last; ``seen`` is False where the box was interpolated."""

    person: str
    frames: NDArray[np.int64]  # (N,) consecutive
    boxes: NDArray[np.float64]  # (N, 4)
    seen: NDArray[np.bool_]  # (N,)


class LeftOut(NamedTuple):
    """A track that is not reconstructed, and the reason. It is reported, so that nothing is lost silently."""

    first: int  # number of the first frame
    last: int  # number of the last frame
    seen: int  # number of frames with a detection
    reason: str


Box = tuple[float, ...]  # left, top, width, height: px


class _Tracklet:
    """The boxes of one person as they are detected.

    They are kept in two long arrays of numbers. Thousands of small objects, allocated between large pictures, would
    keep the heap from shrinking: 40 KB for every frame of a long video.
    """

    def __init__(self) -> None:
        self.frames, self.numbers = array("q"), array("d")  # numbers: four for each box

    def first(self) -> Box:
        return tuple(self.numbers[:4])

    def append(self, frame: int, box: Box) -> None:
        self.frames.append(frame)
        self.numbers.extend(box)

    def prepend(self, frame: int, box: Box) -> None:
        self.frames.insert(0, frame)
        self.numbers[:0] = array("d", box)

    def all(self) -> FrameBoxes:
        return FrameBoxes(np.array(self.frames, np.int64), np.array(self.numbers).reshape(-1, 4))


class Tracker:
    """Takes the detections of a video picture by picture, in order, and returns the tracks at the end."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self._tracker = TRACKTRACK(
            det_thresh=LEAST_SCORE,
            init_thresh=SURE_SCORE,
            min_hits=1,
            track_buffer=max(round(LOST_SECONDS * fps), 1),
        )
        self._tracklets: dict[int, _Tracklet] = {}
        self._left: dict[int, list[tuple[Box, float]]] = {}  # frame -> detections that belong to no track
        self._frames = 0

    def add(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> None:
        """Adds the next picture (H, W, 3, BGR), its boxes (n, 4) and their scores (n,)."""
        boxes = np.asarray(boxes, np.float64)
        found = [(box.tolist(), float(score), 0) for box, score in zip(boxes, scores, strict=True)]
        appearances = [appearance(picture, box).tolist() for box in boxes]
        taken = set()
        for number, _, _, _, row in self._tracker.update(found, appearances):
            if row is not None:
                if number not in self._tracklets:
                    self._tracklets[number] = _Tracklet()
                self._tracklets[number].append(self._frames, tuple(boxes[row].tolist()))
                taken.add(row)
        left = [(tuple(boxes[row].tolist()), float(scores[row])) for row in range(len(boxes)) if row not in taken]
        if left:
            self._left[self._frames] = left
        self._frames += 1

    def tracks(self) -> tuple[list[Track], list[LeftOut]]:
        """The tracks in the order of their first frames, and the tracks that are too short. Called at the end."""
        for tracklet in self._tracklets.values():
            self._extend_back(tracklet)
        for frame, detections in self._left.items():
            for box, score in detections:
                if score >= SURE_SCORE:
                    alone = self._tracklets[-len(self._tracklets) - 1] = _Tracklet()
                    alone.append(frame, box)
        people = sorted(self._tracklets.values(), key=lambda tracklet: tracklet.frames[0])
        raw = [tracklet.all() for tracklet in people]
        # In a video shorter than a second, half of its frames are enough.
        least = min(max(round(SHORT_SECONDS * self.fps), 1), (self._frames + 1) // 2)
        return finished(raw, fps=self.fps, least=least)

    def _extend_back(self, tracklet: _Tracklet) -> None:
        """Adds earlier detections. The tracker begins a track only at the second detection in a row."""
        frame, reach = tracklet.frames[0] - 1, max(round(BEFORE_SECONDS * self.fps), 1)
        while frame >= max(tracklet.frames[0] - reach, 0):
            left = self._left.get(frame, [])
            shared = [overlap(np.array(tracklet.first()), np.array(box)) for box, _ in left]
            if shared and max(shared) >= SAME_PLACE:
                tracklet.prepend(frame, left.pop(int(np.argmax(shared)))[0])
            frame -= 1


def detect_tracks(footage: Footage, detector: PersonDetector) -> tuple[list[Track], list[LeftOut]]:
    """Detects people in every picture of a video and follows them."""
    tracker = Tracker(footage.timeline.fps)
    for picture in footage.pictures("detecting people"):
        found = detector(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
        tracker.add(picture, found.boxes, found.scores)
    return tracker.tracks()


def tracks_of_boxes(footage: Footage, people: dict[str, FrameBoxes]) -> tuple[list[Track], list[LeftOut]]:
    """Tracks of boxes that another program made (name -> boxes). Boxes without size or beyond the video are skipped."""
    names, kept = [], []
    for name, boxes in people.items():
        inside = boxes.with_size() & (boxes.frames < footage.timeline.frames)
        if inside.any():
            names.append(name)
            kept.append(FrameBoxes(boxes.frames[inside], boxes.bbox[inside]))
    return finished(kept, fps=footage.timeline.fps, least=1, names=names)


def finished(
    raw: Sequence[FrameBoxes], *, fps: float, least: int, names: Sequence[str] = ()
) -> tuple[list[Track], list[LeftOut]]:
    """Boxes of people as they were detected -> tracks, and the people with boxes in fewer than ``least`` frames.

    ``names`` has a name for each of ``raw``. Without ``names``, the tracks are called "1", "2", ...
    """
    tracks: list[Track] = []
    short: list[LeftOut] = []
    for number, boxes in enumerate(raw):
        first, last = int(boxes.frames[0]), int(boxes.frames[-1])
        if len(boxes.frames) < least:
            frames = "1 frame" if len(boxes.frames) == 1 else f"{len(boxes.frames)} frames"
            short.append(LeftOut(first, last, len(boxes.frames), f"seen in {frames}, fewer than {least}"))
        else:
            tracks.append(filled(names[number] if names else str(len(tracks) + 1), boxes, fps=fps))
    return tracks, short


def filled(person: str, boxes: FrameBoxes, *, fps: float) -> Track:
    """Boxes of some frames -> a box at every frame between the first and the last, smoothed over time."""
    frames = np.arange(boxes.frames[0], boxes.frames[-1] + 1)
    every = np.column_stack([np.interp(frames, boxes.frames, column) for column in boxes.bbox.T])
    corners = np.column_stack([every[:, :2], every[:, :2] + every[:, 2:]])
    smooth = gaussian_filter1d(corners, SMOOTH_SECONDS * fps, axis=0, mode="nearest")
    return Track(
        person, frames, np.column_stack([smooth[:, :2], smooth[:, 2:] - smooth[:, :2]]), np.isin(frames, boxes.frames)
    )


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.clip(sides, 0, None).prod())
    return shared / max(float(a[2:].prod() + b[2:].prod()) - shared, 1e-9)


def appearance(picture: NDArray[np.uint8], box: NDArray[np.floating]) -> NDArray[np.float32]:
    """(2 * 192,) of norm 1: colour histograms of the clothes on the upper and on the lower half of a person's body.

    Only the middle of the box counts: a square around a body has more background than body in it.
    """
    left, top, width, height = (float(value) for value in box)
    reach = min(width, 0.45 * height) / 4
    middle = left + width / 2
    halves = []
    for low, high in ((0.2, 0.5), (0.5, 0.85)):
        rows = slice(*(int(np.clip(top + part * height, 0, picture.shape[0])) for part in (low, high)))
        columns = slice(*(int(np.clip(middle + sign * reach, 0, picture.shape[1])) for sign in (-1, 1)))
        halves.append(_histogram(picture[rows, columns]))
    return np.concatenate(halves) / np.float32(np.sqrt(2))


def _histogram(part: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(192,) of norm 1: square roots of the bins' shares. Their dot product is the Bhattacharyya coefficient."""
    bins: Any = [HUES, SATURATIONS, VALUES]
    if part.size == 0:
        return np.full(int(np.prod(bins)), np.prod(bins) ** -0.5, np.float32)
    hsv = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, bins, [0, 180, 0, 256, 0, 256])
    return np.sqrt(counts.ravel() / counts.sum()).astype(np.float32)
