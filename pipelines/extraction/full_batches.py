"""Crops of any units in, one after the other; their features out, batch by batch. Every batch has the same size.

A batch that is not full is filled up with black crops. So a GPU runs the same kernels for every crop, and a feature
does not depend on how many crops were beside it, also where a unit begins again in the middle on another machine.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # crops (B, S, S, 3) RGB -> features (B, F)
Place = TypeVar("Place")  # where the feature of a crop belongs


@dataclass(frozen=True, eq=False)
class Features(Generic[Place]):
    """What the network makes of a batch."""

    places: list[Place]
    future: "Future[NDArray[np.float32]]"  # (size, F); the first len(places) rows count


class FullBatches(Generic[Place]):
    """Runs ``network`` on ``size`` crops at a time, in a thread of its own, while the next ones are collected.

    ``store`` takes the features of a batch. It is called by the thread that calls the methods; ``call`` is how the
    thread of the network asks for that.
    """

    def __init__(
        self,
        network: Network,
        size: int,
        store: Callable[[Features[Place]], None],
        call: Callable[[Callable[[], None]], None],
    ) -> None:
        self.network, self.size, self.store, self.call = network, size, store, call
        self.waiting: list[tuple[Place, NDArray[np.uint8]]] = []  # the batch that grows
        self.running: Features[Place] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    def add(self, place: Place, crop: NDArray[np.uint8]) -> None:
        """Takes a crop (S, S, 3)."""
        self.waiting.append((place, crop))
        if len(self.waiting) == self.size:
            self.run()

    def run(self) -> None:
        """Gives the crops that are waiting to the network, and waits for the batch before them."""
        if not self.waiting:
            return
        places, crops = zip(*self.waiting, strict=True)
        self.waiting = []
        batch = np.zeros((self.size, *crops[0].shape), np.uint8)
        np.stack(crops, out=batch[: len(crops)])
        future = self.thread.submit(self.network, batch)
        self.settle()
        self.running = running = Features(list(places), future)
        future.add_done_callback(lambda _: self.call(lambda: self._settle(running)))

    def settle(self) -> None:
        """Waits until the features of all batches are stored."""
        if self.running is not None:
            self._settle(self.running)

    def drop(self, unwanted: Callable[[Place], bool]) -> None:
        """Forgets crops that are waiting."""
        self.waiting = [(place, crop) for place, crop in self.waiting if not unwanted(place)]

    def close(self) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _settle(self, features: Features[Place]) -> None:
        if features is self.running:  # else they are stored already
            self.running = None
            self.store(features)
