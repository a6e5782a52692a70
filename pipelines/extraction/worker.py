"""The worker that extracts: one unit in, its part and its record in the folder of the set out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor
from glot.human.body import load_body
from pipelines.decoders.clips import Unit
from pipelines.extraction.ledger import Record, note_of, write_record
from pipelines.extraction.precision import hash_of
from pipelines.extraction.tries import DIED, begin
from pipelines.extraction.units import SplitJob, Tools, extract_unit
from pipelines.extraction.worker_pool import Worker, WorkerContext


class ExtractUnit(Worker):
    """Extracts units of the splits in ``jobs``. ``shared`` is the Occlusion, or None."""

    def __init__(self, jobs: Mapping[str, SplitJob], context: WorkerContext) -> None:
        super().__init__(context)
        self.jobs = jobs
        job = next(iter(jobs.values()))  # all splits are made with the same networks
        self.tools = Tools(_extractor(job), load_body(job.spec.body), self.shared, self.threads, self.report)
        self.started()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job, unit = self.jobs[str(row["split"])], Unit.from_json(str(row["unit"]))
        with self.writing(job.folder):
            if begin(note_of(job.folder, unit, job.run)):
                record = extract_unit(job, unit, self.tools)
            else:
                skipped = [{"what": unit.annotation, "reason": DIED, "frames": unit.frames}]
                record = Record(unit.name, list(unit.sources), None, skipped=skipped)
                self.report(unit.frames, unit.frames)
            write_record(job.folder, record)
        return {"unit": unit.name}


def _extractor(job: SplitJob) -> Extractor:
    """The network of the job. InputError if this node has other weights than the driver."""
    backbone = load_backbone(job.spec.backbone, job.spec.weights)
    network = _read(job.int8_network)
    if hash_of(backbone, network) != job.settings["backbone"]["hash"]:
        raise InputError(
            f"--weights {job.spec.weights}: not the same file on every node; put it on a shared file system"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Extractor(backbone, device=device, precision=job.spec.precision, network=network)


def _read(network: Path | None) -> bytes:
    return network.read_bytes() if network else b""
