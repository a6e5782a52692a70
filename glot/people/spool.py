"""Rows of numbers that arrive in any order in, the same by clip and row out; what is more than some megabytes waits on
disk, so that memory does not grow with the length of a video."""

import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 8 << 20  # bytes


class Spool:
    """Float32 rows (F,) for clips of so many rows. ``there`` says of each clip which rows came."""

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        self.size = size
        self.first = np.cumsum([0, *lengths])
        self.there = [np.zeros(length, bool) for length in lengths]
        self.file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="glot-spool-")  # noqa: SIM115 (see __exit__)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def put(self, clip: int, row: int, values: NDArray[np.floating]) -> None:
        self.file.seek((int(self.first[clip]) + row) * 4 * self.size)
        self.file.write(np.ascontiguousarray(values, np.float32).tobytes())
        self.there[clip][row] = True

    def take(self, clip: int, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, F) of the clip's ``rows``, all of which must have come."""
        assert self.there[clip][rows].all()
        out = np.empty((len(rows), self.size), np.float32)
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)  # what can be read in one go
        for run in runs if len(rows) else ():
            self.file.seek((int(self.first[clip]) + int(rows[run[0]])) * 4 * self.size)
            out[run] = np.frombuffer(self.file.read(4 * self.size * len(run)), np.float32).reshape(len(run), self.size)
        return out
