"""Outcomes of all units in; parts, packed.parquet and the manifest of a feature set out. The manifest is written last.

Each step leaves a set that readers can use and that the next run can go on with: parts have new names, and what they
replace is removed at the very end.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glot.code_version import code_version
from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, write_manifest
from glot.location import is_remote
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.fragments import UNITS
from pipelines.sets.manifest_entries import PlanUnit, skipped_entries, source_entries
from pipelines.sets.outcomes import Outcome, merge
from pipelines.sets.packed import Packed, PackedUnit, read_packed, write_packed
from pipelines.sets.packing import PackTask, UnitRows, plan_parts
from pipelines.sets.settings import RECORDS, list_set, read_file, remove_files, written

Runner = Callable[[list[PackTask]], Iterable[dict[str, Any]]]  # calls pack_part for each task, in any order


def publish(
    folder: Path,
    settings: Mapping[str, Any],
    units: Sequence[PlanUnit],
    outcomes: Mapping[str, Outcome],
    *,
    run: Runner,
    if_empty: str,
    files: Mapping[str, int] | None = None,
    packed: Packed | None = None,
) -> Manifest:
    """Packs the rows of finished units that are in no part yet, and writes the manifest of the set.

    ``settings`` = {dataset, split, backbone, crop, body}; ``units``: all live units in the order of the plan;
    ``outcomes``: all that ``read_outcomes`` finds; ``files``: ``list_set(folder)``; ``packed``: ``read_packed(folder,
    files)``. Both are read where they are not given.

    Units that are damaged, failed or not done are listed as skipped. Without any row, no manifest is written, and
    InputError is raised. Its message begins with ``if_empty`` and has the first reason for skipping.
    """
    files = list_set(folder) if files is None else files
    found = read_packed(folder, files) if packed is None else packed
    packed = found.without(found.lost(files))
    rows = _rows_of(folder, units, outcomes, packed, files)
    skipped = skipped_entries(units, outcomes, {unit.id for unit in rows})
    if not rows:
        first = f"; the first reason: {skipped[0]['what']}: {skipped[0]['reason']}" if skipped else ""
        raise InputError(f"{if_empty}{first or ': nobody is visible in it'}")
    kept, tasks = plan_parts(rows, packed, row_bytes=_row_bytes(settings))
    tasks = [replace(task, there=task.name in files) for task in tasks]
    new = list(run(tasks)) if tasks else []
    packed = _ordered(_with(packed.without(set(packed.parts) - set(kept)), new), rows)
    if packed != found:
        write_packed(folder, packed)
    current = {unit.id: outcomes[unit.id] for unit in units if unit.id in outcomes}
    if len(current) < len(outcomes) or any(name.endswith(".jsonl") for name in files):
        merge(folder, current, files)
    manifest = _manifest(settings, packed, current.values())
    manifest = replace(manifest, sources=source_entries(units, current), skipped=skipped)
    if not _is_written(folder, files, manifest):
        written(folder / MANIFEST, lambda: write_manifest(folder, manifest))
    remove_files(folder, _strays(files, packed))
    return manifest


def lost_units(
    folder: Path,
    outcomes: Mapping[str, Outcome],
    files: Mapping[str, int] | None = None,
    packed: Packed | None = None,
) -> set[str]:
    """The ids of units that are done, but whose rows are nowhere or in a file of another size.

    They are to be extracted again, if they are still in the plan. ``files`` and ``packed``: as in ``publish``.
    """
    files = list_set(folder) if files is None else files
    packed = read_packed(folder, files) if packed is None else packed
    places = packed.without(packed.lost(files)).places()
    lost = set()
    for id, outcome in outcomes.items():
        is_there = _is_packed(outcome, places.get(id)) or _fragment(outcome, files)
        if outcome.kind == DONE and outcome.fragment and not is_there:
            lost.add(id)
    return lost


def _rows_of(
    folder: Path,
    units: Sequence[PlanUnit],
    outcomes: Mapping[str, Outcome],
    packed: Packed,
    files: Mapping[str, int],
) -> list[UnitRows]:
    """Where the rows of the finished units are, in the order of the plan."""
    places = packed.places()
    rows = []
    for unit in units:
        outcome, place = outcomes.get(unit.id), places.get(unit.id)
        if outcome is None or outcome.kind != DONE or not outcome.fragment:
            continue
        file = "" if _is_packed(outcome, place) else _fragment(outcome, files) or _late_fragment(folder, outcome)
        if file:
            rows.append(UnitRows(unit.id, unit.source, outcome.rows, outcome.fragment["bytes"], file))
        elif place:  # if the unit was done again and its new rows are lost, it still has those of before
            part, packed_unit = place
            rows.append(UnitRows(unit.id, unit.source, packed_unit.rows, packed_unit.bytes, part))
    return rows


def _is_packed(outcome: Outcome, place: tuple[str, PackedUnit] | None) -> bool:
    """Whether the rows that the outcome tells of are in a part."""
    wanted = outcome.fragment and (outcome.rows, outcome.fragment["bytes"])
    return place is not None and (place[1].rows, place[1].bytes) == wanted


def _fragment(outcome: Outcome, files: Mapping[str, int]) -> str:
    """The path of the unit's fragment below the set's folder; "" if it is not there as it was written."""
    if not outcome.fragment:
        return ""
    name = f"{RECORDS}/{UNITS}/{outcome.fragment['name']}"
    return name if files.get(name) == outcome.fragment["bytes"] else ""


def _late_fragment(folder: Path, outcome: Outcome) -> str:
    """As ``_fragment``, for one that is not listed: other nodes' new files may be missing for some seconds in the
    listing of a disk that is shared over a network."""
    if is_remote(folder) or not outcome.fragment:
        return ""
    name = f"{RECORDS}/{UNITS}/{outcome.fragment['name']}"
    try:
        return _fragment(outcome, {name: (folder / name).stat().st_size})
    except FileNotFoundError:
        return ""


def _row_bytes(settings: Mapping[str, Any]) -> int:
    """Bytes of the features in a row."""
    backbone = settings["backbone"]
    return int(backbone["feature_size"]) * np.dtype(backbone.get("dtype", "float32")).itemsize


def _with(packed: Packed, written: Sequence[dict[str, Any]]) -> Packed:
    """With the parts that were written now."""
    if not written:
        return packed
    new = Packed.of(packed.publish + 1, written)
    return Packed(new.publish, packed.parts | new.parts, packed.units | new.units)


def _ordered(packed: Packed, rows: Sequence[UnitRows]) -> Packed:
    """The parts in the order in which their first units are in the plan."""
    place = {unit.id: number for number, unit in enumerate(rows)}
    names = sorted(packed.parts, key=lambda name: min(place[unit.id] for unit in packed.units[name]))
    return Packed(packed.publish, {n: packed.parts[n] for n in names}, {n: packed.units[n] for n in names})


def _manifest(settings: Mapping[str, Any], packed: Packed, outcomes: Iterable[Outcome]) -> Manifest:
    parts = [{name: part[name] for name in ("name", "rows", "tracks", "bytes")} for part in packed.parts.values()]
    return Manifest(
        dataset=settings["dataset"],
        split=settings["split"],
        rows=sum(part["rows"] for part in parts),
        tracks=sum(part["tracks"] for part in parts) - _counted_again(packed),
        backbone=settings["backbone"],
        crop=settings["crop"],
        body=settings["body"],
        parts=parts,
        code_version=", ".join(sorted({outcome.code for outcome in outcomes if outcome.code})) or code_version(),
    )


def _counted_again(packed: Packed) -> int:
    """How often the parts count a track that another part has counted."""
    tracks: dict[str, list[str]] = {}
    for part in packed.parts.values():
        for source, names in part["split"].items():
            tracks.setdefault(source, []).extend(names)
    return sum(len(names) - len(set(names)) for names in tracks.values())


def _is_written(folder: Path, files: Mapping[str, int], manifest: Manifest) -> bool:
    if MANIFEST not in files:
        return False
    try:
        return bool(json.loads(read_file(folder / MANIFEST)) == vars(manifest))
    except (FileNotFoundError, ValueError):
        return False


def _strays(files: Mapping[str, int], packed: Packed) -> list[str]:
    """Files that the set does not need: all fragments, since they are packed or of no live unit, and replaced parts."""
    strays = []
    for name in files:
        place, _, file = name.rpartition("/")
        is_part = not place and file.startswith("part-") and file.endswith(".parquet")
        if (is_part and file not in packed.parts) or place == f"{RECORDS}/{UNITS}":
            strays.append(name)
    return strays
