"""The records of all units in, the manifest of a feature set out. The manifest is written last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glot.code_version import code_version
from glot.errors import InputError
from glot.features.schema import Manifest, write_manifest
from glot.location import open_parquet
from pipelines.decoders.clips import Unit
from pipelines.extraction.ledger import RECORDS, Record


def finish_set(
    folder: Path,
    records: Sequence[Record],
    settings: Mapping[str, Any],
    sources: Sequence[dict[str, Any]],
    *,
    if_empty: str,
) -> Manifest:
    """Checks the parts of a set and writes its manifest; rows are in the order of ``records``.

    ``settings`` = {dataset, split, backbone, crop, body}; ``sources`` = [{path, bytes, ...}]. Without any row, no
    manifest is written, and InputError is raised. Its message begins with ``if_empty`` and has the first reason for
    skipping.
    """
    parts = [record.part for record in records if record.part]
    skipped = [entry for record in records for entry in record.skipped]
    if not parts:
        first = f"; the first reason: {skipped[0]['what']}: {skipped[0]['reason']}" if skipped else ""
        raise InputError(f"{if_empty}{first or ': nobody is visible in it'}")
    for part in parts:
        with open_parquet(folder / part["name"]) as file:
            rows = file.metadata.num_rows
        if rows != part["rows"]:
            raise InputError(
                f"{folder / part['name']}: {rows} rows, but its record says {part['rows']}; remove the folder"
            )
    manifest = Manifest(
        dataset=settings["dataset"],
        split=settings["split"],
        rows=sum(part["rows"] for part in parts),
        tracks=sum(part["tracks"] for part in parts),
        backbone=settings["backbone"],
        crop=settings["crop"],
        body=settings["body"],
        parts=parts,
        sources=list(sources),
        skipped=skipped,
        code_version=code_version(),
    )
    write_manifest(folder, manifest)
    for note in (folder / RECORDS).glob("*.try-*"):
        note.unlink()
    for stray in set(folder.glob("part-*.parquet")) - {folder / part["name"] for part in parts}:
        stray.unlink()  # its unit has no rows any more; programs that read part-*.parquet must not see it
    return manifest


def sources_of(units: Sequence[Unit], records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The sources of all units. The entry of a unit's annotation file also has what the decoder counted in it."""
    sources = []
    for unit in units:
        record = records[unit.name]
        entries = [dict(source) for source in record.sources]  # units may share a file; each unit has its own counts
        next(entry for entry in entries if entry["path"] == unit.annotation).update(record.counts)
        sources += entries
    return sources
