"""A video's pictures and its people's Motions in, the pictures of a film out: everybody's body over them and aside.

V vertices. Who is further away is drawn first.
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
from glot.pictures.drawing import PAPER, Picture, draw_body, side_view, write

TALLEST = 720  # px, of the film
BLOCK = 16  # frames posed at a time
GOLDEN = 0.618  # hues this far apart stay apart, however many


def colour_of(number: int) -> NDArray[np.float64]:
    """RGB 0-1 of the number-th person, from 0."""
    return np.array(colorsys.hsv_to_rgb((0.6 + GOLDEN * number) % 1, 0.5, 0.92))


class Actor:
    """One person of the film: read from the file as it comes in, body by body."""

    def __init__(self, path: Path, body: Body, colour: NDArray[np.floating]) -> None:
        self.motion = StoredMotion(path)
        self.body, self.colour = body, colour
        self._block = -1
        self._poses: list[Pose] = []

    def pose(self, frame: int) -> "Pose | None":
        """The body in that frame of the video, if it is there."""
        row = int(np.searchsorted(self.motion.frames, frame))
        if row == len(self.motion) or self.motion.frames[row] != frame:
            return None
        if self._block != row // BLOCK:  # bodies are posed some frames at a time, which is several times faster
            self._block = row // BLOCK
            start = self._block * BLOCK
            self._poses = poses(self.motion.rows(start, min(start + BLOCK, len(self.motion))), self.body)
        return self._poses[row % BLOCK]


class Pose(NamedTuple):
    """A body in a frame."""

    person: str
    vertices: NDArray[np.float32]  # (V, 3) m, camera frame
    pelvis: NDArray[np.float32]  # (3,) m
    intrinsics: NDArray[np.float64]  # (3, 3) px


def poses(motion: Motion, body: Body) -> list[Pose]:
    """One for each of some frames."""
    meshes = vertices(motion, body)
    return [
        Pose(motion.person, mesh, joints[0], motion.intrinsics)
        for mesh, joints in zip(meshes, motion.joints3d, strict=True)
    ]


def film(pictures: Iterable[tuple[int, Picture]], files: list[tuple[range, Path]], body: Body) -> Iterator[Picture]:
    """Frames (RGB): the picture with everybody over it, and everybody from the camera's right beside it.

    ``pictures``: frame numbers and RGB pictures, rising. ``files``: of each person the first to the last frame and the
    motion's .parquet, which is read as far as it is needed.
    """
    actors: dict[int, Actor] = {}
    for frame, picture in pictures:
        for number, (there, path) in enumerate(files):
            if frame in there and number not in actors:
                actors[number] = Actor(path, body, colour_of(number))
            elif frame not in there and number in actors:
                actors.pop(number).motion.close()
        yield _frame(frame, picture, actors, body)


def _frame(frame: int, picture: Picture, actors: dict[int, Actor], body: Body) -> Picture:
    height, width = picture.shape[:2]
    scale = min(1.0, TALLEST / height)
    tall, wide = (max(round(scale * side) // 2 * 2, 2) for side in (height, width))
    left: Picture = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    cast = [(actor, pose) for _, actor in sorted(actors.items()) if (pose := actor.pose(frame)) is not None]
    to_film = np.diag([wide / width, tall / height, 1.0])
    for actor, pose in sorted(cast, key=lambda one: -one[1].pelvis[2]):
        left = draw_body(left, pose.vertices, body.faces, to_film @ pose.intrinsics, actor.colour)
    right = np.full((tall, tall, 3), PAPER, np.uint8)
    across = int(np.ceil(np.sqrt(len(cast)))) if cast else 1
    cell = tall // across
    for place, (actor, pose) in enumerate(cast):
        y, x = (place // across * cell, place % across * cell)
        right[y : y + cell, x : x + cell] = _aside(pose, actor.colour, cell, body)
    write(right, f"frame {frame}", (8, 20), scale=0.5)
    return np.concatenate([left, right], axis=1)


def _aside(pose: Pose, colour: NDArray[np.floating], size: int, body: Body) -> Picture:
    """One body from the camera's right, the pelvis in the middle."""
    panel = side_view(pose.vertices - pose.pelvis, body.faces, size, colour)
    write(panel, f"person {pose.person}", (8, size - 10), scale=0.45)
    return panel
