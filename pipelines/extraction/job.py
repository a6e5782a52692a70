"""Datasets in, feature sets out: plans the units, lets workers extract what is left of them, publishes the sets.

The contract of a set is glot/features/schema.py. No picture enters Ray's object store: a worker decodes, crops, runs
the network and writes the rows itself.
"""

import sys
import time
import traceback
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from glot.cli import NOT_FINISHED
from glot.code_version import code_version
from glot.errors import InputError, NotNowError
from glot.features.schema import Manifest
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.ingredients import load_ingredients
from pipelines.extraction.occlusion import Occlusion, load_occlusion
from pipelines.extraction.outcome_logs import OutcomeLogs, key_of
from pipelines.extraction.spec import ALL_SPLITS
from pipelines.extraction.split_run import SplitRun
from pipelines.extraction.units import SplitJob
from pipelines.extraction.worker import ExtractUnits
from pipelines.jobs.job_progress import say
from pipelines.jobs.worker_pool import LazySession, PoolJob, run_pool, slots_of, tasks_of
from pipelines.sets.messages import say_skipped
from pipelines.sets.plan import Plan
from pipelines.sets.status import describe_status

WAITS = (10.0, 60.0)  # s before units are tried again that failed in a way that may pass


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
        except (InputError, NotNowError) as error:
            print(f"error: {spec.dataset}: {error}", file=sys.stderr, flush=True)
            codes.append(2 if isinstance(error, InputError) else NOT_FINISHED)
        except Exception:
            traceback.print_exc()
            codes.append(1)
    return max(codes)


def extract_dataset(spec: DatasetSpec) -> int:
    """Extracts the splits of a dataset that the spec names.

    Returns the exit code: 75 if units failed that may succeed later, 1 if something was skipped, without --allow-skips;
    else 0.
    """
    decoder = load_decoder(spec.dataset, spec.tracks)
    splits = decoder.splits if spec.split == ALL_SPLITS else (spec.split,)
    if spec.status:
        for split in splits:
            folder = spec.out / spec.dataset / split
            say(describe_status(folder, Plan.read(folder)))
        return 0
    occlusion = load_occlusion(spec)
    if occlusion:
        say(f"occluders: {len(occlusion.objects)} objects of {spec.occluders}, pasted per {occlusion.per}")
    if spec.feature_dtype == "float16":
        say("float16: a feature differs from its float32 value by at most 0.05 %")
    made_with = load_ingredients(spec, splits, occlusion.describe() if occlusion else None)
    run, code = uuid.uuid4().hex[:8], code_version()
    jobs = [SplitJob(spec, split, made_with.settings[split], run, code, made_with.int8_network) for split in splits]
    with ExitStack() as stack:
        session = stack.enter_context(LazySession())
        runs = [stack.enter_context(SplitRun(job, decoder, session)) for job in jobs]
        _extract(runs, occlusion, session)
        return max(_published(runs))


def _extract(runs: Sequence[SplitRun], occlusion: Occlusion | None, session: LazySession) -> None:
    """Runs what is left of all splits in one Ray Data job; then, after a while, what failed and may succeed now."""
    for attempt, wait in enumerate((0.0, *WAITS)):
        left = sum(len(run.to_do()) for run in runs)
        if not left:
            return
        if wait:
            say(f"{left} units are not done for reasons that may pass; they are tried again in {wait:.0f} s")
            time.sleep(wait)
        _run_units(runs, occlusion, session, name=f"{runs[0].job.run}{attempt}")


def _run_units(runs: Sequence[SplitRun], occlusion: Occlusion | None, session: LazySession, *, name: str) -> None:
    """Runs the Ray Data job: a pool of workers decodes, crops, runs the network and writes the rows of units."""
    spec = runs[0].job.spec
    ray = session.ray()
    slots = slots_of(ray.nodes())
    tasks: list[dict[str, Any]] = []
    for run in runs:
        for generation, numbers in run.to_do_by_generation():
            frames = [max(int(run.plan.frames[number]), 1) for number in numbers]
            for task in tasks_of(frames, slots):
                chosen = [numbers[place] for place in task]
                tasks.append(
                    {
                        "split": run.job.split,
                        "generation": generation,
                        "rows": [int(run.plan.rows[number]) for number in chosen],
                        "keys": [key_of(run.job.split, run.plan.ids[number]) for number in chosen],
                        "frames": sum(frames[place] for place in task),
                    }
                )
    tasks.sort(key=lambda task: -task["frames"])  # the longest first, so that all workers end together
    try:
        summary = run_pool(
            PoolJob(
                worker=ExtractUnits,
                arguments={"jobs": {run.job.split: run.job for run in runs}},
                tasks=tasks,
                frames=sum(task["frames"] for task in tasks),
                what=f"extract {spec.dataset}",
                workers=spec.workers,
                devices=spec.devices if "gpu" in spec.choice.kind.devices else "cpu",
                gpu_share=spec.gpu_share,
                shared=occlusion,
                log=OutcomeLogs({run.job.split: run.job.folder for run in runs}, name),
                watch=lambda: next(
                    (f"{run.job.folder}: another run took it over" for run in runs if run.is_lost()), ""
                ),
            )
        )
    finally:
        for run in runs:
            run.read_outcomes()
    failed = set(summary.failed)
    for run in runs:
        run.failed |= {id for id in run.plan.ids if key_of(run.job.split, id) in failed} if failed else set()


def _published(runs: Sequence[SplitRun]) -> Iterable[int]:
    """Publishes each split; yields an exit code for each. An error of one is raised after the others are published."""
    errors: list[Exception] = []
    for run in runs:
        try:
            yield _publish(run)
        except (InputError, NotNowError) as error:
            errors.append(error)
            yield 0
    if errors:
        raise errors[0]


def _publish(run: SplitRun) -> int:
    job, failed = run.job, run.left()
    if failed and not job.spec.allow_skips:
        first = run.reason(failed[0])
        say(
            f"{job.name}: {len(failed)} of {len(run.plan)} units failed, so the set is not finished; the first reason: "
            f"{first}. Run the same command again, or give --allow-skips to do without them"
        )
        return NOT_FINISHED
    manifest: Manifest = run.publish()
    say(f"{job.name}: {manifest.rows} rows of {manifest.tracks} tracks in {job.folder}")
    say_skipped(job.folder, manifest)
    return int(bool(manifest.skipped) and not job.spec.allow_skips)
