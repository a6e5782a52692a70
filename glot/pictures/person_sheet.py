"""A Motion and a few of its video's pictures in, one still out: moments of a person from left to right.

Above the crop as the model saw it, below it the body over the crop, at the bottom the body from the camera's right.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.human.body import Body
from glot.human.crop import crop_matrix
from glot.motion.person_motion import Motion, vertices
from glot.pictures.drawing import PAPER, Picture, draw_body, side_view, write

COLUMNS = 6
PANEL, GAP, LEFT, TOP, FOOT = 256, 4, 96, 34, 22  # px
COLOUR = np.array([0.45, 0.62, 0.90])


def moments(count: int, columns: int = COLUMNS) -> NDArray[np.intp]:
    """Rows of a motion of ``count`` frames that its sheet shows: evenly spread, fewer where it is shorter than that."""
    return np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(np.intp))


def sheet(shown: Motion, body: Body, pictures: Mapping[int, Picture], *, frames: int) -> Picture:
    """The still of a motion of so many ``frames``. ``shown`` are the rows ``moments(frames)`` of it; ``pictures`` has
    those frames of the video, RGB, by frame number."""
    names = ("input", "prediction", "side view")
    shape = (TOP + len(names) * (PANEL + GAP) + FOOT, LEFT + max(len(shown), 2) * (PANEL + GAP), 3)
    out = np.full(shape, PAPER, np.uint8)
    first, last = shown.frames[[0, -1]]
    write(out, f"person {shown.person}: {frames} frames of {first}-{last}, {shown.fps:g} fps", (8, 22), scale=0.55)
    for number, name in enumerate(names):
        write(out, name, (8, TOP + number * (PANEL + GAP) + PANEL // 2), scale=0.4)
    for row, frame in enumerate(shown.frames.tolist()):
        x = LEFT + row * (PANEL + GAP)
        for number, panel in enumerate(_panels(shown, body, row, pictures[frame])):
            y = TOP + number * (PANEL + GAP)
            out[y : y + PANEL, x : x + PANEL] = panel
        said = f"frame {frame}" + ("" if shown.seen[row] else ", not detected")
        write(out, said, (x + 4, shape[0] - 7), scale=0.45)
    return out


def _panels(motion: Motion, body: Body, row: int, picture: Picture) -> tuple[Picture, Picture, Picture]:
    """Crop, body over it, body from the camera's right: (PANEL, PANEL, 3) each."""
    to_panel = crop_matrix(motion.bbox[row], float(motion.crop_scale[row]), size=PANEL)
    crop = np.asarray(cv2.warpAffine(picture, to_panel, (PANEL, PANEL)), np.uint8)
    mesh = vertices(motion, body, slice(row, row + 1))[0]
    over = draw_body(crop, mesh, body.faces, np.vstack([to_panel, [0, 0, 1]]) @ motion.intrinsics, COLOUR)
    return crop, over, side_view(mesh - motion.joints3d[row, 0], body.faces, PANEL, COLOUR)
