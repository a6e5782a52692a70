"""Joints or boxes in, other boxes out: boxes of single frames, boxes with a detector's errors, boxes paired as in VIBE.

The smoothed boxes of most datasets are in glot/people/boxes.py.
"""

import numpy as np
from numpy.typing import NDArray

from glot.people.boxes import Boxes


def square_boxes(
    points: NDArray[np.floating], counted: NDArray[np.bool_], *, enlarge: float = 1.0
) -> NDArray[np.float64]:
    """Squares (N, 4: centre x, centre y, width, height, px) around the counted joints, separately for each frame.

    ``points`` (N, J, 2) px, ``counted`` (N, J). The side is ``enlarge`` times the larger side of the joints' bounds.
    A frame without a counted joint has zeros.
    """
    low = np.where(counted[..., None], points, np.inf).min(1)
    high = np.where(counted[..., None], points, -np.inf).max(1)
    empty = ~counted.any(1)
    low[empty] = high[empty] = 0
    side = enlarge * (high - low).max(1)
    return np.column_stack([(low + high) / 2, side, side])


def jittered(bbox: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Square boxes (N, 4) of a track, with the errors that a detector would make.

    The size is wrong by a factor of 0.85 to 1.2, the centre by 6 % of the side (standard deviation). Both errors change
    linearly from the first frame of the track to the last.
    """
    ends_scale, ends_shift = rng.uniform(np.log(0.85), np.log(1.2), 2), rng.normal(0, 0.06, (2, 2)).clip(-0.12, 0.12)
    along = np.linspace(0, 1, len(bbox))[:, None]
    scale = np.exp(ends_scale[0] + along * (ends_scale[1] - ends_scale[0]))
    shift = ends_shift[0] + along * (ends_shift[1] - ends_shift[0])
    return np.concatenate([bbox[:, :2] + shift * bbox[:, 2:3], scale * bbox[:, 2:]], axis=1)


def misaligned(boxes: Boxes) -> NDArray[np.float64]:
    """(stop - start, 4) boxes as VIBE's code and code derived from it pair them with 3DPW's pictures.

    Their smoother returns ``start`` empty rows before the boxes, while everything else about a person is cut to
    [start, stop). So the first ``start`` pictures have no box (NaN), and each later picture has the box that belongs to
    the picture ``start`` frames earlier.
    """
    rows = np.concatenate([np.full((boxes.start, 4), np.nan), boxes.bbox])[: boxes.stop - boxes.start]
    return np.where(np.isfinite(rows).all(1, keepdims=True), rows, np.nan)
