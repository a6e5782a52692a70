"""Row numbers and frame indices of tracks in; the rows of each window, and the row its prediction belongs to, out.

N rows of a track, T frames of a window, W windows. The output frame of a window is T//2 (T=16: 8 past and 7 future
frames).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError

IntArray = NDArray[np.int64]

# "official": the last T//2 - 1 predictions of every track are in reversed order, as in the released evaluation.
PROTOCOLS = ("corrected", "official")


def check_protocol(protocol: str) -> None:
    """InputError unless ``protocol`` is one of PROTOCOLS."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: must be one of {', '.join(PROTOCOLS)}")


def gapless_ranges(frame_index: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Cuts a track at its time gaps: [start, stop) row ranges in which neighbouring rows are one usual step apart.

    ``frame_index`` (N,) increases. The usual step is the most frequent one of the track: 1 for most sources, 2 for
    Human3.6M, which keeps every second frame.
    """
    if len(frame_index) == 0:
        return []
    steps = np.diff(frame_index)
    cuts = np.flatnonzero(steps != usual_step(frame_index)) + 1
    edges = [0, *cuts.tolist(), len(frame_index)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def usual_step(frame_index: NDArray[np.integer]) -> int:
    """The most frequent difference of neighbouring frame indices, the smallest if several are; 1 for a single row."""
    steps, counts = np.unique(np.diff(frame_index), return_counts=True)
    return int(steps[counts.argmax()]) if len(steps) else 1


def training_windows(
    tracks: Iterable[tuple[Any, ...]], frame_index: NDArray[np.integer], *, frames: int, stride: int
) -> IntArray:
    """First rows (W,) of the training windows: rows s ... s + frames - 1 of one track, consecutive in time.

    The last two values of each of ``tracks`` are its row range [start, stop), as in glot.features.store.Track;
    ``frame_index`` has the rows of all tracks. n frames without a gap give (n - frames) // stride + 1 windows; frames
    that are left at the end are not used. The official code does the same where the stride is the window length.
    InputError for a length or stride below 1.

    Two kinds of windows that the official code has are left out:
    - windows that span a time gap, where frames with few visible joints were removed;
    - seven or eight copies of the first and the last window of a track, where the stride is below the window length.
    """
    if frames < 1 or stride < 1:
        raise InputError(f"frames={frames}, stride={stride}: both must be at least 1")
    starts = [
        np.arange(track_start + start, track_start + stop - frames + 1, stride)
        for *_, track_start, track_stop in tracks
        for start, stop in gapless_ranges(frame_index[track_start:track_stop])
    ]
    return np.concatenate([np.empty(0, np.int64), *starts])


def evaluation_windows(rows: int, frames: int) -> IntArray:
    """Row numbers (rows, frames): window i has row i at frames//2; beyond the ends, the first or last row repeats.

    Works for any ``rows`` >= 0 and any ``frames`` >= 1. The official evaluation has the same windows, but skips tracks
    shorter than a window; ``prediction_order`` gives the order in which it scores its predictions.
    """
    offsets = np.arange(frames) - frames // 2
    return np.clip(np.arange(rows)[:, None] + offsets, 0, max(rows - 1, 0)).astype(np.int64)


def prediction_order(rows: int, frames: int, *, protocol: str) -> IntArray:
    """Order (rows,): row i of the ground truth is scored against the prediction for row ``order[i]``.

    "corrected": 0 ... rows - 1. "official": the last frames//2 - 1 are reversed, because the released evaluate.py lists
    the windows at a track's end as [L - T/2 - j, L] where [L - T + 2 + j, L] was meant. Published numbers were measured
    in this order. InputError for another protocol.
    """
    check_protocol(protocol)
    order = np.arange(rows, dtype=np.int64)
    tail = frames // 2 - 1
    if protocol == "official" and rows >= frames:
        order[rows - tail :] = order[rows - tail :][::-1].copy()
    return order


class Piece(NamedTuple):
    """A window of consecutive rows, and the rows of it that are taken."""

    start: int  # first row of the window
    first: int  # of the taken rows, counted from the track's first
    stop: int


def window_pieces(rows: int, frames: int, *, overlap: int = 0) -> list[Piece]:
    """Windows that give every row of a track once, for models that answer for all frames of a window.

    Windows start every ``frames - overlap`` rows while they fit; one more ends with the track. Half of the ``overlap``
    is taken from each of two neighbours, but the ends of the track are taken as they are. MEVA's evaluation does the
    same with windows of 90 and an overlap of 10. A track shorter than a window has one window that starts at row 0.
    ValueError unless 0 <= overlap < frames, and overlap is even.
    """
    if not 0 <= overlap < frames or overlap % 2:
        raise ValueError(f"an overlap of {overlap} frames in windows of {frames}: must be even and less than a window")
    if rows <= frames:
        return [Piece(0, 0, rows)] if rows else []
    starts = [*range(0, rows - frames + 1, frames - overlap)]
    starts += [rows - frames]  # in any case, as in the release: it may be the window before it
    half = overlap // 2
    edges = [0, *(start + frames - half for start in starts[:-1]), rows]
    return [Piece(*piece) for piece in zip(starts, edges[:-1], edges[1:], strict=True) if piece[2] > piece[1]]
