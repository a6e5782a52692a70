"""2D joints of one person, frame by frame, in; smooth square boxes around them, as in training, out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter

VISIBLE = 0.3  # confidence above which a joint counts
ENLARGE = 1.1  # side of a box / diagonal of the joints' bounds
MEDIAN_FRAMES = 11
SMALLEST_DIAGONAL = 0.5  # px; a frame with a smaller diagonal counts as one without a visible person


class Boxes(NamedTuple):
    """Boxes of frames [start, stop). In all other frames nobody is visible."""

    start: int
    stop: int
    bbox: NDArray[np.float64]  # (stop - start, 4): centre x, centre y, width, height (equal), px


def keypoint_boxes(
    keypoints2d: NDArray[np.floating],
    *,
    enlarge: float = ENLARGE,
    median: int = MEDIAN_FRAMES,
    sigma: float = 8.0,
    zero_padded: bool = False,
) -> Boxes:
    """Boxes around the joints of confidence above 0.3: (N, J, 3: x, y px, confidence) -> ``Boxes``.

    The side is ``enlarge`` times the diagonal of the joints' bounds. Centre and 150 / diagonal are interpolated over
    frames without a visible person, median filtered over ``median`` frames and Gaussian filtered with ``sigma`` frames.
    Without any visible person, start = stop = 0.

    Two mistakes of VIBE's code, and of the code derived from it, are corrected. Their median filter pads with zeros,
    which pulls the boxes of the first and last 5 frames aside, and makes the boxes of tracks under 6 frames infinite;
    ours repeats the edge frames (``zero_padded=True`` selects their filter). Their boxes are not cut to [start, stop)
    as all other values are (see pipelines.decoders.box_variants.misaligned); ours are. One property is kept: the
    Gaussian filter mirrors the values at both ends. So a box that moves at a constant speed is off there, by up to the
    motion in 0.8 ``sigma`` frames.
    """
    return smooth_boxes(bounds(keypoints2d), enlarge=enlarge, median=median, sigma=sigma, zero_padded=zero_padded)


def bounds(keypoints2d: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, J, 3) -> (N, 3): centre x, centre y and diagonal of the visible joints' bounds, px; else 0."""
    keypoints2d = np.asarray(keypoints2d, np.float64)
    visible = (keypoints2d[..., 2] > VISIBLE)[..., None]  # (N, J, 1)
    points = keypoints2d[..., :2]
    low, high = np.where(visible, points, np.inf).min(1), np.where(visible, points, -np.inf).max(1)  # (N, 2)
    low, high = (np.where(visible.any(1), ends, 0.0) for ends in (low, high))
    return np.column_stack([(low + high) / 2, np.linalg.norm(high - low, axis=-1)])


def smooth_boxes(
    bounds: NDArray[np.floating],
    *,
    enlarge: float = ENLARGE,
    median: int = MEDIAN_FRAMES,
    sigma: float = 8.0,
    zero_padded: bool = False,
) -> Boxes:
    """The boxes of ``keypoint_boxes`` for joints with these ``bounds`` (N, 3)."""
    diagonal = bounds[:, 2]
    frames = np.flatnonzero(diagonal >= SMALLEST_DIAGONAL)
    if not len(frames):
        return Boxes(0, 0, np.zeros((0, 4)))
    start, stop = int(frames[0]), int(frames[-1]) + 1
    signals = np.column_stack([bounds[frames, :2], 150.0 / diagonal[frames]])
    steps = np.arange(start, stop)
    smooth = np.empty((len(steps), 3))
    for column in range(3):
        signal = np.interp(steps, frames, signals[:, column])
        signal = median_filter(signal, median, mode="constant" if zero_padded else "nearest")
        smooth[:, column] = gaussian_filter1d(signal, sigma)
    with np.errstate(divide="ignore"):  # only the zero-padded median can give 0
        side = enlarge * 150.0 / smooth[:, 2]
    return Boxes(start, stop, np.column_stack([smooth[:, :2], side, side]))
