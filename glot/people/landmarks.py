"""Tracks of a video's people in; their 2D landmarks by BlazePose, and boxes around these landmarks, out.

N frames of a person, J = 17 landmarks. Memory holds one picture of the video at a time; landmarks wait in a Spool.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.features.backbones.blazepose import LANDMARK_SIZE, Landmarks
from glot.human.crop import crop_image
from glot.people.boxes import MEDIAN_FRAMES, bounds, smooth_boxes
from glot.people.footage import Footage
from glot.people.spool import Spool
from glot.people.tracks import LeftOut, Track

# Rows of BlazePose's 33 landmarks that correspond to 2D joints of the training data (glot.human.joints.THREEDPW_2D).
LANDMARKS = {
    "nose": 0, "leye": 2, "reye": 5, "lear": 7, "rear": 8, "lshoulder": 11, "rshoulder": 12, "lelbow": 13,
    "relbow": 14, "lwrist": 15, "rwrist": 16, "lhip": 23, "rhip": 24, "lknee": 25, "rknee": 26, "lankle": 27,
    "rankle": 28,
}  # fmt: skip
LANDMARK_NAMES = tuple(LANDMARKS)
CROP_SCALE = 1.25  # side of the crop for the landmark network / side of the box, as in mediapipe
PRESENT = 0.5  # landmarks count if the presence is at least this
LEAST_PRESENT = 0.5  # a track is kept if a person is present in at least this share of its frames
# A track is cut so that it begins and ends with SURE_SECONDS in which the presence is at least SURE. (While a person
# comes into the picture, the landmarks are guesses.)
SURE, SURE_SECONDS = 0.8, 0.3
BOX_SIGMA = 8.0  # standard deviation, in frames, of the Gaussian that smooths boxes in training
TRAINING_FPS = 30.0  # frame rate that BOX_SIGMA and MEDIAN_FRAMES are meant for


class Person(NamedTuple):
    """One person at every frame from the first to the last in which the landmarks were found."""

    name: str
    frames: NDArray[np.int64]  # (N,) consecutive
    bbox: NDArray[np.float32]  # (N, 4) centre x, centre y, width, height (equal): px, as in training
    seen: NDArray[np.bool_]  # (N,)
    scores: NDArray[np.float32]  # (N,) the landmark network's presence, 0 where not seen
    spool: Spool  # where the landmarks wait
    track: int  # the number of this person's track in the spool
    offset: int  # the row of the first frame in that track

    def __len__(self) -> int:
        return len(self.frames)

    def landmarks(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        """(n, J, 3) x, y px, visibility 0-1; 0 where not seen."""
        numbers = np.arange(*rows.indices(len(self))) + self.offset
        return self.spool.take(self.track, numbers).reshape(-1, len(LANDMARKS), 3)


class People(NamedTuple):
    """The people of a video, and the tracks in which the landmark network finds no person."""

    people: list[Person]
    left_out: list[LeftOut]


def spool_for(tracks: list[Track]) -> Spool:
    """An empty spool for the landmarks of the tracks."""
    return Spool([len(track.frames) for track in tracks], len(LANDMARKS) * 3)


def find_landmarks(footage: Footage, tracks: list[Track], network: Landmarks, spool: Spool) -> People:
    """Finds the landmarks of every track at every frame, and boxes around them by the rule of the training data.

    The landmarks go to ``spool``, made by ``spool_for(tracks)``.
    """
    found = [np.zeros((len(track.frames), 3)) for track in tracks]  # bounds of the landmarks (glot.people.boxes)
    presence = [np.zeros(len(track.frames), np.float32) for track in tracks]
    for number, picture in enumerate(footage.pictures("finding landmarks")):
        for index, track in enumerate(tracks):
            row = number - int(track.frames[0])
            if 0 <= row < len(track.frames):
                presence[index][row], points = _landmarks_in(picture, track.boxes[row], network)
                found[index][row] = bounds(points[None])[0]
                spool.put(index, row, points.ravel())
    people, left_out = [], []
    for index, track in enumerate(tracks):
        person = _person(track, found[index], presence[index], footage.timeline.fps, spool, index)
        if person:
            people.append(person)
        else:
            first, last, seen = int(track.frames[0]), int(track.frames[-1]), int(track.seen.sum())
            left_out.append(LeftOut(first, last, seen, "detected, but the landmark network sees no person there"))
    return People(people, left_out)


def _landmarks_in(
    picture: NDArray[np.uint8], box: NDArray[np.float64], network: Landmarks
) -> tuple[float, NDArray[np.float64]]:
    """Presence of a person in a box (left, top, width, height) of a BGR picture, and the landmarks (J, 3; else 0)."""
    left, top, width, height = box
    side = max(width, height)
    square = np.array([left + width / 2, top + height / 2, side, side])
    found = network(crop_image(picture, square, CROP_SCALE, size=LANDMARK_SIZE)[None])
    presence = found.presence[0]
    points = np.zeros((len(LANDMARKS), 3))
    if presence >= PRESENT:
        rows = list(LANDMARKS.values())
        to_picture = side * CROP_SCALE / LANDMARK_SIZE
        points[:, :2] = square[:2] + (found.landmarks[0, rows, :2] - LANDMARK_SIZE / 2) * to_picture
        points[:, 2] = found.visibility[0, rows]
    return presence, points


def _person(
    track: Track, found: NDArray[np.float64], presence: NDArray[np.float32], fps: float, spool: Spool, index: int
) -> Person | None:
    seen = presence >= PRESENT
    if seen.mean() < LEAST_PRESENT:
        return None
    found = found * _surely_present(presence, fps)[:, None]
    pace = fps / TRAINING_FPS  # the filters span the same time as in training, not the same number of frames
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
        track=index,
        offset=boxes.start,
    )


def _surely_present(presence: NDArray[np.float32], fps: float) -> NDArray[np.bool_]:
    """(N,) True from the first to the last stretch of frames with high presence; True everywhere, if there is none."""
    length = max(round(SURE_SECONDS * fps), 1)
    stretches = np.flatnonzero(np.convolve(presence >= SURE, np.ones(length), mode="valid") == length)
    present = np.ones(len(presence), np.bool_)
    if len(stretches):
        present[: stretches[0]] = present[stretches[-1] + length :] = False
    return present
