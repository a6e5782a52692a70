"""Tasks of several items in, their results out: Ray Data jobs with progress lines, whose workers follow the cluster.

Ray Data gives each task to one worker, and again to another one if that dies. The job's books (bookkeeper.py) say what
is left to do of it.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from glot.errors import InputError, NotNowError
from glot.training.cluster.placement import slots
from glot.training.cluster.session import connect
from pipelines.jobs.bookkeeper import NOT_NOW, OURS, USERS, Bookkeeper, Log, Stop, Summary
from pipelines.jobs.job_progress import Counts, Display, say
from pipelines.jobs.pool_worker import PoolWorker, WorkerContext

# A worker keeps a core busy but claims a little less. If workers claimed all CPUs, Ray Data could wait for ever.
CPU_OF_A_WORKER = 0.9
RELEASE_SECONDS = 3.0  # Ray's view of free resources is so late
TASK_FRAMES = 32_000  # of the largest task: some minutes of a GPU's time, a quarter of an hour of a core's
TASK_ITEMS = 100  # most items of a task
TASKS_LEFT = 4  # what is left makes at least so many tasks for each worker
ACCELERATOR = "ray.io/accelerator-type"  # label that Ray gives to nodes with a GPU
MOST_WORKERS = 100_000  # more than a cluster has: the pool grows with the cluster, up to its resources


class Pool(NamedTuple):
    """How many workers of one kind there may be, and what each of them claims."""

    name: str
    smallest: int  # Ray Data starts so many at once, and waits for them
    largest: int
    resources: dict[str, float]  # num_cpus and num_gpus of one worker
    threads: int  # number of threads that read pictures in one worker
    place: Mapping[str, Any] = {}  # Ray's options that say on which nodes it may be

    @property
    def device(self) -> str:
        return "cuda" if self.resources["num_gpus"] else "cpu"


@dataclass(frozen=True, kw_only=True)
class PoolJob:
    """What pools of workers do. A task is a dict of texts, numbers and lists, with the keys of its items in "keys"."""

    worker: type[PoolWorker]
    arguments: Mapping[str, Any]  # for the worker's ``prepare``
    tasks: Sequence[dict[str, Any]]
    frames: int  # number of frames in all items, for the progress line
    counted: str = "frames"  # what ``frames`` counts
    what: str  # name of the job in the progress line
    workers: int = 0  # the most workers; 0: as many as the cluster can hold
    devices: str = "auto"  # cpu, gpu, both; auto: GPUs if the cluster has any, else CPUs
    gpu_share: float = 1.0  # GPUs that one worker claims
    shared: Any = field(default=None, repr=False)  # a large object that is stored once on each node
    log: Log | None = None  # where results are kept; without one, run_pool returns them
    watch: Callable[[], str] = lambda: ""  # says why the job has to stop; asked every second
    consume: Callable[[bytes], None] | None = None  # takes the workers' answers, task by task


def run_pool(job: PoolJob) -> Summary:
    """Runs the Ray Data job in the Ray session that is open.

    InputError or NotNowError if the job had to stop before its end; RuntimeError, with a worker's trace, if the reason
    is a mistake in our code.
    """
    import ray

    pools = plan_pools(ray.nodes(), job, fixed=not os.environ.get("RAY_ADDRESS"))
    _say_what_waits(pools)
    # The driver's node stays as long as the job, so the books are kept there. They claim no CPU.
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    books: Any = ray.remote(Bookkeeper).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
    )
    bookkeeper = books.remote(job.log)
    shared = ray.put(job.shared) if job.shared is not None else None

    def counts() -> Counts:
        if reason := job.watch():
            ray.get(bookkeeper.stop.remote(NOT_NOW, reason))
        return ray.get(bookkeeper.read.remote())[0]

    with Display(counts, total=job.frames, what=job.what, counted=job.counted):
        _run_pools(ray, job, pools, bookkeeper, shared)
    _, stop = ray.get(bookkeeper.read.remote())
    summary: Summary = ray.get(bookkeeper.close.remote())
    ray.kill(bookkeeper)
    if summary.mistake:
        text = f"a worker met a mistake in our code; please report it:\n{summary.mistake}"
        print(text, file=sys.stderr, flush=True)
    if stop:
        raise error_of(stop)
    return summary


def error_of(stop: Stop) -> Exception:
    """The error that ends the command."""
    advice = "what is done is kept, run the same command again"
    if stop.fault == OURS:
        return RuntimeError(f"a worker met a mistake in our code:\n{stop.reason}")
    return (InputError if stop.fault == USERS else NotNowError)(f"{stop.reason}; {advice}")


def _run_pools(ray: Any, job: PoolJob, pools: Sequence[Pool], bookkeeper: Any, shared: Any) -> None:
    """One Ray Data pipeline for each pool. Of two, each walks all tasks, from opposite ends, and they meet."""
    errors: list[BaseException] = []

    def walk(pool: Pool, tasks: Sequence[dict[str, Any]]) -> None:
        context = WorkerContext(bookkeeper, pool.name, pool.threads, pool.device, shared)
        try:
            tickets = [{"task": number, **task} for number, task in enumerate(tasks)]
            # One task at a time to a worker, so that no worker is left with a queue at the end.
            answers = ray.data.from_items(tickets, override_num_blocks=len(tickets)).map(
                job.worker,
                fn_constructor_kwargs={"arguments": dict(job.arguments), "context": context},
                compute=ray.data.ActorPoolStrategy(
                    min_size=pool.smallest, max_size=pool.largest, max_tasks_in_flight_per_actor=1
                ),
                **pool.resources,
                **pool.place,
            )
            for row in answers.iter_rows():
                if job.consume:
                    job.consume(row["answer"])
        except BaseException as error:
            errors.append(error)

    if not job.tasks:
        return
    threads = [
        threading.Thread(target=walk, args=(pool, job.tasks[:: -1 if number else 1]), daemon=True)
        for number, pool in enumerate(pools[1:], 1)
    ]
    for thread in threads:
        thread.start()
    walk(pools[0], job.tasks)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def plan_pools(nodes: Sequence[Mapping[str, Any]], job: PoolJob, *, fixed: bool) -> list[Pool]:
    """The pools for a cluster with these ``nodes`` (of ``ray.nodes()``). A ``fixed`` cluster cannot grow.

    InputError if the job asks for GPUs or workers that a fixed cluster does not have; Ray would wait for them for ever.
    A cluster with autoscaling may have no node yet.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = (int(sum(node.get(kind, 0) for node in alive)) for kind in ("CPU", "GPU"))
    on_gpus = job.devices in ("gpu", "both") or (job.devices == "auto" and gpus > 0)
    if on_gpus and fixed and not gpus:
        raise InputError(f"--devices {job.devices}: this machine has no GPU that Ray can see; leave it out")
    pools = []
    if on_gpus:
        gpu_claim, gpu_slots = _gpu_claim(alive, job.gpu_share)
        pools.append(_pool("gpu", job, gpu_slots, gpu_claim, max(1, int(gpu_claim["num_cpus"] / CPU_OF_A_WORKER))))
    others = [node for node in alive if not node.get("GPU")]
    if not on_gpus:
        pools.append(_cpu_pool(alive, job))
    elif job.devices == "both" and (any(node.get("CPU") for node in others) or not cpus):
        # Where all cores are beside GPUs, this pool would wait for ever. A cluster without any core must grow anyway.
        pools.append(_cpu_pool(others, job)._replace(place={"label_selector": _without_gpu(nodes)}))
    most = gpu_slots if on_gpus else cpus
    if fixed and job.workers > most and len(pools) == 1:
        have = f"{gpus} GPUs and {cpus} CPUs" if on_gpus else f"{cpus} CPUs"
        raise InputError(
            f"--workers {job.workers}: this machine has {have}, so at most {most} workers; 0 uses all of them"
        )
    return pools


