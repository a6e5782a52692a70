"""A model and the number of a track's rows in; the windows of its released evaluation, and which answer counts, out.

Each release cuts tracks in its own way, so published errors of two models are not of the same windows, and not always
of the same rows. "corrected" is one way for all models; this is each model's own. GLoT's is in glot.features.windows.

N rows of a track, T frames of a window, W windows, A rows that are answered.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glot.features.windows import IntArray, window_pieces

MEVA_OVERLAP = 10  # frames that neighbouring windows of MEVA share; its demo has 20


@dataclass(frozen=True)
class OfficialWindows:
    """The windows of a track, and where the prediction of each answered row is."""

    windows: IntArray  # (W, T) rows of the track
    window: IntArray  # (A,) 0 ... W - 1: the window whose prediction counts
    frame: IntArray  # (A,) 0 ... T - 1: its frame
    rows: IntArray  # (A,) the rows that are answered, in order of time
    batch: int  # how many windows are predicted at once, in order; the last batch of a track may be smaller


@dataclass(frozen=True)
class OfficialProtocol:
    """How the release of a model evaluates. A track shorter than a window is skipped by all of them."""

    cut: Callable[[int, int], OfficialWindows]  # (N, T) -> the windows; N must be T or more
    # TCMR, MPS-Net and MEVA leave rows out that are not valid, before windows are formed. VIBE counts them.
    counts_invalid: bool = False
    # VIBE computes accelerations over the predictions of all tracks, one after the other, as if they were one track.
    joins_tracks: bool = False


def middle_windows(rows: int, frames: int) -> OfficialWindows:
    """One window for each row, which answers with its middle frame, T//2. (TCMR, MPS-Net)

    The first T//2 rows and the last T - T//2 - 1 have no such window: theirs is the row itself, T times. (GLoT's
    evaluation repeats the first or the last row instead, see glot.features.windows.)
    """
    every, middle = np.arange(rows, dtype=np.int64), frames // 2
    windows = every[:, None] + np.arange(frames) - middle
    beyond = (windows[:, 0] < 0) | (windows[:, -1] >= rows)
    windows[beyond] = every[beyond, None]
    return OfficialWindows(windows, every, np.full(rows, middle, np.int64), every, batch=8)


def whole_windows(rows: int, frames: int) -> OfficialWindows:
    """Windows side by side, which answer with all their frames. Rows that are left at the end get no answer. (VIBE)"""
    every = np.arange(rows // frames * frames, dtype=np.int64)
    return OfficialWindows(every.reshape(-1, frames), every // frames, every % frames, every, batch=32)


def stitched_windows(rows: int, frames: int, *, overlap: int = MEVA_OVERLAP) -> OfficialWindows:
    """Windows that overlap, one more at the end, which answer for every row once. (MEVA)

    A window starts every T - overlap rows while they fit, the last one ends with the track. Half of an overlap is
    answered by each of its two windows; the last window answers for what the others have left.
    """
    pieces = window_pieces(rows, frames, overlap=overlap)
    windows = np.array([piece.start for piece in pieces], np.int64)[:, None] + np.arange(frames)
    window = np.concatenate([np.full(piece.stop - piece.first, i, np.int64) for i, piece in enumerate(pieces)])
    every = np.arange(rows, dtype=np.int64)
    return OfficialWindows(windows, window, every - windows[window, 0], every, batch=1)


OFFICIAL = {
    "tcmr": OfficialProtocol(middle_windows),
    "mps_net": OfficialProtocol(middle_windows),
    "vibe": OfficialProtocol(whole_windows, counts_invalid=True, joins_tracks=True),
    "meva": OfficialProtocol(stitched_windows),
}
