"""One split in one run of the command: its plan, the outcomes so far, what is left to do, and publishing it."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any

from glot.features.schema import Manifest
from glot.location import file_exists
from pipelines.decoders.clips import Decoder
from pipelines.extraction.packing_job import packed
from pipelines.extraction.planning_job import planned
from pipelines.extraction.units import SplitJob
from pipelines.jobs.bookkeeper import DAMAGED, FAILED
from pipelines.jobs.job_progress import say
from pipelines.jobs.worker_pool import LazySession
from pipelines.sets.earlier_sets import continue_earlier
from pipelines.sets.lease import Lease
from pipelines.sets.manifest_entries import units_of
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.packed import read_packed
from pipelines.sets.packing import PackTask, pack_part
from pipelines.sets.plan import Plan
from pipelines.sets.planning import update_plan
from pipelines.sets.publishing import lost_units, publish
from pipelines.sets.settings import RECORDS, SETTINGS, list_set, open_set

LITTLE_BYTES = 64 << 20  # one part of less is packed without workers


class SplitRun:
    """A split that this run of the command holds: within the with-block, no other run writes its folder."""

    def __init__(self, job: SplitJob, decoder: Decoder, session: LazySession) -> None:
        self.job, self.decoder, self.session = job, decoder, session
        self.failed: set[str] = set()  # ids of units that failed and are left to the next run
        self.stack = ExitStack()

    def __enter__(self) -> "SplitRun":
        folder, spec = self.job.folder, self.job.spec
        is_new = not file_exists(folder / RECORDS / SETTINGS)
        # Looked for before the folder is made: a mistake in --root leaves nothing behind.
        self.found = self.decoder.find(spec.root, self.job.split) if is_new else None
        with ExitStack() as stack:
            self.lease: Lease = stack.enter_context(open_set(folder, self.job.settings))
            self.files: dict[str, int] | None = list_set(folder)
            if continue_earlier(folder, self.decoder, spec.root, self.job.split, self.files):
                self.files = list_set(folder)
            self.plan = Plan.read(folder, self.files)
            self.outcomes = read_outcomes(folder, self.files)
            changes = "" if spec.retry_failed and len(self.plan) else self._update_plan()
            self.packed = read_packed(folder, self.files)
            self.lost = lost_units(folder, self.outcomes, self.files, self.packed)
            self.retried = spec.retry_skipped
            self._say_what_is_left(changes)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *details: Any) -> None:
        self.stack.__exit__(*details)

    def left(self) -> list[int]:
        """Numbers of the units, in the plan, that are to be done."""
        return [number for number, id in enumerate(self.plan.ids) if self._is_left(id)]

    def to_do(self) -> list[int]:
        """Numbers of the units that this run is to do. Units of which it heard nothing are among them."""
        return [number for number in self.left() if self.plan.ids[number] not in self.failed]

    def to_do_by_generation(self) -> list[tuple[int, list[int]]]:
        """The units that this run is to do, generation by generation."""
        generations = self.plan.generations.tolist()
        return [(key, list(group)) for key, group in groupby(self.to_do(), key=lambda number: generations[number])]

    def reason(self, number: int) -> str:
        """Why a unit is not done."""
        outcome = self.outcomes.get(self.plan.ids[number])
        skipped = outcome.skipped if outcome else []
        return str(skipped[0]["reason"]) if skipped else "its workers did not come back"

    def read_outcomes(self) -> None:
        """Reads what workers have done meanwhile."""
        done_before = {id: self.outcomes[id] for id in self.lost}
        self.files, self.retried = None, False
        self.outcomes = read_outcomes(self.job.folder)
        self.lost = {id for id, outcome in done_before.items() if self.outcomes.get(id) == outcome}
        if self.lost:
            outcomes = {id: self.outcomes[id] for id in self.lost}
            self.lost = lost_units(self.job.folder, outcomes, packed=self.packed)

    def is_lost(self) -> bool:
        """Whether another run may write the folder by now."""
        return self.lease.lost()

    def publish(self) -> Manifest:
        """Packs what is new and writes the manifest."""
        self.lease.check()
        job, sources = self.job, len(set(self.plan.names))
        return publish(
            job.folder,
            job.settings,
            units_of(self.plan),
            self.outcomes,
            run=self._pack,
            if_empty=f"{job.folder}: nothing could be extracted from {sources} sequences",
            files=self.files,
            packed=self.packed,
        )

    def _update_plan(self) -> str:
        spec, folder = self.job.spec, self.job.folder
        names = dict(zip(self.plan.ids, self.plan.names, strict=True))
        suspects = {names[id] for id, outcome in self.outcomes.items() if outcome.skipped and id in names}
        unread = self.plan.unread()
        again = {name for id, name in names.items() if name in unread and self._is_open(id)}
        self.plan, changes = update_plan(
            folder,
            self.plan,
            self.decoder,
            spec.root,
            self.job.split,
            run=self._plan,
            suspects=suspects,
            found=self.found,
            again=again,
        )
        if changes:
            self.files = list_set(folder)
        return changes.describe()

    def _plan(self, chunks: Any) -> Any:
        return planned(self.job.spec, chunks, self.session)

    def _pack(self, tasks: Sequence[PackTask]) -> list[dict[str, Any]]:
        if len(tasks) == 1 and sum(unit.bytes for unit in tasks[0].units) < LITTLE_BYTES:
            return [pack_part(self.job.folder, tasks[0])]
        self.session.ray()
        return packed(self.job.folder, tasks, f"pack {self.job.name}")

    def _is_open(self, id: str) -> bool:
        """Whether the unit was not done, or failed in a way that may pass."""
        outcome = self.outcomes.get(id)
        return outcome is None or outcome.kind == FAILED

    def _is_left(self, id: str) -> bool:
        if self._is_open(id) or id in self.lost:
            return True
        outcome = self.outcomes[id]
        return self.retried and (outcome.kind == DAMAGED or bool(outcome.skipped))

    def _say_what_is_left(self, changes: str) -> None:
        units, left = len(self.plan), len(self.left())
        sources = len(set(self.plan.names))
        done = "" if left == units else f", {units - left if left else 'all'} of them done before"
        ranges = f" in {units} units" if units != sources else ""
        say(f"{self.job.name}: {sources} sequences{ranges}{done}" + (f"; {changes}" if changes and done else ""))
        codes = {outcome.code for outcome in self.outcomes.values() if outcome.code} - {self.job.code}
        if codes and left:
            say(
                f"{self.job.name}: was begun by {', '.join(sorted(codes))}, and goes on with {self.job.code}; give "
                "another --out if the set is to be of one version"
            )
