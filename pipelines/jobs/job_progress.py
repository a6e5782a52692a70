"""The counts of a job in, a progress line or bar out: frames done, frames/s, time left, frames skipped."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from glot.cli import PLAIN_SECONDS

POLL_SECONDS = 1.0


def say(text: str) -> None:
    """Prints a line to the terminal or the job's log at once, not when a buffer is full."""
    print(text, flush=True)


class Counts(NamedTuple):
    frames: int  # frames that are done, including the skipped ones
    skipped: int  # frames that were skipped
    workers: int  # workers that have started
    seconds: float  # since the first worker started


class Display:
    """Polls ``read`` in a thread while the with-block runs: a bar on a terminal, else plain lines (a job's log)."""

    def __init__(self, read: Callable[[], Counts], *, total: int, what: str, counted: str = "frames") -> None:
        self.read, self.total, self.what, self.counted = read, total, what, counted
        self.stop = threading.Event()
        self.latest = Counts(0, 0, 0, 0.0)
        self.thread = threading.Thread(target=self._bar if sys.stderr.isatty() else self._lines, daemon=True)

    def __enter__(self) -> "Display":
        self.start = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=10)

    def counts(self) -> Counts:
        """The counts of now, or the latest ones while they cannot be had."""
        with suppress(Exception):  # the process that counts is being started again
            self.latest = self.read()
        return self.latest

    def status(self, counts: Counts) -> str:
        """Frames/s, the time left and the frames skipped, as a text."""
        if not counts.frames:
            return f"{counts.workers} workers started" if counts.workers else "waiting for workers to start"
        rate = counts.frames / max(counts.seconds, 1e-3)
        left = f", about {(self.total - counts.frames) / rate:.0f} s left" if counts.frames < self.total else ""
        return f"{rate:.1f} {self.counted}/s{left}, {counts.skipped} skipped"

    def _lines(self) -> None:
        last_time, last_frames = -PLAIN_SECONDS, -1  # time and frames of the latest line
        while True:
            ended = self.stop.wait(POLL_SECONDS)
            now = time.monotonic()
            if not ended and now - last_time < PLAIN_SECONDS:
                continue
            counts = self.counts()
            if counts.frames == last_frames and ended:
                return
            last_time, last_frames = now, counts.frames
            done = f"{min(counts.frames, self.total)}/{self.total} {self.counted}, {now - self.start:.0f} s gone"
            print(f"{self.what}: {done}, {self.status(counts)}", file=sys.stderr, flush=True)
            if ended:
                return

    def _bar(self) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(self.what, total=self.total, status="")
            ended = False
            while not ended:
                ended = self.stop.wait(POLL_SECONDS)
                counts = self.counts()
                bar.update(task, completed=min(counts.frames, self.total), status=self.status(counts))
