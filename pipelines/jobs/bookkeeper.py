"""The job's books, in a Ray process on the driver's node: which pieces of work are done, who works on what, who died.

Workers ask it before they begin and report to it. All calls may come twice or late: they carry totals, not steps. If
the process dies, Ray starts it again, and it reads the log of outcomes. A piece of work is called an item here; its key
is unique in the job.
"""

import errno
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from glot.errors import NotNowError
from pipelines.jobs.job_progress import Counts

MOST_TRIES = 3  # how often the workers of an item may die before it is given up
SILENT_SECONDS = 60.0  # a worker that has not reported for this time does not keep others from its items
MOST_FAILURES = 20  # so many failures that may pass, with no success in between, stop the job

WRITE_SECONDS = 300.0  # the job stops if its log cannot be written for this time
STOPPING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # nothing can be written before the user has made space

DONE, DAMAGED, FAILED = "done", "damaged", "failed"  # what becomes of an item
PLAIN, ALONE, GIVE_UP = "plain", "alone", "give up"  # how a worker treats an item
NOT_NOW, USERS, OURS = "not now", "the user's", "ours"  # whose fault it is that a job stops


class Me(NamedTuple):
    """A worker, as it introduces itself."""

    worker: str  # unique, also among the restarts of one actor
    node: str
    pool: str = ""  # two pools may share the items of a job


class Result(NamedTuple):
    """What became of an item."""

    key: str
    kind: str  # DONE, DAMAGED or FAILED
    frames: int
    skipped: int  # frames or videos, as the job counts them
    value: Any = None  # what the job's log keeps, or what the driver wants to have
    reason: str = ""  # why it is damaged, or failed
    fault: str = ""  # of a failure: NOT_NOW; or OURS, a mistake in our code, whose trace is the reason


class Order(NamedTuple):
    """An item that a worker is to do. ALONE: its pictures are read in a separate process first."""

    key: str
    how: str


class Stop(NamedTuple):
    """Why the job ends before its items do."""

    fault: str  # NOT_NOW, USERS or OURS
    reason: str


class Answer(NamedTuple):
    """What a worker hears when it reports."""

    stop: Stop | None  # why the job stops, if it does
    books: str  # another text than before: the books were started again, and know only what is in their log
    kept: bool  # whether all results of this worker are in the log


class Summary(NamedTuple):
    """What a job leaves behind."""

    results: list[Result]  # all results, if there is no log
    failed: list[str]  # keys of the items that failed, and would fail again now
    mistake: str  # trace of the first failure that is our code's; or an empty text


class Log(Protocol):
    """Where results are kept for good."""

    def read(self) -> dict[str, tuple[str, int, int]]:
        """{key: (kind, frames, skipped)} of the items that have ended in this job."""

    def append(self, results: Sequence[Result]) -> None:
        """Keeps the results for good. OSError if it cannot."""

    @property
    def pause(self) -> float:
        """The shortest time between two calls of ``append``, s: a store takes a new object at each call."""


class _Holding(NamedTuple):
    me: Me
    frames: int  # done of the item


