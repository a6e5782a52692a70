"""A file of ready-made features in, a feature set out: parts, records, and the manifest last.

A few thousand rows at a time go from the file to the parts, so memory does not grow with the file.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.schema import Manifest
from glot.human.body import load_body
from glot.human.crop import CROP_SIZE, DEFAULT_CROP_SCALE
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.dataset_facts import WINDOW
from pipelines.extraction.fragments import write_part
from pipelines.extraction.ledger import RECORDS, Record, finished, open_set, write_record
from pipelines.extraction.messages import say, say_skipped
from pipelines.extraction.publishing import finish_set
from pipelines.extraction.reference import round_targets
from pipelines.imports.feature_columns import open_columns
from pipelines.imports.feature_dbs import Database, TrackRows
from pipelines.imports.feature_rows import RowReader
from pipelines.imports.spec import ImportSpec

PART_ROWS = 16_384  # a part ends with the track that reaches this number of rows: about 130 MB
PIECE_ROWS = 2048  # number of rows in memory at once
HASHED_BYTES = 1 << 24  # bytes that are read at once for the hash of the file
IMPORTED = "imported"  # stands for the hash if SPIN's weights or SMPL's files are not given


def import_file(spec: ImportSpec) -> Manifest:
    """Imports a file, and prints what was imported and what was skipped.

    Only the missing parts are written, then the manifest. Meanwhile no other import may use the folder. InputError
    where the file cannot be read or does not fit, or where the folder holds another set.
    """
    folder, settings = spec.folder, describe(spec)
    with open_set(folder, settings):
        for leftover in folder.glob(".uncompressed-*"):
            shutil.rmtree(leftover)
        try:
            with open_columns(spec.src, scratch=folder) as columns:
                database = Database(spec.src.name, spec.dataset, columns)
                manifest = _write_set(database, spec, settings)
        except InputError:
            if not any(folder.glob("part-*.parquet")):  # nothing was written, so the folder is free for another file
                shutil.rmtree(folder / RECORDS)
            raise
    say(f"{spec.dataset} {spec.split}: {manifest.rows} rows of {manifest.tracks} tracks in {folder}")
    say_skipped(folder, manifest)
    return manifest


def describe(spec: ImportSpec) -> dict[str, Any]:
    """What the set is made with. Two imports may share a folder only if their descriptions are equal."""
    backbone = load_backbone(weights=spec.weights) if spec.weights else None
    body = load_body(spec.body) if spec.body else None
    reference = spec.preprocessing == "reference" and spec.dataset != "insta_variety"
    return {
        "dataset": spec.dataset,
        "split": spec.split,
        "source": {"name": spec.src.name, "hash": file_hash(spec.src)},
        "backbone": {
            "name": "imported",
            "weights": spec.weights.name if spec.weights else "SPIN's, as imported",
            "hash": backbone.hash if backbone else IMPORTED,
        },
        "body": {
            "name": spec.body.name if spec.body else "SMPL, as imported",
            "open": body.is_open if body else False,
            "hash": body.file_hash if body else IMPORTED,
        },
        "crop": {
            "size": CROP_SIZE,
            "scale": spec.feature_crop_scale,
            # The reference places the 2D targets of all datasets with boxes at 1.2.
            "target_scale": DEFAULT_CROP_SCALE if reference else spec.feature_crop_scale,
            "box": "as in the file",
            "rule": "square of side scale * width, bilinear, black outside",
            "preprocessing": spec.preprocessing,
        },
    }


def file_hash(path: Path) -> str:
    """The first 16 hex digits of the file's sha256, without the whole file in memory."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        chunks = max(1, -(-size // HASHED_BYTES))
        for _ in cli.progress(range(chunks), total=chunks, what=f"sha256 of {path.name}"):
            digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()[:16]


def _write_set(database: Database, spec: ImportSpec, settings: dict[str, Any]) -> Manifest:
    """Writes the missing parts, their records, and the manifest."""
    tracks = database.tracks()
    reader = RowReader(database, spec.preprocessing, settings["crop"]["target_scale"])
    file_counts = _take_counts(database)
    shares = share_out(tracks)
    units = [_unit(spec.src, number, share) for number, share in enumerate(shares)]
    done = finished(spec.folder, units)
    before = f", {len(done)} of {len(units)} parts done before" if done else ""
    say(f"{spec.src.name}: {database.rows} rows of {len(tracks)} tracks{before}")
    missing = [(unit, share) for unit, share in zip(units, shares, strict=True) if unit.name not in done]
    for unit, share in cli.progress(missing, total=len(missing), what="parts"):
        done[unit.name] = _import_unit(reader, unit, share, spec)
    short = sum(track.stop - track.start < WINDOW for track in tracks)
    file_counts.update({"rows_in_file": database.rows, "tracks_shorter_than_a_window": short})
    records = [done[unit.name] for unit in units]
    counts = file_counts + sum((Counter(record.counts) for record in records), Counter())
    source = {"path": spec.src.name, "bytes": spec.src.stat().st_size, "sha256": settings["source"]["hash"], **counts}
    backbone = {**settings["backbone"], "feature_size": database.feature_size}
    nothing = f"{spec.src}: none of its rows can be used"
    return finish_set(spec.folder, records, {**settings, "backbone": backbone}, [source], if_empty=nothing)


def share_out(tracks: Sequence[TrackRows]) -> list[list[TrackRows]]:
    """The tracks of each part, in order. A part gets whole tracks until it has at least PART_ROWS rows."""
    shares: list[list[TrackRows]] = []
    rows = PART_ROWS
    for track in tracks:
        if rows >= PART_ROWS:
            shares.append([])
            rows = 0
        shares[-1].append(track)
        rows += track.stop - track.start
    return shares


def _unit(src: Path, number: int, share: Sequence[TrackRows]) -> Unit:
    """The unit of work that becomes part ``number``."""
    start, stop = share[0].start, share[-1].stop
    source = {"path": src.name, "bytes": src.stat().st_size, "rows": [start, stop]}
    return Unit(f"{number:05d}", src.name, "", stop - start, (source,))


def _import_unit(reader: RowReader, unit: Unit, share: Sequence[TrackRows], spec: ImportSpec) -> Record:
    """Writes a part and its record."""
    skipped: Counter[tuple[str, str]] = Counter()  # (track_id, reason) -> rows
    rounded = spec.preprocessing == "reference" and spec.split != "test"

    def pieces() -> Iterator[tuple[Clip, NDArray[np.float32]]]:
        for track in share:
            for start in range(track.start, track.stop, PIECE_ROWS):
                clip, features, reasons = reader.piece(track, start, min(start + PIECE_ROWS, track.stop))
                skipped.update({(track.track_id, reason): rows for reason, rows in reasons.items()})
                yield round_targets(clip) if rounded and len(clip) else clip, features

    part = write_part(spec.folder, unit, pieces(), dataset=spec.dataset, split=spec.split)
    entries = [
        {"what": f"{unit.annotation}: {track_id}", "reason": reason, "frames": rows}
        for (track_id, reason), rows in skipped.items()
    ]
    record = Record(unit.name, list(unit.sources), part, dict(_take_counts(reader.database)), entries)
    write_record(spec.folder, record)
    return record


def _take_counts(database: Database) -> Counter[str]:
    """The counts since the last call; they start again at 0."""
    counts = +database.counts
    database.counts.clear()
    return counts
