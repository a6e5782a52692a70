"""Rendering jobs in, their results out as they finish. One worker renders in this process, several in their own."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

import cv2
import torch

from glot.human.body import Body, load_body
from pipelines.motions.motion_clip import MotionClip

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RenderSource:
    """What rendering needs: the body's file (None: the open body) and clips by name."""

    body: Path | None
    clips: dict[str, MotionClip]


def render_jobs(
    render: Callable[..., Result], jobs: Sequence[Job], source: RenderSource, *, workers: int
) -> Iterator[Result]:
    """Yields ``render(job, body=, clips=)`` of every job, in the order in which they finish.

    Each process works on one thread and loads the body once. ``render`` and the jobs must be picklable.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        with _one_thread():
            body = load_body(source.body)
            for job in jobs:
                yield render(job, body=body, clips=source.clips)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(source,)
    ) as pool:
        try:
            for future in as_completed([pool.submit(_work, render, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread each for torch and OpenCV; afterwards, as many as before."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


_worker: dict[str, Any] = {}


def _start_worker(source: RenderSource) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the main process, which stops the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(body=load_body(source.body), clips=source.clips)


def _end_with_parent() -> None:
    """A main process that is killed cannot stop its workers, which would wait for it for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(render: Callable[..., Result], job: Any) -> Result:
    body: Body = _worker["body"]
    return render(job, body=body, clips=_worker["clips"])
