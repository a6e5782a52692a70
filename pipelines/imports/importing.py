"""A file of ready-made features in, a feature set out: parts, what became of each, and the manifest last.

A few thousand rows at a time go from the file to the parts, so memory does not grow with the file.
"""

import hashlib
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.code_version import code_version
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.schema import Manifest
from glot.human.body import load_body
from glot.human.crop import CROP_SIZE, DEFAULT_CROP_SCALE
from pipelines.decoders.clips import Clip
from pipelines.decoders.dataset_facts import WINDOW
from pipelines.extraction.reference import round_targets
from pipelines.imports.earlier_imports import continue_earlier
from pipelines.imports.feature_columns import open_columns
from pipelines.imports.feature_dbs import Database
from pipelines.imports.feature_rows import RowReader
from pipelines.imports.shares import Share, finished_shares, publish_shares, share_out
from pipelines.imports.spec import ImportSpec
from pipelines.jobs.bookkeeper import DONE
from pipelines.jobs.job_progress import say
from pipelines.sets.fragments import write_fragment
from pipelines.sets.messages import say_skipped
from pipelines.sets.outcomes import Outcome, OutcomeLog
from pipelines.sets.settings import RECORDS, open_set

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
    """Writes the missing parts, what became of each, and the manifest."""
    continue_earlier(spec.folder)
    tracks = database.tracks()
    reader = RowReader(database, spec.preprocessing, settings["crop"]["target_scale"])
    short = sum(track.stop - track.start < WINDOW for track in tracks)
    of_file = _take_counts(database) + Counter(rows_in_file=database.rows, tracks_shorter_than_a_window=short)
    shares = share_out(tracks)
    done = finished_shares(spec.folder, shares)
    before = f", {len(done)} of {len(shares)} parts done before" if done else ""
    say(f"{spec.src.name}: {database.rows} rows of {len(tracks)} tracks{before}")
    missing = [share for share in shares if share.id not in done]
    with closing(OutcomeLog(spec.folder, uuid.uuid4().hex[:8])) as log:
        for share in cli.progress(missing, total=len(missing), what="parts"):
            log.append([_import_share(reader, share, spec)])
    source = {"path": spec.src.name, "bytes": spec.src.stat().st_size, "sha256": settings["source"]["hash"], **of_file}
    backbone = {**settings["backbone"], "feature_size": database.feature_size}
    nothing = f"{spec.src}: none of its rows can be used"
    return publish_shares(spec.folder, {**settings, "backbone": backbone}, shares, source, if_empty=nothing)


def _import_share(reader: RowReader, share: Share, spec: ImportSpec) -> Outcome:
    """Writes a part."""
    skipped: Counter[tuple[str, str]] = Counter()  # (track_id, reason) -> rows
    rounded = spec.preprocessing == "reference" and spec.split != "test"

    def pieces() -> Iterator[tuple[Clip, NDArray[np.float32]]]:
        for track in share.tracks:
            for start in range(track.start, track.stop, PIECE_ROWS):
                clip, features, reasons = reader.piece(track, start, min(start + PIECE_ROWS, track.stop))
                skipped.update({(track.track_id, reason): rows for reason, rows in reasons.items()})
                yield round_targets(clip) if rounded and len(clip) else clip, features

    part = write_fragment(spec.folder / share.part, pieces(), dataset=spec.dataset, split=spec.split)
    entries = [
        {"what": f"{spec.src.name}: {track_id}", "reason": reason, "frames": rows}
        for (track_id, reason), rows in skipped.items()
    ]
    return Outcome(share.id, DONE, part, dict(_take_counts(reader.database)), entries, share.rows, code_version())


def _take_counts(database: Database) -> Counter[str]:
    """The counts since the last call; they start again at 0."""
    counts = +database.counts
    database.counts.clear()
    return counts
