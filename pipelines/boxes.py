"""Boxes as VIBE and its heirs pair them with 3DPW's pictures: late. How they should be is glot/boxes.py."""

import numpy as np
from numpy.typing import NDArray

from glot.boxes import Boxes


def misaligned(boxes: Boxes) -> NDArray[np.float64]:
    """(stop - start, 4) boxes as VIBE and its heirs pair them with 3DPW's pictures; NaN for a picture that has none.

    Their smoother returns ``start`` empty rows and then the boxes, while all else of a person is cut to [start, stop):
    the first ``start`` crops have no box, and every later one is of where the person was ``start`` frames before.
    """
    rows = np.concatenate([np.full((boxes.start, 4), np.nan), boxes.bbox])[: boxes.stop - boxes.start]
    return np.where(np.isfinite(rows).all(1, keepdims=True), rows, np.nan)
