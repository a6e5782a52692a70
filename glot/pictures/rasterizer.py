"""Projected triangles in, the nearest triangle under every pixel centre out, in numpy.

V vertices, F faces, n covered pixels. Pixel coordinates are OpenCV's: x right, y down, integers at pixel centres.
"""

from dataclasses import dataclass

import numpy as np

NEAR = 0.05  # metres; triangles that reach closer to the camera are left out
EDGE = 1e-4  # barycentric slack, so that float32 rounding leaves no cracks between neighbours


@dataclass
class Hits:
    """What the camera sees: one row for each covered pixel."""

    pixel: np.ndarray  # (n,) flat index
    triangle: np.ndarray  # (n,)
    weights: np.ndarray  # (n, 3) barycentric
    nearness: np.ndarray  # (n,) 1 / depth, float32

    @classmethod
    def none(cls) -> "Hits":
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, nothing, np.zeros((0, 3), dtype=np.float32), nothing.astype(np.float32))


def rasterize(pixels: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> Hits:
    """pixels (V, 2), depth (V,) m, faces (F, 3) -> the nearest of the faces towards the camera, pixel by pixel.

    If two triangles have exactly the same depth (on a shared edge), the later triangle counts.
    """
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    doubled_area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.ceil(np.minimum(np.minimum(a, b), c)).clip(0, None)
    high = np.floor(np.maximum(np.maximum(a, b), c)).clip(None, [width - 1, height - 1])
    # Seen from outside, faces are counter-clockwise with y up. So with y down, faces towards the camera have negative
    # areas.
    seen = (doubled_area < -1e-9) & (high >= low).all(1) & (depth[faces] > NEAR).all(1)
    which = np.flatnonzero(seen)
    low = low[which].astype(np.int64)
    span = high[which].astype(np.int64) - low + 1
    planes = _weight_planes(a[which], b[which], c[which], low, doubled_area[which])
    owner, x, y = _pixels_of_boxes(span)
    table = planes.astype(np.float32)[owner]
    x_, y_ = x.astype(np.float32), y.astype(np.float32)
    first = table[:, 0] * x_ + table[:, 1] * y_ + table[:, 2]
    second = table[:, 3] * x_ + table[:, 4] * y_ + table[:, 5]
    keep = np.flatnonzero((first >= -EDGE) & (second >= -EDGE) & (first + second <= 1 + EDGE))
    owner, first, second = owner[keep], first[keep], second[keep]
    pixel = (low[owner, 1] + y[keep]) * width + low[owner, 0] + x[keep]
    inverse = 1 / depth[faces[which]]
    weights = np.stack([first, second, 1 - first - second], axis=1) * inverse[owner].astype(np.float32)
    nearness = weights.sum(1)
    winners = _nearest(pixel, nearness, width * height)
    return Hits(pixel[winners], which[owner[winners]], weights[winners] / nearness[winners, None], nearness[winners])


def _weight_planes(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, low: np.ndarray, doubled_area: np.ndarray
) -> np.ndarray:
    """(n, 6): the weights of corners a and b as affine functions of the pixel, three numbers each (x, y, constant).

    1/depth is affine in pixel coordinates, too. x and y count from ``low`` (n, 2), the corner of the triangle's box,
    for accuracy.
    """
    of_a = np.stack([b[:, 1] - c[:, 1], c[:, 0] - b[:, 0], (b[:, 0] - low[:, 0]) * (c[:, 1] - low[:, 1])
                     - (b[:, 1] - low[:, 1]) * (c[:, 0] - low[:, 0])], axis=1) / doubled_area[:, None]  # fmt: skip
    of_b = np.stack([c[:, 1] - a[:, 1], a[:, 0] - c[:, 0], (c[:, 0] - low[:, 0]) * (a[:, 1] - low[:, 1])
                     - (c[:, 1] - low[:, 1]) * (a[:, 0] - low[:, 0])], axis=1) / doubled_area[:, None]  # fmt: skip
    return np.hstack([of_a, of_b])


def _pixels_of_boxes(span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """span (n, 2: width, height px of boxes) -> for each pixel of each box: the box, and x and y in the box."""
    count = span[:, 0] * span[:, 1]
    owner = np.repeat(np.arange(len(span)), count)
    ends = np.cumsum(count)
    inside_box = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
    y, x = np.divmod(inside_box, np.repeat(span[:, 0], count))
    return owner, x, y


def _nearest(pixel: np.ndarray, nearness: np.ndarray, pixels: int) -> np.ndarray:
    """Candidates (flat pixel, nearness) -> the row of the nearest candidate at each pixel, in the order of pixels."""
    assert nearness.dtype == np.float32  # the comparison below needs equal types
    nearest = np.zeros(pixels, dtype=np.float32)
    np.maximum.at(nearest, pixel, nearness)
    winners = np.flatnonzero(nearness == nearest[pixel])
    last = np.full(pixels, -1, dtype=np.int64)
    last[pixel[winners]] = winners
    return last[last >= 0]
