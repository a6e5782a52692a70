"""Boxes that are off: a detector's, to train on; those of VIBE's heirs. The right ones are in glot/people/boxes.py."""

import numpy as np
from numpy.typing import NDArray

from glot.people.boxes import Boxes


def jittered(bbox: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Square boxes (N, 4) as a detector would have placed them: larger or smaller and aside by what drifts along the
    track. Sizes are off by a factor of 0.85 to 1.2, centres by 6 % of the side (standard deviation)."""
    ends_scale, ends_shift = rng.uniform(np.log(0.85), np.log(1.2), 2), rng.normal(0, 0.06, (2, 2)).clip(-0.12, 0.12)
    along = np.linspace(0, 1, len(bbox))[:, None]
    scale = np.exp(ends_scale[0] + along * (ends_scale[1] - ends_scale[0]))
    shift = ends_shift[0] + along * (ends_shift[1] - ends_shift[0])
    return np.concatenate([bbox[:, :2] + shift * bbox[:, 2:3], scale * bbox[:, 2:]], axis=1)


def misaligned(boxes: Boxes) -> NDArray[np.float64]:
    """(stop - start, 4) boxes as VIBE and its heirs pair them with 3DPW's pictures; NaN for a picture that has none.

    Their smoother returns ``start`` empty rows and then the boxes, while all else of a person is cut to [start, stop):
    the first ``start`` crops have no box, and every later one is of where the person was ``start`` frames before.
    """
    rows = np.concatenate([np.full((boxes.start, 4), np.nan), boxes.bbox])[: boxes.stop - boxes.start]
    return np.where(np.isfinite(rows).all(1, keepdims=True), rows, np.nan)
