"""Blocks of rows in; their number, mean and scatter matrix out, as if all rows had been in memory at once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROWS_AT_ONCE = 1024  # a good size of a block: 17 MB of 2,048 numbers in double precision


class Moments:
    """Mean and scatter matrix of rows of ``size`` numbers, in double precision. Rows are added and not kept."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(size)
        self.scatter: NDArray[np.float64] = np.zeros((size, size))  # sum over rows of (row - mean) (row - mean)^T

    def add(self, rows: ArrayLike) -> None:
        """Adds rows (n, size); n may be 0.

        Chan, Golub and LeVeque's update: nothing large is subtracted from something large, wherever the mean is.
        """
        values = np.asarray(rows, np.float64)
        count = len(values)
        if not count:
            return
        shift = values.mean(0) - self.mean
        total = self.count + count
        # The last row stands for the distance between the block's mean and that of the rows before.
        centred = np.concatenate((values, np.sqrt(self.count * count / total) * shift[None]))
        centred[:-1] -= self.mean + shift
        self.scatter += centred.T @ centred
        self.mean += shift * (count / total)
        self.count = total
