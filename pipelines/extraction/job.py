"""Datasets in, feature sets out: finds the units, lets workers extract the missing ones, writes the manifests.

The contract of a set is glot/features/schema.py. Workers get the specs of the splits and descriptions of the units. No
picture of a dataset enters Ray's object store: a worker decodes, crops, runs the network and writes the part itself.
"""

import sys
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from glot.errors import InputError
from glot.features.schema import Manifest
from pipelines.decoders.clips import Unit
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.ingredients import load_ingredients
from pipelines.extraction.ledger import finished, open_set
from pipelines.extraction.messages import say, say_skipped
from pipelines.extraction.occlusion import Occlusion
from pipelines.extraction.publishing import finish_set, sources_of
from pipelines.extraction.spec import ALL_SPLITS
from pipelines.extraction.units import SplitJob
from pipelines.extraction.worker import ExtractUnit
from pipelines.extraction.worker_pool import PoolJob, run_pool


def extract_all(datasets: Sequence[DatasetSpec]) -> int:
    """Extracts the datasets one after the other; returns the highest of their exit codes.

    An error in one of several datasets is printed and does not stop the others.
    """
    if len(datasets) == 1:
        return extract_dataset(datasets[0])
    codes = []
    for spec in datasets:
        try:
            codes.append(extract_dataset(spec))
        except InputError as error:
            print(f"error: {spec.dataset}: {error}", file=sys.stderr, flush=True)
            codes.append(2)
        except Exception:
            traceback.print_exc()
            codes.append(1)
    return max(codes)


def extract_dataset(spec: DatasetSpec) -> int:
    """Extracts the splits of a dataset that the spec names.

    Returns the exit code: 1 if something was skipped without --allow-skips, else 0.
    """
    decoder = load_decoder(spec.dataset, spec.tracks)
    splits = decoder.splits if spec.split == ALL_SPLITS else (spec.split,)
    units = {split: decoder.find(spec.root, split) for split in splits}
    ingredients = load_ingredients(spec, decoder, [unit for split in splits for unit in units[split]])
    run = uuid.uuid4().hex[:8]
    jobs = {
        split: SplitJob(spec, split, ingredients.settings(split), run, ingredients.int8_network) for split in splits
    }
    skipped = False
    for split, manifest in extract_splits(jobs, units, ingredients.occlusion).items():
        say_skipped(jobs[split].folder, manifest)
        skipped = skipped or bool(manifest.skipped)
    return int(skipped and not spec.allow_skips)


def extract_splits(
    jobs: Mapping[str, SplitJob], units: Mapping[str, Sequence[Unit]], occlusion: Occlusion | None
) -> dict[str, Manifest]:
    """Extracts the missing units of all splits in one Ray Data job, then writes the manifest of each split.

    If nothing could be extracted from a split, InputError is raised after the other manifests have been written.
    """
    manifests: dict[str, Manifest] = {}
    errors = []
    with ExitStack() as sets:
        missing: list[tuple[SplitJob, Unit]] = []
        for split, job in jobs.items():
            sets.enter_context(open_set(job.folder, job.settings))
            missing += [(job, unit) for unit in _unfinished(job, units[split])]
        if missing:
            run_units(missing, occlusion)
        for split, job in jobs.items():
            try:
                manifests[split] = _finish(job, units[split])
            except InputError as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return manifests


def run_units(work: Sequence[tuple[SplitJob, Unit]], occlusion: Occlusion | None) -> None:
    """Runs the Ray Data job: a pool of workers decodes, crops, runs the network and writes the parts of the units."""
    work = sorted(work, key=lambda item: -item[1].frames)  # the longest first, so that all workers end together
    spec = work[0][0].spec
    run_pool(
        PoolJob(
            worker=ExtractUnit,
            arguments={"jobs": {job.split: job for job, _ in work}},
            items=[{"split": job.split, "unit": unit.to_json()} for job, unit in work],
            frames=sum(unit.frames for _, unit in work),
            what=f"extract {spec.dataset}",
            workers=spec.workers,
            on_gpus=spec.backbone != "blazepose",  # BlazePose runs on CPUs only
            shared=occlusion,
        )
    )


def _unfinished(job: SplitJob, units: Sequence[Unit]) -> list[Unit]:
    """The units that are not done yet. Prints how many units the split has, and how many are done."""
    done = finished(job.folder, units)
    unfinished = [unit for unit in units if unit.name not in done]
    before = f", {len(done) if unfinished else 'all'} of them done before" if done else ""
    say(f"{job.name}: {len(units)} sequences{before}")
    return unfinished


def _finish(job: SplitJob, units: Sequence[Unit]) -> Manifest:
    records = finished(job.folder, units)
    manifest = finish_set(
        job.folder,
        [records[unit.name] for unit in units],
        job.settings,
        sources_of(units, records),
        if_empty=f"{job.folder}: nothing could be extracted from {len(units)} sequences",
    )
    say(f"{job.name}: {manifest.rows} rows of {manifest.tracks} tracks in {job.folder}")
    return manifest
