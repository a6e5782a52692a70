"""Units in, their outcomes out, for workers with a GPU: threads read several units, a network runs on full batches.

A batch holds crops of any tracks and units. While the last crops of one unit wait for their features, the threads read
the next ones, and rows are written beside. All batches have one size: the last one is filled up with black crops. So a
GPU runs the same kernels for every crop, and a feature does not depend on its neighbours in the batch, also where a
unit begins again on another machine in the middle.

Decoding, cropping, the GPU and Parquet all work without Python's lock, so threads are enough.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from glot.errors import NotNowError
from pipelines.extraction.units import OpenUnit
from pipelines.jobs.bookkeeper import PLAIN, Order, Result
from pipelines.jobs.pool_worker import Item, LeavingError

SMALLEST_BATCH = 128  # crops; smaller batches leave a GPU idle
WRITERS = 2  # number of units that are written at once
TICK = 0.5  # s after which a stream that waits looks around: does the node leave, does the job stop?

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Host(Protocol):
    """The worker that a stream works for; see PoolWorker and ExtractUnits."""

    holding: dict[str, int]
    stopped: Any

    def open(self, item: Item) -> OpenUnit:
        """Opens the unit of an item."""

    def finish(self, item: Item, opened: OpenUnit) -> Result:
        """Writes the rows of a unit whose features are all there."""

    def refused(self, order: Order, item: Item) -> Result | None:
        """The result of an item that must not be done."""

    def judged(self, item: Item, error: Exception, tried: int) -> Result | float:
        """What becomes of an item after an error: its result, or the seconds after which it is tried again."""

    def check_stay(self) -> None:
        """LeavingError if this node is about to leave."""

    def report(self) -> None:
        """Tells the bookkeeper what this worker holds."""


class _Unit:
    """A unit in the stream."""

    def __init__(self, order: Order, item: Item, tried: int = 0) -> None:
        self.order, self.item, self.tried = order, item, tried
        self.opened: OpenUnit | None = None
        self.read = 0  # number of its pictures that have been read
        self.is_read = False  # whether all of its crops have come
        self.missing = 0  # number of its crops in batches, without features yet
        self.dropped = False  # whether nothing more is to be done with it


class _Place(NamedTuple):
    """Where the feature of a crop belongs."""

    unit: _Unit
    clip: int
    row: int


Crop = tuple[_Place, NDArray[np.uint8]]  # (S, S, 3) RGB


class _Batch(NamedTuple):
    """A batch that the network is running on."""

    places: list[_Place]
    features: "Future[NDArray[np.float32]]"


class _ClosingError(Exception):
    """Nobody waits for the crops of this unit any more."""


class Stream:
    """Does units for ``host``, ``threads`` at once, with batches of ``size`` crops.

    At most ``threads`` units are read and WRITERS units are written at once. Beside them, only units of which the last
    crops wait for a batch to become full are open. At most four batches of crops are in memory.

    What the threads find comes as events, each a call, to the thread that runs ``results``. Only that one changes the
    state of the stream, so there are no locks.
    """

    def __init__(self, host: Host, network: Network, *, threads: int, size: int) -> None:
        self.host, self.network, self.threads, self.size = host, network, threads, size
        self.left: deque[_Unit] = deque()  # to be begun
        self.later: list[tuple[float, _Unit]] = []  # to be tried again at a time
        self.open: list[_Unit] = []
        self.reading: set[_Unit] = set()
        self.writing: set[_Unit] = set()
        self.batch: list[Crop] = []  # grows
        self.running: _Batch | None = None
        self.ended: list[Result] = []  # to be handed out
        self.events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.room = threading.Semaphore(size)  # for crops in ``events``
        self.is_closing = False
        self.readers = ThreadPoolExecutor(threads, thread_name_prefix="unit")
        self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self.runner = ThreadPoolExecutor(1, thread_name_prefix="network")

    def results(self, work: Sequence[tuple[Order, Item]]) -> Iterator[Result]:
        """The results of the items, as they end. LeavingError, after keeping the features so far, if the node leaves.

        An error that every item would meet is raised as it is.
        """
        self.left.extend(_Unit(order, item) for order, item in work)
        try:
            while (self.left or self.later or self.open) and not self.host.stopped:
                self.host.check_stay()
                self._begin_units()
                self._take_event()
                yield from self._handed_out()
            yield from self._handed_out()
        except LeavingError:
            self._leave()
            yield from self._handed_out()
            raise
        finally:
            self._close()

    def _begin_units(self) -> None:
        now, begun = time.monotonic(), []
        for due, unit in list(self.later):
            if due <= now:
                self.later.remove((due, unit))
                self.left.append(unit)
        while self.left and len(self.reading) < self.threads and len(self.writing) < WRITERS:
            unit = self.left.popleft()
            begun.append(unit)
            self.open.append(unit)
            self.reading.add(unit)
            self.host.holding[unit.item.key] = 0
        if not begun:
            return
        self.host.report()  # if this process dies now, it is known which units it was at
        # Where there are fewer units than threads, a unit is read by several.
        each = self.threads // max(len(self.reading) + len(self.left), 1)
        for unit in begun:
            self.readers.submit(self._read, unit, max(each, 1))

    def _take_event(self) -> None:
        """Waits for an event, and runs the last batch when no other crop can come."""
        if self.batch and not (self.reading or self.left or self.later):
            self._run_batch()
        with suppress(queue.Empty):
            self.events.get(timeout=TICK)()

    def _handed_out(self) -> Iterator[Result]:
        ended, self.ended = self.ended, []
        yield from ended

    # In a reading thread

    def _read(self, unit: _Unit, threads: int) -> None:
        try:
            if result := self.host.refused(unit.order, unit.item):
                self.events.put(partial(self._end, unit, result))
                return
            unit.opened = self.host.open(unit.item)
            with closing(unit.opened.frames(threads, ahead=0 if threads == 1 else 2 * threads)) as frames:
                for count, frame in enumerate(frames, 1):
                    for (clip, row), pixels in zip(frame.people, frame.crops or (), strict=True):
                        self._offer(_Place(unit, clip, row), pixels)
                    if self.is_closing or unit.dropped:
                        return
                    unit.read = count
            self.events.put(partial(self._note_read, unit))
        except _ClosingError:
            pass
        except Exception as error:
            self.events.put(partial(self._fail, unit, error))
        finally:
            self.events.put(partial(self.reading.discard, unit))

    def _offer(self, place: _Place, pixels: NDArray[np.uint8]) -> None:
        """Waits until there is room for a crop."""
        self.room.acquire()
        if self.is_closing or place.unit.dropped:
            self.room.release()
            raise _ClosingError
        self.events.put(partial(self._add, place, pixels))

    # In a writing thread

    def _write(self, unit: _Unit) -> None:
        assert unit.opened is not None
        try:
            result = self.host.finish(unit.item, unit.opened)
        except Exception as error:
            self.events.put(partial(self._fail, unit, error))
        else:
            self.events.put(partial(self._end, unit, result))

    # Events

    def _add(self, place: _Place, pixels: NDArray[np.uint8]) -> None:
        self.room.release()
        if self.is_closing or place.unit.dropped:
            return
        place.unit.missing += 1
        self.batch.append((place, pixels))
        if len(self.batch) == self.size:
            self._run_batch()

    def _note_read(self, unit: _Unit) -> None:
        unit.is_read = True
        self._write_if_complete(unit)

    def _end(self, unit: _Unit, result: Result) -> None:
        if not unit.dropped:
            self._drop(unit)
            self.ended.append(result)

    def _fail(self, unit: _Unit, error: Exception) -> None:
        if unit.dropped:
            return
        self._drop(unit)
        result = self.host.judged(unit.item, error, unit.tried)
        if isinstance(result, Result):
            self.ended.append(result)
        else:
            self.host.holding[unit.item.key] = 0
            self.later.append((time.monotonic() + result, _Unit(unit.order, unit.item, unit.tried + 1)))

    def _store(self, batch: _Batch) -> None:
        """Puts the features of a batch into the spools of their units. Waits for them."""
        if batch is not self.running:  # they are there already
            return
        self.running = None
        units = dict.fromkeys(place.unit for place in batch.places)
        try:
            features = batch.features.result()[: len(batch.places)]
        except Exception as error:
            for unit in units:
                self._fail(unit, error)
            return
        for (unit, clip, row), feature in zip(batch.places, features, strict=True):
            if unit.dropped:
                continue
            assert unit.opened is not None
            try:
                unit.opened.features.put(clip, row, feature)
                unit.missing -= 1
            except Exception as error:  # the disk of the spool is full or fails
                self._fail(unit, error)
        for unit in units:
            self._write_if_complete(unit)

    # In the thread of the events

    def _run_batch(self) -> None:
        """Gives the batch to the network, and waits for the batch before it."""
        places, crops = zip(*self.batch, strict=True)
        self.batch = []
        full = np.zeros((self.size, *crops[0].shape), np.uint8)
        np.stack(crops, out=full[: len(crops)])
        features = self.runner.submit(self.network, full)
        if self.running is not None:
            self._store(self.running)
        self.running = batch = _Batch(list(places), features)
        features.add_done_callback(lambda _: self.events.put(partial(self._store, batch)))

    def _write_if_complete(self, unit: _Unit) -> None:
        if unit.dropped or self.is_closing:
            return
        self.host.holding[unit.item.key] = unit.read
        if unit.is_read and not unit.missing and unit not in self.writing:
            self.writing.add(unit)
            self.writers.submit(self._write, unit)

    def _drop(self, unit: _Unit) -> None:
        unit.dropped = True
        self.open.remove(unit)
        self.writing.discard(unit)
        self.batch = [crop for crop in self.batch if crop[0].unit is not unit]
        if unit.opened is not None:
            unit.opened.__exit__()

    def _leave(self) -> None:
        """Keeps the features so far of all units that are open. Those that are being written become finished."""
        self._stop_reading()
        if self.running is not None:
            self._store(self.running)
        self.writers.shutdown()
        while not self.events.empty():
            self.events.get()()
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(_keep, self.open))

    def _stop_reading(self) -> None:
        self.is_closing = True
        self.room.release(self.threads)

    def _close(self) -> None:
        """Ends the threads. A read that hangs is not waited for."""
        self._stop_reading()
        for pool in (self.readers, self.writers, self.runner):
            pool.shutdown(wait=False, cancel_futures=True)
        for unit in list(self.open):
            self._drop(unit)


def _keep(unit: _Unit) -> None:
    if unit.opened is not None:
        with suppress(NotNowError, OSError):  # then the unit begins again from its start
            unit.opened.keep_features()


def stream(
    host: Host, network: Network, work: Sequence[tuple[Order, Item]], *, threads: int, size: int
) -> Iterator[Result]:
    """The results of the items. Those that may have killed a worker come first, one after the other."""
    size = max(size, SMALLEST_BATCH)
    alone = [(order, item) for order, item in work if order.how != PLAIN]
    plain = [(order, item) for order, item in work if order.how == PLAIN]
    # If a worker dies, all units that it holds are suspects. A suspect that is read alone is cleared or found guilty.
    for group in (*([one] for one in alone), plain):
        if group and not host.stopped:
            yield from Stream(host, network, threads=threads, size=size).results(group)
