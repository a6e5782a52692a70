"""The base of all workers: a task of several items in, their results in the job's books out.

A worker answers for each item alone: damage, failures and crashes of one never end the others.
"""

import itertools
import os
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from glot.errors import InputError, NotNowError
from glot.location import cache_bytes
from glot.people import source_cache
from glot.retries import ChangedError
from pipelines.jobs.bookkeeper import (
    ALONE,
    DAMAGED,
    FAILED,
    GIVE_UP,
    MOST_TRIES,
    NOT_NOW,
    OURS,
    STOPPING,
    USERS,
    Answer,
    Me,
    Order,
    Result,
    Stop,
    leaving_nodes,
)

BEAT_SECONDS = 5.0  # time between two reports of a worker
WAITS = (1.0, 10.0)  # s before an item is tried again after a failure that may pass
GIVEN_UP = f"its worker was killed {MOST_TRIES} times while it was at work on it: is there too little memory?"


class WorkerContext(NamedTuple):
    """What the pool gives to each of its workers."""

    bookkeeper: Any  # Ray's handle of the Bookkeeper
    pool: str  # name of the pool
    threads: int  # number of threads that read pictures
    device: str  # cpu or cuda
    shared: Any  # reference to PoolJob.shared, or None


class LeavingError(Exception):
    """This node is about to leave, so the item is left to another worker."""


class Item(NamedTuple):
    """A piece of work: its key, its number of frames, and what the worker needs to do it."""

    key: str
    frames: int
    content: Any


