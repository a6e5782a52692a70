"""The plan and the outcomes of its units in; what the manifest of a set says about sources and skipped frames out."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glot.people.video import video_frame
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.outcomes import Outcome
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import to_text

NOT_YET = "not extracted yet; run the same command again"
LOST = "its rows were lost; run the same command again"
OF_THE_PLAN = ("modified", "etag")  # in a source's entry for the plan alone: they change when a file is copied


@dataclass(frozen=True, slots=True)
class PlanUnit:
    """A unit of the plan, as publishing sees it."""

    id: str
    source: str  # name of its source
    annotation: str
    sources: Sequence[dict[str, Any]] = field(hash=False)  # {path, bytes, ...}; units of one source share the list
    frames: int


def units_of(plan: Plan) -> list[PlanUnit]:
    """The live units of a plan, in its order."""
    entries: dict[str, list[dict[str, Any]]] = {}  # by their JSON
    units = []
    columns = [plan.table[name].to_pylist() for name in ("annotation", "sources", "frames")]
    for id, name, annotation, text, frames in zip(plan.ids, plan.names, *columns, strict=True):
        if text not in entries:
            entries[text] = json.loads(text)
        units.append(PlanUnit(id, name, to_text(annotation), entries[text], frames))
    return units


def source_entries(units: Iterable[PlanUnit], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """The files of all sources. The entry of a source's annotation file also has what the decoder counted in it."""
    first: dict[str, PlanUnit] = {}
    counts: dict[str, Counter[str]] = {}
    for unit in units:
        first.setdefault(unit.source, unit)
        counted = counts.setdefault(unit.source, Counter())
        if unit.id in outcomes:
            counted.update(outcomes[unit.id].counts)
    listed = []
    for source, unit in first.items():
        entries = [{key: entry[key] for key in entry if key not in OF_THE_PLAN} for entry in unit.sources]
        for entry in entries:
            if entry["path"] == unit.annotation:
                entry.update(counts[source])
                break
        listed += entries
    return listed


def skipped_entries(
    units: Iterable[PlanUnit], outcomes: Mapping[str, Outcome], with_rows: set[str]
) -> list[dict[str, Any]]:
    """What was skipped, {what, reason, frames}, in the order of the plan; ``with_rows``: ids of units whose rows exist.

    What several ranges of a source say alike is one entry.
    """
    listed: list[dict[str, Any]] = []
    source: str | None = None
    same: dict[tuple[str, str], dict[str, Any]] = {}  # (what, reason) of the source -> its entry
    for unit in units:
        if unit.source != source:
            source, same = unit.source, {}
        earlier = listed[-1] if same else None  # the last entry of the ranges before
        for number, entry in enumerate(_skipped_of(unit, outcomes.get(unit.id), with_rows)):
            known = same.get((entry["what"], entry["reason"]))
            if known is None and number == 0 and earlier and _goes_on(earlier, entry):
                known = earlier
            if known is None:
                known = {**entry, "frames": 0}
                listed.append(known)
            known["frames"] += entry["frames"]
            same[entry["what"], entry["reason"]] = known
    return listed


def _skipped_of(unit: PlanUnit, outcome: Outcome | None, with_rows: set[str]) -> Sequence[dict[str, Any]]:
    if outcome is None:
        return [{"what": unit.annotation, "reason": NOT_YET, "frames": unit.frames}]
    if outcome.kind == DONE and outcome.rows and unit.id not in with_rows:
        return [{"what": unit.annotation, "reason": LOST, "frames": unit.frames}]
    return outcome.skipped


def _goes_on(earlier: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a video broke off in an earlier range: each entry names the first picture that was not read."""
    before, now = video_frame(earlier["what"]), video_frame(entry["what"])
    return bool(before and now and before[0] == now[0] and earlier["reason"] == entry["reason"])
