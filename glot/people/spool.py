"""Rows of numbers in any order in; the same rows, by clip and row, out.

More than some megabytes wait on disk, so that memory does not grow with the length of a video.
"""

import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 8 << 20  # bytes


class Spool:
    """Float32 rows (F,) of clips; ``lengths`` are their numbers of rows.

    ``written`` tells, for each clip, which of its rows were put.
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

    def put(self, clip: int, row: int, values: NDArray[np.floating]) -> None:
        self.file.seek((int(self.first[clip]) + row) * 4 * self.size)
        self.file.write(np.ascontiguousarray(values, np.float32).tobytes())
        self.written[clip][row] = True

    def take(self, clip: int, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, F): the clip's ``rows``, all of which must have been put."""
        assert self.written[clip][rows].all()
        out = np.empty((len(rows), self.size), np.float32)
        runs = np.split(
            np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1
        )  # consecutive rows, read in one go
        for run in runs if len(rows) else ():
            self.file.seek((int(self.first[clip]) + int(rows[run[0]])) * 4 * self.size)
            out[run] = np.frombuffer(self.file.read(4 * self.size * len(run)), np.float32).reshape(len(run), self.size)
        return out