class PoolWorker:
    """Base class of workers. A subclass has ``prepare``, ``items`` and ``work``; Ray calls the worker with a task."""

    def __init__(self, arguments: Mapping[str, Any], context: WorkerContext) -> None:
        import cv2
        import ray

        cv2.setNumThreads(1)
        self.context = context
        node = ray.get_runtime_context().get_node_id()
        self.me = Me(uuid.uuid4().hex[:12], node, context.pool)
        self.holding: dict[str, int] = {}  # the items at work: {key: frames done}
        self.results: list[Result] = []  # results that are not in the job's log yet
        self.reported = 0  # number of them that the books have
        self.books = ""  # name of the books
        self.lock = threading.Lock()
        self.stopped: Stop | None = None
        self.leaving = False  # whether this node is about to leave
        self.busy = False  # whether this worker has a task
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            cache_bytes(source_cache.LIMIT_VARIABLE)  # a mistake there is no damage of the items
            shared = ray.get(context.shared) if context.shared is not None else None
            self.prepare(arguments, shared)
        except Exception as error:  # raised here, it would end the job without a word that a user can read
            self._stop(error)

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        """Loads what the worker needs. ``arguments`` and ``shared`` are those of the PoolJob."""
        raise NotImplementedError

    def items(self, task: Mapping[str, Any]) -> list[Item]:
        """The items of a task."""
        raise NotImplementedError

    def work(self, item: Item) -> Result:
        """Does one item, and calls ``progress``. Raises LeavingError if the node leaves, and InputError for damage."""
        raise NotImplementedError

    def examine(self, item: Item) -> str:
        """Reads the item in a separate process; returns how that crashed, or an empty text."""
        return ""

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Does the items of a task that are not done yet. Called by Ray."""
        answer, self.busy = b"", True
        try:
            answer = self.answer(task)
        except Exception as error:
            self._stop(error)
        self.busy = False
        return {"task": int(task["task"]), "answer": answer}

    def answer(self, task: Mapping[str, Any]) -> bytes:
        """What the job gives to ``PoolJob.consume`` of a task; results go to the job's books."""
        self._do(task)
        return b""

    def progress(self, key: str, frames: int) -> None:
        """Notes how many frames of an item are done."""
        self.holding[key] = frames

    def check_stay(self) -> None:
        """LeavingError if this node is about to leave."""
        if self.leaving:
            raise LeavingError

    def run(self, orders: Sequence[Order], items: Mapping[str, Item]) -> Iterator[Result]:
        """The results of the items that are ordered, one item after the other."""
        for order in orders:
            if self.stopped:
                return
            self.holding[order.key] = 0
            self.report()  # if this process dies now, it is known which item it was at
            yield self.attempt(order, items[order.key])

    def attempt(self, order: Order, item: Item) -> Result:
        """The result of one item. A failure that may pass is tried again after some seconds."""
        if refused := self.refused(order, item):
            return refused
        for tried in itertools.count():
            try:
                return self.work(item)
            except Exception as error:
                judged = self.judged(item, error, tried)
            if isinstance(judged, Result):
                return judged
            time.sleep(judged)
        raise AssertionError("the count has no end")

    def refused(self, order: Order, item: Item) -> Result | None:
        """The result of an item that is not to be done: it has killed several workers, or its decoder crashes."""
        if order.how == GIVE_UP:
            return Result(item.key, FAILED, item.frames, item.frames, reason=GIVEN_UP)
        if order.how == ALONE and (crash := self.examine(item)):
            return Result(item.key, DAMAGED, item.frames, item.frames, reason=f"its decoder crashes ({crash})")
        return None

    def judged(self, item: Item, error: Exception, tried: int) -> Result | float:
        """What becomes of an item after an error: its result, or the time in s after which it is tried again.

        ``tried`` is how often it was tried again before. Errors that end all work of this worker are raised again.
        """
        if isinstance(error, LeavingError) or getattr(error, "errno", None) in STOPPING:
            raise error
        reason = str(error)
        if isinstance(error, ChangedError):  # only another plan has it as it is now
            return Result(item.key, FAILED, item.frames, item.frames, reason=reason)
        if isinstance(error, InputError):
            return Result(item.key, DAMAGED, item.frames, item.frames, reason=reason)
        if isinstance(error, (NotNowError, OSError)):  # also a folder that is gone to which results are written
            if tried < len(WAITS):
                return WAITS[tried]
            return Result(item.key, FAILED, item.frames, item.frames, reason=reason, fault=NOT_NOW)
        # Our own fault; the other items go on.
        trace = "".join(traceback.format_exception(error))
        return Result(item.key, FAILED, item.frames, item.frames, reason=trace, fault=OURS)

    def report(self) -> None:
        """Tells the bookkeeper what this worker holds, and the results since the latest report.

        Results are kept until they are in the log. If the bookkeeper died before, its successor gets them again.
        """
        with self.lock:
            answer = self._report(self.reported)
            if answer.books != self.books and self.books:
                answer = self._report(0)
            self.books, self.stopped = answer.books, answer.stop or self.stopped
            if answer.kept:
                del self.results[: self.reported]
                self.reported = 0

    def _report(self, first: int) -> Answer:
        import ray

        results, holding = list(self.results), dict(self.holding)  # other threads may add some meanwhile
        for result in results:
            holding.pop(result.key, None)
        answer: Answer = ray.get(self.context.bookkeeper.report.remote(self.me, holding, results[first:]))
        self.reported = len(results)
        return answer

    def _do(self, task: Mapping[str, Any]) -> None:
        import ray

        if self.stopped:
            return
        try:
            items = {item.key: item for item in self.items(task)}
        except NotNowError:  # these items have no result yet, so the driver gives them out again
            return
        orders = ray.get(self.context.bookkeeper.begin.remote(self.me, list(items)))
        try:
            for result in self.run(orders, items):
                self.results.append(self.finished(result, items[result.key]))
                self.holding.pop(result.key, None)
        except LeavingError:
            self.holding.clear()
            self.report()
            # Ray starts the actor again on another node and gives it the same task.
            os._exit(0)
        self.report()

    def finished(self, result: Result, item: Item) -> Result:
        """The result as the job's log keeps it."""
        return result

    def _beat(self) -> None:
        """Reports now and then, and looks whether this node is about to leave."""
        while True:
            time.sleep(BEAT_SECONDS)
            try:
                self.leaving = self.leaving or self.me.node in leaving_nodes()
                self.report()
                if self.leaving and not self.busy:
                    # Ray Data gives no task to a worker on such a node, and no other worker in its place.
                    os._exit(0)
            except Exception:  # the job has ended, or the bookkeeper is being started again
                continue

    def _stop(self, error: Exception) -> None:
        """Ends the job because of an error that every item would meet."""
        import ray

        if isinstance(error, InputError) or getattr(error, "errno", None) in STOPPING:
            stop = Stop(USERS, str(error))
        elif isinstance(error, (NotNowError, OSError)):
            stop = Stop(NOT_NOW, str(error))
        else:
            stop = Stop(OURS, traceback.format_exc())
        ray.get(self.context.bookkeeper.stop.remote(*stop))
        self.stopped = stop
