"""Crops of people in any order in; their features in a spool out, some crops in each forward pass."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glot.people.spool import Spool


class CropBatches:
    """Runs ``extractor`` (crops (B, S, S, 3) uint8 RGB -> features (B, F)) on ``size`` crops at a time."""

    def __init__(self, extractor: Callable[[NDArray[np.uint8]], NDArray], features: Spool, size: int) -> None:
        self.extractor, self.features, self.size = extractor, features, size
        self.crops: list[NDArray[np.uint8]] = []
        self.places: list[tuple[int, int]] = []  # (track, row) of each crop

    def add(self, track: int, row: int, crop: NDArray[np.uint8]) -> None:
        """Takes the crop of one row of a track. The features go to the spool when there are ``size`` crops."""
        self.crops.append(crop)
        self.places.append((track, row))
        if len(self.crops) == self.size:
            self.finish()

    def finish(self) -> None:
        """Runs the crops that are left. After it, the spool has the features of all crops."""
        if not self.crops:
            return
        for (track, row), feature in zip(self.places, self.extractor(np.stack(self.crops)), strict=True):
            self.features.put(track, row, feature)
        self.crops, self.places = [], []
