"""The folder of a set in; what a run has done in it, in words, out. Nothing is written and nothing is locked."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glot.features.schema import MANIFEST
from glot.location import is_remote
from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED
from pipelines.sets.earlier_sets import earlier_records
from pipelines.sets.outcomes import Outcome, log_entries, read_outcomes
from pipelines.sets.plan import Plan
from pipelines.sets.settings import LOCK, RECORDS, list_set, read_file

WINDOW_SECONDS = 600.0  # the rate is that of this last time of a run
SHOWN_REASONS = 3  # of each kind


def describe_status(folder: Path, plan: Plan, files: Mapping[str, int] | None = None) -> str:
    """Some lines about a running or finished set. ``files``: ``list_set(folder)``, called where it is not given."""
    files = list_set(folder) if files is None else files
    lines = [f"{folder}: {_holder(folder, files)}"]
    if not len(plan):
        earlier = len(earlier_records(files))
        begun = f"{earlier} sources were extracted by earlier code; the next run takes them over"
        return "\n".join([*lines, f"  {begun if earlier else 'nothing is planned yet'}"])
    everything = read_outcomes(folder, files)
    outcomes = {id: everything[id] for id in plan.ids if id in everything}
    kinds = Counter(outcome.kind for outcome in outcomes.values())
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in (DONE, DAMAGED, FAILED))
    lines += [
        f"  units: {len(plan)} planned, {counts}, {len(plan) - len(outcomes)} left",
        f"  {_frames(plan, outcomes)}, {sum(outcome.rows for outcome in outcomes.values())} rows",
    ]
    lines += _rate(folder, plan, outcomes, files)
    for kind in (DAMAGED, FAILED, DONE):
        lines += _reasons([outcome for outcome in outcomes.values() if outcome.kind == kind], kind)
    lines.append(f"  {_published(folder, files)}")
    versions = sorted({outcome.code for outcome in outcomes.values() if outcome.code})
    if versions:
        lines.append(f"  code: {', '.join(versions)}")
    return "\n".join(lines)


def _holder(folder: Path, files: Mapping[str, int]) -> str:
    """Whether a run is at work in the folder, as far as this machine can tell."""
    if f"{RECORDS}/{LOCK}" not in files:
        return "no run is at work"
    path = folder / RECORDS / LOCK
    if is_remote(folder):
        try:
            note = json.loads(read_file(path))
        except (FileNotFoundError, ValueError):
            return "no run is at work"
        return f"a run is at work on {note.get('host')} (process {note.get('pid')}), or was killed there"
    try:
        status = path.stat()
        locks = Path("/proc/locks").read_text()
    except OSError:  # not Linux
        return "whether a run is at work cannot be seen from here"
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    if any(place in line.split() for line in locks.splitlines()):
        return "a run is at work"
    return "no run of this machine is at work"


def _frames(plan: Plan, outcomes: Mapping[str, Outcome]) -> str:
    done = sum(outcome.frames for outcome in outcomes.values() if outcome.kind != FAILED)
    total = int(plan.frames.sum())
    share = f" ({100 * done // total} %)" if 0 < done <= total else ""
    return f"frames: {done} of {total} done{share}" if done <= total else f"frames: {done} done"


def _rate(folder: Path, plan: Plan, outcomes: Mapping[str, Outcome], files: Mapping[str, int]) -> list[str]:
    """The rate of the last minutes of a run that has not published yet."""
    entries = log_entries(folder, files)
    if not entries:
        return []
    last = entries[-1][0]
    recent = [(time, outcome) for time, outcome in entries if time > last - WINDOW_SECONDS]
    seconds = last - recent[0][0]
    # The frames of the first batch were done before its time.
    frames = sum(outcome.frames for time, outcome in recent if time > recent[0][0])
    if not frames or seconds <= 0:
        return []
    rate = frames / seconds
    left = max(0, int(plan.frames.sum()) - sum(outcome.frames for outcome in outcomes.values()))
    rest = f", {_duration(left / rate)} for the rest at this rate" if left else ""
    return [f"  rate: {rate:.1f} frames/s in the last {_duration(seconds)} of the run{rest}"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _reasons(outcomes: Sequence[Outcome], kind: str) -> list[str]:
    entries: list[dict[str, Any]] = [entry for outcome in outcomes for entry in outcome.skipped]
    title = "skipped in units that are done" if kind == DONE else kind
    lines = [f"  {title}: {entry['what']}: {entry['reason']}" for entry in entries[:SHOWN_REASONS]]
    if len(entries) > SHOWN_REASONS:
        lines.append(f"  {title}: {len(entries) - SHOWN_REASONS} more")
    return lines


def _published(folder: Path, files: Mapping[str, int]) -> str:
    if MANIFEST not in files:
        return "not published yet: there is no manifest"
    try:
        manifest = json.loads(read_file(folder / MANIFEST))
        parts = len(manifest["parts"])
        held = f"{manifest['rows']} rows of {manifest['tracks']} tracks in {parts} {'part' if parts == 1 else 'parts'}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return f"its {MANIFEST} is not readable"
    newer = any(name.endswith(".jsonl") for name in files)
    return f"published: {held}{'; what was done since then is not in it yet' if newer else ''}"
