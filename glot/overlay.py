"""A video's pictures and its people's Motions in, the pictures of a film out: everybody's body over them and aside.

V vertices. Each body is drawn with the camera of its own crop, the one the model knows; who is further away by that
camera is drawn first.
"""

import colorsys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glot.body import Body
from glot.camera import CROP_SIZE, FOCAL_LENGTH, full_image_translation
from glot.drawing import PAPER, SIDE_VIEW_METRES, SIDEWAYS, Picture, draw_body, write
from glot.motion import Motion
from glot.motion_files import read_motion

TALLEST = 720  # px, of the film
BLOCK = 16  # frames posed at a time
FAR = 60.0  # m from which the side is seen: far enough to look flat
GOLDEN = 0.618  # hues this far apart stay apart, however many


def colour_of(number: int) -> NDArray[np.float64]:
    """RGB 0-1 of the number-th person, from 0."""
    return np.array(colorsys.hsv_to_rgb((0.6 + GOLDEN * number) % 1, 0.5, 0.92))


class Actor:
    """One person of the film: read from the file as it comes in, body by body."""

    def __init__(self, path: Path, body: Body, colour: NDArray[np.floating]) -> None:
        self.motion: Motion = read_motion(path)
        self.body, self.colour = body, colour
        self._block, self._vertices = -1, np.empty(0, np.float32)
        motion = self.motion
        boxes = torch.from_numpy(motion.crop_boxes)
        self.focal = FOCAL_LENGTH * motion.crop_boxes[:, 2] / CROP_SIZE  # the crop's own, carried over to the picture
        cams = torch.from_numpy(motion.cam)
        places = [
            full_image_translation(cams[i : i + 1], boxes[i : i + 1], width=motion.width, height=motion.height, focal=f)
            for i, f in enumerate(self.focal.tolist())
        ]
        self.places = torch.cat(places).numpy()

    def row(self, frame: int) -> int | None:
        """Where that frame of the video stands in the motion, if it does."""
        row = int(np.searchsorted(self.motion.frames, frame))
        return row if row < len(self.motion) and self.motion.frames[row] == frame else None

    def vertices(self, row: int) -> NDArray[np.float32]:
        """(V, 3) m, about the body's own origin."""
        if self._block != row // BLOCK:  # bodies are posed some frames at a time, which is several times faster
            self._block = row // BLOCK
            rows = slice(self._block * BLOCK, (self._block + 1) * BLOCK)
            with torch.no_grad():
                rotmats, betas = torch.from_numpy(self.motion.rotmats[rows]), torch.from_numpy(self.motion.betas[rows])
                self._vertices = self.body(rotmats, betas).vertices.numpy()
        return self._vertices[row % BLOCK]


def film(pictures: Iterable[tuple[int, Picture]], files: list[tuple[range, Path]], body: Body) -> Iterator[Picture]:
    """Frames (RGB): the picture with everybody over it, and everybody from the camera's right beside it.

    ``pictures``: frame numbers and RGB pictures, rising. ``files``: of each person the first to the last frame and the
    motion's file, which is held only while the person is there.
    """
    actors: dict[int, Actor] = {}
    for frame, picture in pictures:
        for number, (there, path) in enumerate(files):
            if frame in there and number not in actors:
                actors[number] = Actor(path, body, colour_of(number))
            elif frame not in there:
                actors.pop(number, None)
        yield _frame(frame, picture, actors, body)


def _frame(frame: int, picture: Picture, actors: dict[int, Actor], body: Body) -> Picture:
    height, width = picture.shape[:2]
    scale = min(1.0, TALLEST / height)
    tall, wide = (max(round(scale * side) // 2 * 2, 2) for side in (height, width))
    left: Picture = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    cast = [(actor, row) for _, actor in sorted(actors.items()) if (row := actor.row(frame)) is not None]
    to_film = np.diag([wide / width, tall / height, 1.0])
    # Cameras differ in focal length; the depth that counts is the one at a common one.
    for actor, row in sorted(cast, key=lambda one: -one[0].places[one[1], 2] / one[0].focal[one[1]]):
        focal = actor.focal[row]
        intrinsics = to_film @ np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        left = draw_body(left, actor.vertices(row) + actor.places[row], body.faces, intrinsics, actor.colour)
    right = np.full((tall, tall, 3), PAPER, np.uint8)
    across = int(np.ceil(np.sqrt(len(cast)))) if cast else 1
    cell = tall // across
    for place, (actor, row) in enumerate(cast):
        y, x = (place // across * cell, place % across * cell)
        right[y : y + cell, x : x + cell] = _aside(actor, row, cell, body)
    write(right, f"frame {frame}", (8, 20), scale=0.5)
    return np.concatenate([left, right], axis=1)


def _aside(actor: Actor, row: int, size: int, body: Body) -> Picture:
    """One body from the camera's right, the pelvis in the middle."""
    motion = actor.motion
    centred = actor.vertices(row) + motion.transl[row] - motion.joints3d[row, 0]
    focal = size / SIDE_VIEW_METRES * FAR
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    panel = np.full((size, size, 3), PAPER, np.uint8)
    panel = draw_body(panel, centred @ SIDEWAYS.T + [0, 0, FAR], body.faces, intrinsics, actor.colour)
    write(panel, f"person {motion.person}", (8, size - 10), scale=0.45)
    return panel
