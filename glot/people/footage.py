"""A video in, its people out: tracks of whoever is in it, BlazePose's landmarks of them, and boxes around those.

N frames of a person, J = 17 landmarks. Nothing of a video is held but one picture; it is read as often as needed.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.backbones.blazepose import LANDMARK_SIZE, Landmarks
from glot.human.crop import crop_image
from glot.people.boxes import MEDIAN_FRAMES, bounds, smooth_boxes
from glot.people.detection import Find
from glot.people.spool import Spool
from glot.people.track_files import Boxes
from glot.people.tracks import Short, Track, Tracker, finished
from glot.people.video import Timeline, Unreadable, Video, frames_said, read_timeline

# Rows of BlazePose's 33 landmarks that correspond to the 2D joints of the training data (glot.human.joints.THREEDPW_2D).
JOINTS = {
    "nose": 0, "leye": 2, "reye": 5, "lear": 7, "rear": 8, "lshoulder": 11, "rshoulder": 12, "lelbow": 13,
    "relbow": 14, "lwrist": 15, "rwrist": 16, "lhip": 23, "rhip": 24, "lknee": 25, "rknee": 26, "lankle": 27,
    "rankle": 28,
}  # fmt: skip
NAMES = tuple(JOINTS)
ROI_SCALE = 1.25  # mediapipe's, of the crop that the landmarks are looked for in
PRESENT = 0.5  # presence from which the landmarks count
LEAST_PRESENT = 0.5  # part of the frames of a track in which there must be a person
SURE = 0.8  # presence that, kept up for
SURE_SECONDS = 0.3  # begins and ends a track: of somebody who is coming in, the first landmarks are guesses
BOX_SIGMA = 8.0  # frames, of the Gaussian over boxes in training
TRAINING_FPS = 30.0  # what those frames are of
FARTHEST = 1e6  # px
WHOLE = 0.95  # part of the frames that the header speaks of, from which a video counts as whole


class Person(NamedTuple):
    """Somebody, every frame from the first to the last in which the landmarks were found."""

    name: str
    frames: NDArray[np.int64]  # (N,) consecutive
    bbox: NDArray[np.float32]  # (N, 4) centre x, centre y, width, height (equal): px, as in training
    seen: NDArray[np.bool_]  # (N,)
    scores: NDArray[np.float32]  # (N,) the landmark network's presence, 0 where not seen
    spool: Spool  # where the landmarks are,
    clip: int  # and in it
    offset: int

    def __len__(self) -> int:
        return len(self.frames)

    def landmarks(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        """(n, J, 3) x, y px, visibility 0-1; 0 where not seen."""
        numbers = np.arange(*rows.indices(len(self))) + self.offset
        return self.spool.take(self.clip, numbers).reshape(-1, len(JOINTS), 3)


class People(NamedTuple):
    """Everybody in a video, and what was left out of it: short tracklets and things that are no people."""

    people: list[Person]
    left_out: list[Short]


class Footage:
    """A video that is read from its first picture on, several times. InputError where not one picture can be had.

    ``frames`` is how many pictures it gave; known, as ``damage`` is (why there were not more), once it was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"{path}: there is no such video")
        try:
            self.timeline: Timeline = read_timeline(path)
        except Unreadable as error:
            raise InputError(f"{path}: {error}") from None
        self.frames, self.damage = 0, ""

    def pictures(self, what: str) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) BGR, upright, one after the other as far as they can be decoded; says how far it is."""
        yield from cli.progress(self._pictures(), total=self.timeline.frames, what=what)

    def _pictures(self) -> Iterator[NDArray[np.uint8]]:
        count = 0
        with closing(Video(self.path)) as video:
            while True:
                try:
                    picture = video.read(count)
                except Unreadable as error:
                    self.frames = count
                    expected = max(self.timeline.frames, frames_said(self.path))
                    if "damaged" in str(error):
                        self.damage = str(error)
                    elif count < WHOLE * expected - 1:  # headers are not exact
                        self.damage = f"the video is cut: {count} of about {expected} frames could be read"
                    return
                yield picture
                count += 1


def detected(footage: Footage, find: Find) -> tuple[list[Track], list[Short]]:
    """Looks for people in every picture and follows them."""
    tracker = Tracker(footage.timeline.fps)
    for picture in footage.pictures("looking for people"):
        found = find(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
        tracker.add(picture, found.boxes, found.scores)
    return tracker.tracks()


def given(footage: Footage, people: dict[str, Boxes]) -> tuple[list[Track], list[Short]]:
    """Tracks of boxes that somebody else made, under the names they came with. Boxes without a size are left out."""
    names, kept = [], []
    for name, boxes in people.items():
        sized = (boxes.bbox[:, 2:] > 0).all(1) & (np.abs(boxes.bbox) < FARTHEST).all(1)
        inside = sized & (boxes.frames < footage.timeline.frames)
        if inside.any():
            names.append(name)
            kept.append(Boxes(boxes.frames[inside], boxes.bbox[inside]))
    return finished(kept, fps=footage.timeline.fps, least=1, names=names)


def spool_for(tracks: list[Track]) -> Spool:
    """Room for the landmarks of tracks."""
    return Spool([len(track.frames) for track in tracks], len(JOINTS) * 3)


def looked_at(footage: Footage, tracks: list[Track], landmarks: Landmarks, spool: Spool) -> People:
    """The landmarks of everybody at every frame, which go to ``spool_for(tracks)``, and boxes around them by the rule
    of the training data."""
    found = [np.zeros((len(track.frames), 3)) for track in tracks]  # bounds of the landmarks
    presence = [np.zeros(len(track.frames), np.float32) for track in tracks]
    rows = list(JOINTS.values())
    for number, picture in enumerate(footage.pictures("looking at people")):
        for clip, (track, box, present) in enumerate(zip(tracks, found, presence, strict=True)):
            row = number - int(track.frames[0])
            if not 0 <= row < len(track.frames):
                continue
            left, top, width, height = track.boxes[row]
            side = max(width, height)
            square = np.array([left + width / 2, top + height / 2, side, side])
            said = landmarks(crop_image(picture, square, ROI_SCALE, size=LANDMARK_SIZE)[None])
            present[row] = said.presence[0]
            points = np.zeros((len(rows), 3))
            if present[row] >= PRESENT:
                to_picture = side * ROI_SCALE / LANDMARK_SIZE
                points[:, :2] = square[:2] + (said.landmarks[0, rows, :2] - LANDMARK_SIZE / 2) * to_picture
                points[:, 2] = said.visibility[0, rows]
            box[row] = bounds(points[None])[0]
            spool.put(clip, row, points.ravel())
    people, left_out = [], []
    for clip, (track, box, present) in enumerate(zip(tracks, found, presence, strict=True)):
        person = _person(track, box, present, footage.timeline.fps, spool, clip)
        if person:
            people.append(person)
        else:
            first, last, seen = int(track.frames[0]), int(track.frames[-1]), int(track.seen.sum())
            left_out.append(Short(first, last, seen, "detected, but the landmark network sees no person there"))
    return People(people, left_out)


def _person(
    track: Track, found: NDArray[np.float64], presence: NDArray[np.float32], fps: float, spool: Spool, clip: int
) -> Person | None:
    seen = presence >= PRESENT
    if seen.mean() < LEAST_PRESENT:
        return None
    found = found * _surely_there(presence, fps)[:, None]
    pace = fps / TRAINING_FPS  # as much time, not as many frames
    median = 2 * round((MEDIAN_FRAMES * pace - 1) / 2) + 1
    boxes = smooth_boxes(found, median=max(median, 1), sigma=BOX_SIGMA * pace)
    if boxes.start == boxes.stop:
        return None
    kept = slice(boxes.start, boxes.stop)
    return Person(
        name=track.person,
        frames=track.frames[kept],
        bbox=boxes.bbox.astype(np.float32),
        seen=seen[kept],
        scores=(presence * seen)[kept],
        spool=spool,
        clip=clip,
        offset=boxes.start,
    )


def _surely_there(presence: NDArray[np.float32], fps: float) -> NDArray[np.bool_]:
    """(N,) from the first to the last stretch of frames in which there surely is somebody; all, if there is none."""
    length = max(round(SURE_SECONDS * fps), 1)
    stretches = np.flatnonzero(np.convolve(presence >= SURE, np.ones(length), mode="valid") == length)
    there = np.ones(len(presence), np.bool_)
    if len(stretches):
        there[: stretches[0]] = there[stretches[-1] + length :] = False
    return there
