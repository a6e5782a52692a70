"""Units in, their results out, for workers with a GPU: threads read several units, the network runs on full batches.

A batch holds crops of any tracks and units. While the last crops of one unit wait for their features, the threads read
the next units, and rows are written beside. Decoding, cropping, the GPU and Parquet work without Python's lock, so
threads are enough.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import NotNowError
from pipelines.extraction.full_batches import Features, FullBatches, Network
from pipelines.extraction.units import OpenUnit
from pipelines.jobs.bookkeeper import PLAIN, Order, Result
from pipelines.jobs.pool_worker import Item, LeavingError, PoolWorker

SMALLEST_BATCH = 128  # crops; smaller batches leave a GPU idle
WRITERS = 4  # number of threads that write
MOST_UNWRITTEN = 4000  # frames of units that wait to be written, or are: two units of usual size, many short ones
TICK = 0.5  # s after which a stream that waits looks around: does the node leave, does the job stop?

Work = Sequence[tuple[Order, Item]]


class UnitWorker(PoolWorker):
    """A worker that can have several units open at once."""

    def open(self, item: Item) -> OpenUnit:
        """Opens the unit of an item. Called by reading threads."""
        raise NotImplementedError

    def finish(self, item: Item, opened: OpenUnit) -> Result:
        """Writes the rows of a unit whose features are all there. Called by writing threads."""
        raise NotImplementedError


def stream(worker: UnitWorker, network: Network, work: Work, *, threads: int, batch_size: int) -> Iterator[Result]:
    """The results of the items. LeavingError if the node leaves, after the features so far were kept.

    If a worker dies, all units that it held are suspects. So suspects come first, one after the other: then the next
    death clears the innocent ones.
    """
    suspects = [[(order, item)] for order, item in work if order.how != PLAIN]
    plain = [(order, item) for order, item in work if order.how == PLAIN]
    for group in [*suspects, plain]:
        if group and not worker.stopped:
            size = max(batch_size, SMALLEST_BATCH)
            yield from Stream(worker, network, threads=threads, batch_size=size).results(group)


class _Unit:
    """A unit in the stream."""

    def __init__(self, order: Order, item: Item, tried: int = 0) -> None:
        self.order, self.item, self.tried = order, item, tried
        self.opened: OpenUnit | None = None
        self.frames = 0  # number of its pictures that have been read
        self.is_read = False  # whether all of its crops have come
        self.missing = 0  # number of its crops that came and have no features yet
        self.is_dropped = False  # whether nothing more is to be done with it


class _Place(NamedTuple):
    """Where the feature of a crop belongs."""

    unit: _Unit
    clip: int
    row: int


class _ClosingError(Exception):
    """Nobody waits for the crops of this unit any more."""


class Stream:
    """Does units, with ``threads`` threads that read and batches of ``batch_size`` crops.

    At most ``threads`` units are read, and units of about MOST_UNWRITTEN frames are written. Besides these, only units
    are open whose last crops wait for a batch to become full. At most four batches of crops are in memory.

    What the threads find comes as events, each of them a call, to the thread that runs ``results``. Only that thread
    changes the state of the stream, so there are no locks.
    """

    def __init__(self, worker: UnitWorker, network: Network, *, threads: int, batch_size: int) -> None:
        self.worker, self.threads = worker, threads
        self.left: deque[_Unit] = deque()  # to be begun
        self.later: list[tuple[float, _Unit]] = []  # (time, unit) to be tried again
        self.units: list[_Unit] = []  # begun
        self.reading: set[_Unit] = set()
        self.writing: set[_Unit] = set()
        self.ended: list[Result] = []  # to be handed out
        self.events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.room = threading.Semaphore(batch_size)  # for crops in ``events``
        self.is_closing = False
        self.batches: FullBatches[_Place] = FullBatches(network, batch_size, self._store, self.events.put)
        self.readers = ThreadPoolExecutor(threads, thread_name_prefix="unit")
        self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")

    def results(self, work: Work) -> Iterator[Result]:
        """The results of the items, as they end. LeavingError, and errors that every item would meet, are raised."""
        self.left.extend(_Unit(order, item) for order, item in work)
        try:
            while (self.left or self.later or self.units) and not self.worker.stopped:
                self.worker.check_stay()
                self._begin_units()
                if not (self.reading or self.left or self.later):
                    self.batches.run()  # no other crop can come
                with suppress(queue.Empty):
                    self.events.get(timeout=TICK)()
                yield from self._handed_out()
        except LeavingError:
            self._leave()
            yield from self._handed_out()
            raise
        finally:
            self._close()

    def _begin_units(self) -> None:
        now, begun = time.monotonic(), list[_Unit]()
        self.left.extend(unit for due, unit in self.later if due <= now)
        self.later = [(due, unit) for due, unit in self.later if due > now]
        unwritten = sum(unit.item.frames for unit in self.writing)
        while self.left and len(self.reading) < self.threads and unwritten < MOST_UNWRITTEN:
            unit = self.left.popleft()
            begun.append(unit)
            self.units.append(unit)
            self.reading.add(unit)
            self.worker.holding[unit.item.key] = 0
        if not begun:
            return
        self.worker.report()  # if this process dies now, it is known which units it was at
        # Where there are fewer units than threads, several threads read a unit.
        each = max(1, self.threads // (len(self.reading) + len(self.left)))
        for unit in begun:
            self.readers.submit(self._read, unit, each)

    def _handed_out(self) -> Iterator[Result]:
        ended, self.ended = self.ended, []
        yield from ended

    # What runs in other threads

    def _read(self, unit: _Unit, threads: int) -> None:
        try:
            if result := self.worker.refused(unit.order, unit.item):
                self.events.put(partial(self._end, unit, result))
                return
            unit.opened = self.worker.open(unit.item)
            with closing(unit.opened.frames(threads, ahead=0 if threads == 1 else 2 * threads)) as frames:
                for number, frame in enumerate(frames, 1):
                    for (clip, row), crop in zip(frame.people, frame.crops or (), strict=True):
                        self._offer(_Place(unit, clip, row), crop)
                    if self.is_closing or unit.is_dropped:
                        return
                    unit.frames = number
            self.events.put(partial(self._note_read, unit))
        except _ClosingError:
            pass
        except Exception as error:
            self.events.put(partial(self._fail, unit, error))
        finally:
            self.events.put(partial(self.reading.discard, unit))

    def _offer(self, place: _Place, crop: NDArray[np.uint8]) -> None:
        """Waits until there is room for a crop."""
        self.room.acquire()
        if self.is_closing or place.unit.is_dropped:
            self.room.release()
            raise _ClosingError
        self.events.put(partial(self._add, place, crop))

    def _write(self, unit: _Unit) -> None:
        assert unit.opened is not None
        try:
            result = self.worker.finish(unit.item, unit.opened)
        except Exception as error:
            self.events.put(partial(self._fail, unit, error))
        else:
            self.events.put(partial(self._end, unit, result))

    # Events

    def _add(self, place: _Place, crop: NDArray[np.uint8]) -> None:
        self.room.release()
        if not (self.is_closing or place.unit.is_dropped):
            place.unit.missing += 1
            self.batches.add(place, crop)

    def _note_read(self, unit: _Unit) -> None:
        unit.is_read = True
        self._write_if_complete(unit)

    def _store(self, batch: Features[_Place]) -> None:
        """Puts the features of a batch, for which it waits, into the spools of their units."""
        units = dict.fromkeys(place.unit for place in batch.places)
        try:
            features = batch.future.result()[: len(batch.places)]
        except Exception as error:
            for unit in units:
                self._fail(unit, error)
            return
        for (unit, clip, row), feature in zip(batch.places, features, strict=True):
            if unit.opened is None or unit.is_dropped:
                continue
            try:
                unit.opened.features.put(clip, row, feature)
                unit.missing -= 1
            except Exception as error:  # the disk of the spool is full, or fails
                self._fail(unit, error)
        for unit in units:
            self._write_if_complete(unit)

    def _write_if_complete(self, unit: _Unit) -> None:
        if unit.is_dropped or self.is_closing:
            return
        self.worker.progress(unit.item.key, unit.frames)
        if unit.is_read and not unit.missing and unit not in self.writing:
            self.writing.add(unit)
            self.writers.submit(self._write, unit)

    def _end(self, unit: _Unit, result: Result) -> None:
        if not unit.is_dropped:
            self._drop(unit)
            self.ended.append(result)

    def _fail(self, unit: _Unit, error: Exception) -> None:
        if unit.is_dropped:
            return
        self._drop(unit)
        judged = self.worker.judged(unit.item, error, unit.tried)
        if isinstance(judged, Result):
            self.ended.append(judged)
        else:
            self.worker.progress(unit.item.key, 0)
            self.later.append((time.monotonic() + judged, _Unit(unit.order, unit.item, unit.tried + 1)))

    def _drop(self, unit: _Unit) -> None:
        unit.is_dropped = True
        self.units.remove(unit)
        self.writing.discard(unit)
        self.batches.drop(lambda place: place.unit is unit)
        if unit.opened is not None:
            unit.opened.__exit__()

    # The end

    def _leave(self) -> None:
        """Keeps the features so far of the units that are open, for the next worker."""
        self._stop_reading()
        self.batches.settle()
        self.writers.shutdown()
        while not self.events.empty():
            self.events.get()()
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(_keep_features, self.units))

    def _stop_reading(self) -> None:
        self.is_closing = True
        self.room.release(self.threads)

    def _close(self) -> None:
        """Ends the threads. A read that hangs is not waited for."""
        self._stop_reading()
        for pool in (self.readers, self.writers):
            pool.shutdown(wait=False, cancel_futures=True)
        self.batches.close()
        for unit in list(self.units):
            self._drop(unit)


def _keep_features(unit: _Unit) -> None:
    if unit.opened is not None:
        with suppress(NotNowError, OSError):  # then the unit begins again at its start
            unit.opened.keep_features()
