"""A file of the MOT challenge in (one line a box), the boxes of the people in a video out.

frame (from 1), id, left, top, width, height, and then, where there are more columns:

- ground truth (MOT16, MOT17, MOT20; 9 columns): flag (0: not to be considered), class, visibility. The classes are
  1 pedestrian, 2 person on a vehicle, 3 to 6 vehicles, 7 static person, 8 distractor, 9 to 11 occluders,
  12 reflection, 13 crowd. MOT's own evaluation (TrackEval, mot_challenge_2d_box.py) counts the boxes of class 1 whose
  flag is not 0; so do we. In MOT17-02 these are 18,581 boxes of 62 people, among 29,403 boxes of 82 tracks.
- results of a tracker, and MOT15's ground truth (7 or 10 columns): confidence or flag, then -1,-1,-1 or a place in 3D.
  There are no classes. If column 7 holds only 0 and 1, and 1 at least once, it is a flag.

So a file has classes if all of its lines have 8 or 9 columns, unless column 8 is -1 in all of them.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.people.frame_boxes import FrameBoxes, VideoBoxes, frame_boxes, video_boxes

FRAME, PERSON, BOX, FLAG, CLASS = 0, 1, slice(2, 6), 6, 7  # columns
FEWEST = 6  # columns
WITH_CLASSES = {8, 9}  # columns
PEDESTRIAN, CLASSES, NO_CLASS = 1, 13, -1
BLOCK = 1 << 20  # bytes


def read_mot(file: Any) -> VideoBoxes:
    """The boxes of the people in a file that was opened to be read as bytes. ValueError if it is not as above."""
    table = _read(io.TextIOWrapper(io.BufferedReader(file, BLOCK), "utf-8-sig"))
    kept = _is_pedestrian(table)
    boxes = table[kept]
    if not np.isfinite(boxes[:, PERSON]).all():
        raise ValueError("an id is NaN or infinite")
    ids, first, owners = np.unique(boxes[:, PERSON], return_index=True, return_inverse=True)
    rows_of = np.split(np.argsort(owners, kind="stable"), np.cumsum(np.bincount(owners, minlength=len(ids))))
    people: dict[str, FrameBoxes] = {}
    for number in np.argsort(first):
        person, rows = _name(float(ids[number])), boxes[rows_of[number]]
        people[person] = frame_boxes(rows[:, FRAME] - 1, rows[:, BOX].copy(), person)
    return video_boxes(people, left_out=int((~kept).sum()))


def _read(text: io.TextIOWrapper) -> NDArray[np.float64]:
    """(n, 6, 7 or 8): the columns that all lines have and that are needed."""
    columns: set[int] = set()
    for number, line in enumerate(text, 1):
        if line.strip():
            columns.add(found := line.count(",") + 1)
            if found < FEWEST:
                raise ValueError(f"line {number} has {found} numbers, fewer than {FEWEST}")
    if not columns:
        return np.zeros((0, FEWEST))
    with_classes = columns <= WITH_CLASSES
    used = CLASS + 1 if with_classes else min(min(columns), FLAG + 1)
    text.seek(0)
    return np.loadtxt(_lines(text), np.float64, delimiter=",", comments=None, usecols=range(used), ndmin=2)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    return (line for line in text if line.strip())


def _is_pedestrian(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether a line is a box that counts."""
    kept = np.ones(len(table), bool)
    columns = table.shape[1]
    with_classes = columns > CLASS and not (table[:, CLASS] == NO_CLASS).all()
    if with_classes:
        if not np.isin(table[:, CLASS], range(1, CLASSES + 1)).all():
            raise ValueError(f"column 8 must be MOT's class, 1 (pedestrian) to {CLASSES}, or {NO_CLASS} in all lines")
        kept &= table[:, CLASS] == PEDESTRIAN
    # Trackers without confidences may write 0 for all boxes.
    if columns > FLAG and np.isin(table[:, FLAG], (0, 1)).all() and (with_classes or table[:, FLAG].any()):
        kept &= table[:, FLAG] != 0
    return kept


def _name(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
