"""Rows of numbers in any order in; the same rows, by track and row number, out.

Rows of more than IN_MEMORY bytes wait on disk, so that memory does not grow with the length of a video.
"""

import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 8 << 20  # bytes


class Spool:
    """Float32 rows (F,) of several tracks; ``lengths`` are the tracks' numbers of rows.

    ``written`` marks, for each track, the rows that were put.
    """

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        self.size = size
        self.first = np.cumsum([0, *lengths])
        self.written = [np.zeros(length, bool) for length in lengths]
        self.file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="glot-spool-")  # noqa: SIM115 (see __exit__)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def put(self, track: int, row: int, values: NDArray[np.floating]) -> None:
        self.file.seek((int(self.first[track]) + row) * 4 * self.size)
        self.file.write(np.ascontiguousarray(values, np.float32).tobytes())
        self.written[track][row] = True

    def take(self, track: int, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, F): the track's ``rows``, all of which must have been put."""
        assert self.written[track][rows].all()
        out = np.empty((len(rows), self.size), np.float32)
        stretches = np.split(
            np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1
        )  # consecutive rows, read in one go
        for stretch in stretches if len(rows) else ():
            self.file.seek((int(self.first[track]) + int(rows[stretch[0]])) * 4 * self.size)
            values = np.frombuffer(self.file.read(4 * self.size * len(stretch)), np.float32)
            out[stretch] = values.reshape(len(stretch), self.size)
        return out