def _gpu_claim(alive: Sequence[Mapping[str, float]], gpu_share: float) -> tuple[dict[str, float], int]:
    """What a worker with a GPU claims, and how many of them fit.

    Reading pictures takes most of the time beside a GPU, so each worker gets its share of the cores of its node.
    """
    shares = [node.get("CPU", 0) * gpu_share / node["GPU"] for node in alive if node.get("GPU")]
    cores = max(1, int(min(shares, default=1)))
    claim = {"num_cpus": cores * CPU_OF_A_WORKER, "num_gpus": gpu_share}
    return claim, slots(alive, _named(claim))


def _named(claim: Mapping[str, float]) -> dict[str, float]:
    """A claim by the names of resources: {"CPU": 0.9}."""
    return {kind: claim[f"num_{kind.lower()}s"] for kind in ("CPU", "GPU") if claim[f"num_{kind.lower()}s"]}


def _cpu_pool(alive: Sequence[Mapping[str, float]], job: PoolJob) -> Pool:
    claim = {"num_cpus": CPU_OF_A_WORKER, "num_gpus": 0}
    return _pool("cpu", job, slots(alive, {"CPU": 1}), claim, 1)


def _without_gpu(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The nodes whose cores do not feed a GPU.

    If a GPU worker dies, workers without a GPU would take its cores at once, and its GPU would have nothing to do.
    """
    from ray.util import accelerators

    known = {value for name, value in vars(accelerators).items() if name.isupper() and isinstance(value, str)}
    here = {node.get("Labels", {}).get(ACCELERATOR, "") for node in nodes}
    return {ACCELERATOR: f"!in({','.join(sorted((known | here) - {''}))})"}


def _pool(name: str, job: PoolJob, fit: int, resources: dict[str, float], threads: int) -> Pool:
    largest = min(job.workers or MOST_WORKERS, max(len(job.tasks), 1))
    # The workers that the cluster can hold now begin together. Those of a pool of fixed size would never grow.
    return Pool(name, min(max(fit, 1), largest), largest, resources, threads)


def tasks_of(frames: Sequence[int], slots: int) -> Iterator[range]:
    """Items with these numbers of frames -> the ranges of items that make a task.

    A task costs the driver about 11 ms, so a large job has large ones. They become smaller towards the end, so that all
    workers end together.
    """
    left, start = sum(frames), 0
    while start < len(frames):
        wanted = min(TASK_FRAMES, left / (TASKS_LEFT * max(slots, 1)))
        stop, taken = start, 0
        while stop < len(frames) and stop - start < TASK_ITEMS and (stop == start or taken + frames[stop] <= wanted):
            taken += frames[stop]
            stop += 1
        yield range(start, stop)
        left, start = left - taken, stop


def slots_of(nodes: Iterable[Mapping[str, Any]]) -> int:
    """About how many workers a cluster with these nodes may come to have; it may grow."""
    return max(16, int(sum(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"])))


def _say_what_waits(pools: Sequence[Pool]) -> None:
    """Prints a line if the first workers of a pool must wait."""
    from glot.training.cluster.nodes import free_resources

    for pool in pools:
        patience = time.monotonic() + RELEASE_SECONDS
        claim = _named(pool.resources)
        while (free := slots(free_resources(), claim)) < pool.smallest and time.monotonic() < patience:
            time.sleep(0.2)
        if free < pool.smallest:
            workers = f"{pool.smallest} workers need" if pool.smallest > 1 else "a worker needs"
            say(f"waiting for CPUs or GPUs that {workers}: other work occupies them, or the cluster is still small")


class LazySession:
    """A Ray session that is opened when it is needed first, and closed at the end of the with-block."""

    def __init__(self) -> None:
        self.stack, self.opened = ExitStack(), None

    def __enter__(self) -> "LazySession":
        return self

    def __exit__(self, *details: Any) -> None:
        self.stack.__exit__(*details)

    def ray(self) -> Any:
        """The module ``ray``, connected."""
        if self.opened is None:
            self.opened = self.stack.enter_context(ray_session())
        return self.opened


@contextmanager
def ray_session() -> Iterator[Any]:
    """Joins or starts Ray, and sets Ray Data to print nothing, to follow the cluster and to wait for long tasks."""
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
    # With one task in flight a worker is at most 100 % busy; by default, a pool grows only above 175 %.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    try:
        yield ray
    finally:
        if started_here:
            ray.shutdown()
