"""A video's pictures and its people's Motions in, the frames of a film out: the bodies over the picture and sideways.

V vertices. A body that is farther away is drawn first, so that nearer ones cover it.
"""

import colorsys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.human.body import Body
from glot.motion.motion_files import StoredMotion
from glot.motion.person_motion import Motion, vertices
from glot.pictures.contact_sheet import place
from glot.pictures.drawing import PAPER, Picture, draw_body, side_view, write

TALLEST = 720  # px, largest height of the film
BLOCK = 16  # frames whose bodies are posed together, which is several times faster than one by one
GOLDEN = 0.618  # with steps of the golden ratio, any number of hues are different


def colour_of(number: int) -> NDArray[np.float64]:
    """RGB 0-1 of a person; ``number`` counts from 0."""
    return np.array(colorsys.hsv_to_rgb((0.6 + GOLDEN * number) % 1, 0.5, 0.92))


class FilmedPerson:
    """One person of the film. The motion is read from its .parquet file block by block, when it is needed."""

    def __init__(self, path: Path, body: Body, colour: NDArray[np.floating]) -> None:
        self.motion = StoredMotion(path)
        self.body, self.colour = body, colour
        self._block = -1
        self._poses: list[Pose] = []

    def pose(self, frame: int) -> "Pose | None":
        """The body in a frame of the video; None if the person is not in it."""
        row = int(np.searchsorted(self.motion.frames, frame))
        if row == len(self.motion) or self.motion.frames[row] != frame:
            return None
        if self._block != row // BLOCK:
            self._block = row // BLOCK
            start = self._block * BLOCK
            self._poses = poses(self.motion.rows(start, min(start + BLOCK, len(self.motion))), self.body)
        return self._poses[row % BLOCK]


class Pose(NamedTuple):
    """One person's body in one frame."""

    person: str
    vertices: NDArray[np.float32]  # (V, 3) m, camera frame
    pelvis: NDArray[np.float32]  # (3,) m
    intrinsics: NDArray[np.float64]  # (3, 3) px


def poses(motion: Motion, body: Body) -> list[Pose]:
    """The body in each frame of a short motion."""
    meshes = vertices(motion, body)
    return [
        Pose(motion.person, mesh, joints[0], motion.intrinsics)
        for mesh, joints in zip(meshes, motion.joints3d, strict=True)
    ]


def film(pictures: Iterable[tuple[int, Picture]], files: list[tuple[range, Path]], body: Body) -> Iterator[Picture]:
    """Frames (RGB): the picture with all bodies over it, and beside it each body from the camera's right.

    ``pictures`` are frame numbers, rising, and RGB pictures. ``files`` are, for each person, the range from the first
    to the last frame, and the motion's .parquet file.
    """
    people: dict[int, FilmedPerson] = {}
    for frame, picture in pictures:
        for number, (frames, path) in enumerate(files):
            if frame in frames and number not in people:
                people[number] = FilmedPerson(path, body, colour_of(number))
            elif frame not in frames and number in people:
                people.pop(number).motion.close()
        yield _frame(frame, picture, people, body)


def _frame(frame: int, picture: Picture, people: dict[int, FilmedPerson], body: Body) -> Picture:
    height, width = picture.shape[:2]
    scale = min(1.0, TALLEST / height)
    tall, wide = (max(round(scale * side) // 2 * 2, 2) for side in (height, width))
    left: Picture = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    shown = [(person, pose) for _, person in sorted(people.items()) if (pose := person.pose(frame)) is not None]
    to_film = np.diag([wide / width, tall / height, 1.0])
    for person, pose in sorted(shown, key=lambda pair: -pair[1].pelvis[2]):
        left = draw_body(left, pose.vertices, body.faces, to_film @ pose.intrinsics, person.colour)
    right = np.full((tall, tall, 3), PAPER, np.uint8)
    columns = int(np.ceil(np.sqrt(len(shown)))) if shown else 1
    place(right, (_sideways(pose, person.colour, tall // columns, body) for person, pose in shown), columns=columns)
    write(right, f"frame {frame}", (8, 20), scale=0.5)
    return np.concatenate([left, right], axis=1)


def _sideways(pose: Pose, colour: NDArray[np.floating], size: int, body: Body) -> Picture:
    """(size, size, 3): one body from the camera's right, the pelvis in the middle."""
    panel = side_view(pose.vertices - pose.pelvis, body.faces, size, colour)
    write(panel, f"person {pose.person}", (8, size - 10), scale=0.45)
    return panel
