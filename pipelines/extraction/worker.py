"""The worker that extracts: units in; their fragments in the folder of the set, and their outcomes, out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glot.errors import InputError
from pipelines.decoders.clips import Unit
from pipelines.extraction.outcome_logs import id_of
from pipelines.extraction.streaming import UnitWorker, stream
from pipelines.extraction.units import OpenUnit, SplitJob, Tools, extract_unit, read_through
from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED, OURS, Order, Result
from pipelines.jobs.pool_worker import Item
from pipelines.jobs.separate_process import call_separately
from pipelines.sets.outcomes import Outcome
from pipelines.sets.plan_file import read_units

if TYPE_CHECKING:
    from glot.features.backbones.extractor import Extractor

# The driver imports this module. What needs PyTorch is imported by the workers only: it would cost the driver 600 MB.

Work = tuple[SplitJob, str, Unit]  # the split, the id of the unit in its plan, the unit


class ExtractUnits(UnitWorker):
    """Extracts units of the splits in ``jobs``. ``shared`` is the Occlusion, or None."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        import torch

        from glot.human.body import load_body

        torch.set_num_threads(1)
        self.jobs: Mapping[str, SplitJob] = arguments["jobs"]
        job = next(iter(self.jobs.values()))  # all splits are made with the same networks
        device = "cuda" if self.context.device == "cuda" and torch.cuda.is_available() else "cpu"
        self.tools = Tools(_extractor(job, device), load_body(job.spec.body), shared, self.context.threads)

    def items(self, task: Mapping[str, Any]) -> list[Item]:
        job = self.jobs[str(task["split"])]
        units = read_units(job.folder, int(task["generation"]), task["rows"])
        return [
            Item(str(key), unit.frames, (job, id_of(str(key)), unit))
            for key, unit in zip(task["keys"], units, strict=True)
        ]

    def work(self, item: Item) -> Result:
        job, id, unit = item.content
        tools = self.tools._replace(progress=lambda frames: self.progress(item.key, frames), check_stay=self.check_stay)
        return _done(item, extract_unit(job, id, unit, tools))

    def run(self, orders: Sequence[Order], items: Mapping[str, Item]) -> Iterator[Result]:
        """The results of the units. A GPU gets full batches from several units at once."""
        if self.context.device != "cuda":
            yield from super().run(orders, items)
            return
        job = next(iter(self.jobs.values()))
        work = [(order, items[order.key]) for order in orders]
        threads, batch_size = self.context.threads, job.spec.batch_size
        yield from stream(self, self.tools.extractor, work, threads=threads, batch_size=batch_size)

    def open(self, item: Item) -> OpenUnit:
        """A unit in a stream."""
        job, id, unit = item.content
        return OpenUnit(job, id, unit, self.tools)

    def finish(self, item: Item, opened: OpenUnit) -> Result:
        """Writes the rows of a unit in a stream."""
        return _done(item, opened.finish())

    def examine(self, item: Item) -> str:
        job, _, unit = item.content
        return call_separately(read_through, job, unit).crash

    def finished(self, result: Result, item: Item) -> Result:
        """With the outcome of a unit that is damaged or failed."""
        if result.value is not None:
            return result
        job, id, unit = item.content
        reason = result.reason
        if result.fault == OURS:
            reason = f"a mistake in our code: {reason.strip().splitlines()[-1]}"
        skipped = [{"what": unit.annotation, "reason": reason, "frames": unit.frames}]
        kind = DAMAGED if result.kind == DAMAGED else FAILED
        return result._replace(value=Outcome(id, kind, None, {}, skipped, unit.frames, job.code))


def _done(item: Item, outcome: Outcome) -> Result:
    return Result(item.key, DONE, item.frames, sum(entry["frames"] for entry in outcome.skipped), outcome)


def _extractor(job: SplitJob, device: str) -> "Extractor":
    """The network of the job. InputError if this node has other weights than the driver."""
    from glot.features.backbones.extractor import Extractor
    from pipelines.extraction.precision import load_for

    backbone = load_for(job.spec, job.int8_network)
    if backbone.hash != job.settings["backbone"]["hash"]:
        raise InputError(
            f"--weights {job.spec.weights or backbone.weights_name}: not the same file on every node; put it on a "
            "shared file system"
        )
    return Extractor(backbone, device=device, precision=job.spec.precision)
