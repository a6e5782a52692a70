"""The parts of a feature set in; which of its rows belong to which track, and where they go in the local copy, out.

In the parts, the rows of a track may go on in a later part, among rows of other tracks. In the copy they are together.
Only the columns track_id and frame_index are read here.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glot.errors import InputError
from glot.features.schema import Part, open_part

ROWS_AT_ONCE = 2048  # rows in memory while a part is read: 17 MB of features
READERS = 8  # parts whose order is read at once; most of the time they wait for a disk or a store


class Track(NamedTuple):
    """Rows [start, stop) of the copy belong to one person, in time order."""

    track_id: str
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows as an index."""
        return slice(self.start, self.stop)


class Run(NamedTuple):
    """Neighbouring rows of one track, from frame ``first`` to frame ``last``."""

    track_id: str
    rows: int
    first: int
    last: int


class Piece(NamedTuple):
    """``rows`` of the set that follow each other there go to the rows of the copy from ``start`` on."""

    rows: int
    start: int


class Layout(NamedTuple):
    """The tracks of a set in the order of their first rows, and all of its rows as pieces, in the set's order."""

    tracks: list[Track]
    pieces: list[Piece]

    @property
    def rows(self) -> int:
        """The number of rows of the set."""
        return self.tracks[-1].stop if self.tracks else 0


def runs(track_id: pa.Array, frame_index: pa.Array) -> Iterator[tuple[Run, str]]:
    """The runs in rows that follow each other, each with "" or what is wrong with the order of its frames."""
    encoded = pc.run_end_encode(track_id)
    frames = frame_index.to_numpy()
    start = 0
    for name, stop in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        mine = frames[start:stop]
        back = np.flatnonzero(np.diff(mine) <= 0)
        problem = _not_in_order(name, mine[back[0]], mine[back[0] + 1]) if len(back) else ""
        yield Run(name, stop - start, int(mine[0]), int(mine[-1])), problem
        start = stop


class TrackOrder:
    """Checks run after run that each track is together in each part, and that its frames rise through all parts."""

    def __init__(self) -> None:
        self._last_frame: dict[str, int] = {}  # of each track
        self._in_part: set[str] = set()  # tracks of the part so far
        self._current: str | None = None

    def start_part(self) -> None:
        """The next run is the first of a part."""
        self._in_part.clear()
        self._current = None

    def add(self, run: Run) -> str:
        """ "" or what is wrong with the place of the run."""
        name, before = run.track_id, self._last_frame.get(run.track_id)
        apart = name in self._in_part and name != self._current
        self._in_part.add(name)
        self._current, self._last_frame[name] = name, run.last
        if apart:
            return f"the rows of track {name} are not together"
        return _not_in_order(name, before, run.first) if before is not None and run.first <= before else ""


def _not_in_order(track_id: str, before: int, after: int) -> str:
    return f"track {track_id} is not in time order, it goes from frame {before} to {after}"


def layout_of(files: Sequence[Part], expected: pa.Schema) -> Layout:
    """The layout of the copy. InputError where rows of a track are not together in a part or not in time order.

    The copy of a set in which no track goes on in another part has the rows in the order of the set, in one piece.
    """
    order = TrackOrder()
    numbers: dict[str, int] = {}  # track -> its place among the tracks
    lengths: list[int] = []
    blocks: list[tuple[int, int]] = []  # (number of the track, rows), in the order of the set
    for part, found in zip(files, _runs_of_all(files, expected), strict=True):
        order.start_part()
        for run in found:
            if problem := order.add(run):
                raise InputError(f"{part.path}: {problem}; extract the features again")
            number = numbers.setdefault(run.track_id, len(lengths))
            lengths += [0] * (number == len(lengths))
            lengths[number] += run.rows
            blocks.append((number, run.rows))
    ends = np.cumsum([0, *lengths]).tolist()
    tracks = [Track(name, start, stop) for name, start, stop in zip(numbers, ends[:-1], ends[1:], strict=True)]
    return Layout(tracks, _pieces(blocks, starts=ends[:-1]))


def _pieces(blocks: list[tuple[int, int]], *, starts: list[int]) -> list[Piece]:
    """The blocks with their places; blocks that follow each other in the copy as well are one piece."""
    pieces: list[Piece] = []
    free = list(starts)  # the next row of each track in the copy
    for number, rows in blocks:
        start = free[number]
        free[number] += rows
        if pieces and sum(pieces[-1]) == start:
            pieces[-1] = pieces[-1]._replace(rows=pieces[-1].rows + rows)
        else:
            pieces.append(Piece(rows, start))
    return pieces


def _runs_of_all(files: Sequence[Part], expected: pa.Schema) -> Iterator[list[Run]]:
    """The runs of each part, several of which are read at once."""
    pool = ThreadPoolExecutor(READERS)
    try:
        yield from pool.map(lambda part: _runs_of(part, expected), files)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error the parts that follow are not read


def _runs_of(part: Part, expected: pa.Schema) -> list[Run]:
    """The runs of a part. InputError where the frames of one are not in order."""
    found: list[Run] = []
    for batch in batches(part, expected, ["track_id", "frame_index"]):
        for run, problem in runs(batch.column("track_id"), batch.column("frame_index")):
            if problem:
                raise InputError(f"{part.path}: {problem}; extract the features again")
            if found and found[-1].track_id == run.track_id and found[-1].last < run.first:
                run = run._replace(rows=found[-1].rows + run.rows, first=found.pop().first)
            found.append(run)
    return found


def batches(part: Part, expected: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a part in order, up to ROWS_AT_ONCE at a time. InputError where a value is null.

    Row groups are read a few at a time, because Arrow asks a store for all of a read's bytes at its start.
    """
    with open_part(part, expected) as file:
        groups, rows = [], 0
        for group in range(file.num_row_groups):
            groups.append(group)
            rows += file.metadata.row_group(group).num_rows
            if rows >= ROWS_AT_ONCE or group == file.num_row_groups - 1:
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=columns):
                    if any(column.null_count for column in batch.columns):
                        raise InputError(f"{part.path}: a value in it is null; extract the features again")
                    yield batch
                groups, rows = [], 0
