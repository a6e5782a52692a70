"""Sources in, their units out, planned by many workers: the ``run`` of ``update_plan`` on Ray."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from queue import Queue
from threading import Thread
from typing import Any

from pipelines.decoders.clips import Unit
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.jobs.bookkeeper import DONE, GIVE_UP, PLAIN, Result
from pipelines.jobs.pool_worker import PoolWorker
from pipelines.jobs.separate_process import call_separately
from pipelines.jobs.worker_pool import LazySession, PoolJob, run_pool
from pipelines.sets.planning import plan_sources

LITTLE_BYTES = 2 << 30  # one chunk of sources of less is planned without starting Ray
CHUNKS_AHEAD = 64  # planned chunks that may wait until they are written, so that memory does not grow


class PlanSources(PoolWorker):
    """Plans chunks of sources."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        self.spec: DatasetSpec = arguments["spec"]

    def answer(self, task: Mapping[str, Any]) -> bytes:
        """The units of a chunk, pickled."""
        import ray

        (key,), sources = task["keys"], pickle.loads(task["sources"])
        how = [order.how for order in ray.get(self.context.bookkeeper.begin.remote(self.me, [key]))]
        if not how:  # it is planned already, by a worker whose answer was lost; or the job stops
            return b""
        self.holding[str(key)] = 0
        self.report()
        units = self._planned(sources, how[0])
        self.results.append(Result(str(key), DONE, len(sources), 0))
        self.holding.clear()
        self.report()
        return pickle.dumps(units)

    def _planned(self, sources: Sequence[Unit], how: str) -> list[Unit]:
        """The units. Sources that crash the process are whole units; extraction will find out and report it."""
        if how == PLAIN:
            return plan_in(self.spec, sources)
        if how == GIVE_UP:
            return list(sources)
        found: list[Unit] = []
        for source in sources:
            units = call_separately(plan_in, self.spec, [source]).value
            found += [source] if units is None else units
        return found


def plan_in(spec: DatasetSpec, sources: Sequence[Unit]) -> list[Unit]:
    """The units of some sources of a dataset."""
    return plan_sources(load_decoder(spec.dataset, spec.tracks), spec.root, sources)


def planned(spec: DatasetSpec, chunks: Sequence[Sequence[Unit]], session: LazySession) -> Iterator[list[Unit]]:
    """The units of each chunk, as they come. Little is planned here, and much by a pool of workers."""
    size = sum(int(entry.get("bytes", 0)) for chunk in chunks for source in chunk for entry in source.sources)
    if len(chunks) == 1 and size < LITTLE_BYTES:
        yield plan_in(spec, chunks[0])
        return
    session.ray()
    answers: Queue[bytes | BaseException | None] = Queue(CHUNKS_AHEAD)
    job = PoolJob(
        worker=PlanSources,
        arguments={"spec": spec},
        tasks=[{"keys": [str(number)], "sources": pickle.dumps(list(chunk))} for number, chunk in enumerate(chunks)],
        frames=sum(map(len, chunks)),
        counted="sources",
        what=f"plan {spec.dataset}",
        devices="cpu",
        consume=answers.put,
    )

    def run() -> None:
        try:
            run_pool(job)
            answers.put(None)
        except BaseException as error:
            answers.put(error)

    Thread(target=run, daemon=True).start()
    left = {chunk[0].name: chunk for chunk in chunks}
    while (answer := answers.get()) is not None:
        if isinstance(answer, BaseException):
            raise answer
        units = pickle.loads(answer) if answer else []
        if units:
            left.pop(units[0].name, None)
            yield units
    for chunk in left.values():
        yield plan_in(spec, chunk)
