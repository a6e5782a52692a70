"""Pieces of work in, the rows that workers return out: a Ray Data job with progress lines and one clear error."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from glot.errors import InputError
from glot.training.ray_session import connect
from pipelines.extraction.messages import say
from pipelines.extraction.tally import Display, Tally

# A worker keeps a core busy but claims a little less. If workers claimed all CPUs, Ray Data could wait for ever.
CPU_OF_A_WORKER = 0.9


class Pool(NamedTuple):
    """How many workers there are, and what each of them claims."""

    workers: int
    resources: dict[str, float]  # num_cpus and num_gpus of one worker
    threads: int  # number of threads that read pictures in one worker


class WorkerContext(NamedTuple):
    """What the pool gives to each of its workers."""

    tally: Any  # Ray's handle of the Tally
    threads: int  # number of threads that read pictures
    shared: Any  # reference to PoolJob.shared, or None


@dataclass(frozen=True, kw_only=True)
class PoolJob:
    """What a pool of workers does. Each item is a dict of texts and numbers; the longest pieces of work come first."""

    worker: type["Worker"]
    arguments: Mapping[str, Any]  # arguments of the worker's constructor, besides ``context``
    items: Sequence[dict[str, Any]]
    frames: int  # number of frames in all items, for the progress line
    what: str  # name of the job in the progress line
    workers: int  # 0: one for each GPU; without a GPU, one for each CPU core
    on_gpus: bool = True  # whether workers use GPUs, if there are any
    collect: bool = False  # whether the rows that the workers return are needed
    shared: Any = field(default=None, repr=False)  # a large object that is stored once on each node


class Worker:
    """Base class of workers. ``__call__(item)`` of a subclass does one piece of work and returns a row."""

    def __init__(self, context: WorkerContext) -> None:
        import cv2
        import ray
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.tally, self.threads = context.tally, context.threads
        self.shared = ray.get(context.shared) if context.shared is not None else None

    def started(self) -> None:
        """Counts this worker as started. A subclass calls it when everything is loaded."""
        self.tally.add.remote(workers=1)

    def report(self, frames: int, skipped: int) -> None:
        """Counts frames as done; ``skipped`` is how many of them could not be read."""
        self.tally.add.remote(frames=frames, skipped=skipped)

    @contextmanager
    def writing(self, folder: Path) -> Iterator[None]:
        """Wraps code that writes into ``folder``: an OSError, such as a full disk, becomes the job's error message."""
        try:
            yield
        except OSError as error:
            import ray

            ray.get(self.tally.fail.remote(f"{folder}: {error}"))
            raise


def run_pool(job: PoolJob) -> list[dict[str, Any]]:
    """Runs the Ray Data job. Returns the rows of the workers if ``job.collect`` is true, else an empty list.

    InputError if the cluster cannot hold the workers, or if one of them raised an InputError or an OSError.
    """
    with ray_session() as ray:
        pool = plan(nodes_of(ray, on_gpus=job.on_gpus), job.workers, len(job.items))
        free = ray.available_resources()
        if any(free.get(kind, 0) < pool.workers * pool.resources[f"num_{kind.lower()}s"] for kind in ("CPU", "GPU")):
            say(f"other work occupies CPUs or GPUs that {pool.workers} workers need; they start as soon as it ends")
        tally = ray.remote(num_cpus=0)(Tally).remote()
        shared = ray.put(job.shared) if job.shared is not None else None
        context = WorkerContext(tally, pool.threads, shared)
        try:
            with Display(lambda: ray.get(tally.read.remote()), total=job.frames, what=job.what):
                # One item at a time to a worker, so that no worker is left with a queue at the end.
                done = ray.data.from_items(list(job.items), override_num_blocks=len(job.items)).map(
                    job.worker,
                    fn_constructor_kwargs={**job.arguments, "context": context},
                    compute=ray.data.ActorPoolStrategy(size=pool.workers, max_tasks_in_flight_per_actor=1),
                    **pool.resources,
                )
                rows: list[dict[str, Any]] = done.take_all() if job.collect else []
                if not job.collect:
                    done.materialize()
        except ray.exceptions.RayError as error:
            # Users can act on an InputError (files differ between nodes) and on a reason in the tally (a full disk).
            cause = getattr(error, "cause", None)
            reason = str(cause) if isinstance(cause, InputError) else ray.get(tally.reason.remote())
            if reason:
                raise InputError(f"{reason}; what is done is kept, run the same command again") from None
            raise
    return rows


def nodes_of(ray: Any, *, on_gpus: bool) -> list[dict[str, float]]:
    """The resources of the nodes that are alive; without GPUs where workers do not use them."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{kind: count for kind, count in node.items() if on_gpus or kind != "GPU"} for node in nodes]


def plan(nodes: Sequence[Mapping[str, float]], workers: int, items: int) -> Pool:
    """The pool for nodes with these resources. ``workers`` 0: one for each GPU, else one for each CPU.

    InputError if the nodes cannot hold this many workers, because Ray would wait for them for ever.
    """
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    slots = gpus or cpus
    if not slots or workers > slots:
        have = f"{gpus} GPUs" if gpus else f"{cpus} CPUs"
        raise InputError(
            f"--workers {workers}: this Ray cluster has {have}, so at most {slots} workers; 0 uses all of them"
        )
    workers = min(workers or slots, max(items, 1))
    if not gpus:
        return Pool(workers, {"num_cpus": CPU_OF_A_WORKER, "num_gpus": 0}, 1)
    # With a GPU, reading pictures takes most of the time, so each worker gets its share of its node's cores for it.
    share = max(1, int(min(node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU"))))
    return Pool(workers, {"num_cpus": share * CPU_OF_A_WORKER, "num_gpus": 1}, share)


@contextmanager
def ray_session() -> Iterator[Any]:
    """Joins or starts Ray, and sets Ray Data to print nothing and to wait for long pieces of work."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray
    import ray.data

    started_here = connect()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # by default Ray Data gives up if nothing ends for half an hour
    try:
        yield ray
    finally:
        if started_here:
            ray.shutdown()
