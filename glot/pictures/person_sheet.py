"""A Motion and a few of its video's pictures in, one contact sheet out: moments of a person from left to right.

From top to bottom: the crop that the model saw, the body over the crop, and the body from the camera's right.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.human.body import Body
from glot.human.crop import crop_matrix
from glot.motion.person_motion import Motion, vertices
from glot.pictures.contact_sheet import Line, contact_sheet
from glot.pictures.drawing import BODY_COLOUR, Picture, draw_body, side_view

COLUMNS = 6
PANEL = 256  # px, width and height of a panel
LEFT, FOOT = 96, 22  # px: width of the rows' names, height of the captions
COLOUR = np.array(BODY_COLOUR)


def moments(count: int, columns: int = COLUMNS) -> NDArray[np.intp]:
    """Rows that the sheet shows of a motion of ``count`` frames: evenly spread, or all rows if there are few."""
    return np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(np.intp))


def sheet(shown: Motion, body: Body, pictures: Mapping[int, Picture], *, frames: int) -> Picture:
    """The sheet of a motion of ``frames`` frames.

    ``shown`` holds the rows ``moments(frames)`` of the motion. ``pictures`` has these frames of the video, RGB, by
    frame number.
    """
    first, last = shown.frames[[0, -1]]
    numbers = shown.frames.tolist()
    return contact_sheet(
        [_panels(shown, body, row, pictures[frame]) for row, frame in enumerate(numbers)],
        title=f"person {shown.person}: {frames} frames of {first}-{last}, {shown.fps:g} fps",
        names=[[Line(name, scale=0.4)] for name in ("input", "prediction", "side view")],
        captions=[
            [Line(f"frame {frame}" + ("" if shown.seen[row] else ", not detected"), 15)]
            for row, frame in enumerate(numbers)
        ],
        left=LEFT,
        foot=FOOT,
        fewest_columns=2,
    )


def _panels(motion: Motion, body: Body, row: int, picture: Picture) -> tuple[Picture, Picture, Picture]:
    """The crop, the body over it, and the body from the camera's right: (PANEL, PANEL, 3) each."""
    to_panel = crop_matrix(motion.bbox[row], float(motion.crop_scale[row]), size=PANEL)
    crop = np.asarray(cv2.warpAffine(picture, to_panel, (PANEL, PANEL)), np.uint8)
    mesh = vertices(motion, body, slice(row, row + 1))[0]
    over = draw_body(crop, mesh, body.faces, np.vstack([to_panel, [0, 0, 1]]) @ motion.intrinsics, COLOUR)
    return crop, over, side_view(mesh - motion.joints3d[row, 0], body.faces, PANEL, COLOUR)