class Bookkeeper:
    """The books. ``log`` keeps the results; without one, ``results`` gives them to the driver."""

    def __init__(self, log: Log | None = None) -> None:
        self.log, self.name = log, uuid.uuid4().hex
        self.ended: dict[str, tuple[str, int, int]] = log.read() if log else {}
        self.frames = sum(frames for _, frames, _ in self.ended.values())
        self.skipped = sum(skipped for _, _, skipped in self.ended.values())
        self.kept: list[Result] = []  # without a log: all results; else those that are not in the log yet
        self.owners: set[str] = set()  # workers of the results that are not in the log yet
        self.written = self.unwritten = time.monotonic()  # latest success and latest try to write the log
        self.holding: dict[str, _Holding] = {}
        self.deaths: dict[str, list[str]] = {}  # item -> nodes on which its workers died
        self.heard: dict[str, float] = {}  # worker -> time of its latest call
        self.stopped: Stop | None = None
        self.failures = 0  # that may pass, since the latest item that could be read
        self.failed: set[str] = set()  # items that failed, and would fail again
        self.mistake = ""  # trace of the first failure that is our code's
        self.start = 0.0

    def begin(self, me: Me, keys: Sequence[str]) -> list[Order]:
        """What is left to do of ``keys``; nothing if the job stops.

        An item that has ended is never done again, even if Ray hands it out twice. An item whose worker died on a node
        that still lives is read in a separate process; after MOST_TRIES such deaths it is given up.
        """
        self._hear(me)
        if self.stopped:
            return []
        return [Order(key, self._how(me, key)) for key in keys if key not in self.ended and not self._taken(me, key)]

    def report(self, me: Me, holding: Mapping[str, int], results: Sequence[Result] = ()) -> Answer:
        """Takes what a worker works on, {key: frames done}, and results."""
        self._hear(me)
        for result in results:
            before = self.ended.get(result.key)
            if before is None or (before[0] != DONE and result.kind == DONE):  # a finished item stays finished
                self._end(result, before)
                self.owners.add(me.worker)
        self._write()
        for key in [key for key, held in self.holding.items() if held.me.worker == me.worker and key not in holding]:
            del self.holding[key]
        for key, frames in holding.items():
            if key not in self.ended:
                self.holding[key] = _Holding(me, frames)
        return Answer(self.stopped, self.name, self.log is not None and me.worker not in self.owners)

    def stop(self, fault: str, reason: str) -> None:
        """Ends the job: workers finish nothing more. The first reason counts."""
        self.stopped = self.stopped or Stop(fault, reason)

    def read(self) -> tuple[Counts, Stop | None]:
        """The counts of the job, and why it stops, if it does."""
        seconds = time.monotonic() - self.start if self.start else 0.0
        frames = self.frames + sum(held.frames for held in self.holding.values())
        now = time.monotonic()
        workers = sum(now - heard < SILENT_SECONDS for heard in self.heard.values())
        return Counts(frames, self.skipped, workers, seconds), self.stopped

    def close(self) -> Summary:
        """Writes what is left to the log."""
        self._write(at_once=True)
        return Summary(self.kept, sorted(self.failed), self.mistake)

    def _hear(self, me: Me) -> None:
        self.start = self.start or time.monotonic()
        self.heard[me.worker] = time.monotonic()

    def _end(self, result: Result, before: tuple[str, int, int] | None) -> None:
        self.frames += result.frames - (before[1] if before else 0)
        self.skipped += result.skipped - (before[2] if before else 0)
        self.ended[result.key] = (result.kind, result.frames, result.skipped)
        self.kept.append(result)
        self._judge(result)

    def _write(self, *, at_once: bool = False) -> None:
        """Writes the results that are not in the log yet. If that fails, the next call tries again."""
        now = time.monotonic()
        if self.log is None or not self.kept or (not at_once and now - self.unwritten < self.log.pause):
            if self.log is None or not self.kept:
                self.written = now
            return
        self.unwritten = now
        try:
            self.log.append(self.kept)
        except (OSError, NotNowError) as error:
            if getattr(error, "errno", None) in STOPPING:
                self.stop(USERS, str(error))
            elif now - self.written > WRITE_SECONDS:
                self.stop(NOT_NOW, f"the outcomes cannot be written: {error}")
            return
        self.kept, self.owners, self.written = [], set(), now

    def _judge(self, result: Result) -> None:
        """Stops the job if nothing but failures comes: a store that is down would fail every item."""
        if result.kind == FAILED and result.fault != NOT_NOW:
            self.failed.add(result.key)
        else:
            self.failed.discard(result.key)
        self.mistake = self.mistake or (result.reason if result.fault == OURS else "")
        if result.kind != FAILED:
            self.failures = 0
        elif result.fault == NOT_NOW:
            self.failures += 1
        if self.failures >= MOST_FAILURES:
            self.stop(NOT_NOW, f"{self.failures} failures in a row; the latest: {result.reason}")

    def _taken(self, me: Me, key: str) -> bool:
        """Whether a living worker of another pool works on the item."""
        held = self.holding.get(key)
        return (
            held is not None
            and held.me.pool != me.pool
            and time.monotonic() - self.heard.get(held.me.worker, 0.0) < SILENT_SECONDS
        )

    def _how(self, me: Me, key: str) -> str:
        held = self.holding.pop(key, None)
        if held is not None and held.me.worker != me.worker:
            self.deaths.setdefault(key, []).append(held.me.node)
        own = self._own_deaths(key)
        return GIVE_UP if own >= MOST_TRIES else ALONE if own else PLAIN

    def _own_deaths(self, key: str) -> int:
        """How often the item's worker died without its node. A node that went is not the item's fault.

        Nodes are looked at now and not when the worker died: a machine that is switched off ends its processes in any
        order, and Ray needs some time to notice.
        """
        nodes = self.deaths.get(key)
        if not nodes:
            return 0
        staying = staying_nodes()
        return sum(node in staying for node in nodes)


def staying_nodes() -> set[str]:
    """The nodes that are alive and are not about to leave."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} - set(leaving_nodes())


def leaving_nodes() -> dict[str, int]:
    """{node: deadline in ms, or 0} of the nodes that Ray drains: preempted, or removed by an autoscaler.

    Actors get no signal, so they must ask. Ray has no public function for it.
    """
    from ray._private.state import state

    return dict(state.get_draining_nodes())
