"""Ready-made features in, a feature set out: parts, what became of each, and the manifest last.

A few thousand rows at a time go from the file to the parts, so memory does not grow with the file.
"""

import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.code_version import code_version
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.hmr2_crops import RULES
from glot.features.backbones.hmr2_crops import SIZE as HMR2_SIZE
from glot.features.schema import Manifest
from glot.human.body import load_body
from glot.human.crop import CROP_SIZE, DEFAULT_CROP_SCALE
from glot.human.crop_rules import CropRule
from pipelines.decoders.clips import Clip
from pipelines.decoders.dataset_facts import WINDOW
from pipelines.extraction.reference import round_targets
from pipelines.imports.earlier_imports import continue_earlier
from pipelines.imports.feature_dbs import Database
from pipelines.imports.feature_rows import RowReader
from pipelines.imports.hmr2_layouts import CACHES
from pipelines.imports.shares import Share, finished_shares, publish_shares, share_out
from pipelines.imports.sources import files_of, hash_of, open_source
from pipelines.imports.spec import ImportSpec
from pipelines.jobs.bookkeeper import DONE
from pipelines.jobs.job_progress import say
from pipelines.sets.fragments import write_fragment
from pipelines.sets.messages import say_skipped
from pipelines.sets.outcomes import Outcome, OutcomeLog
from pipelines.sets.settings import RECORDS, open_set

PIECE_ROWS = 2048  # number of rows in memory at once
IMPORTED = "imported"  # stands for the hash if the weights or SMPL's files are not given


def import_file(spec: ImportSpec) -> Manifest:
    """Imports a file or a folder of files, and prints what was imported and what was skipped.

    Only the missing parts are written, then the manifest. Meanwhile no other import may use the folder. InputError
    where the file cannot be read or does not fit, or where the folder holds another set.
    """
    folder, settings = spec.folder, describe(spec)
    with open_set(folder, settings):
        for leftover in folder.glob(".uncompressed-*"):
            shutil.rmtree(leftover)
        try:
            with open_source(spec, scratch=folder) as source:
                database = Database(spec.src.name, spec.dataset, source.columns, source.layout)
                manifest = _write_set(database, spec, settings, source.skipped)
        except InputError:
            if not any(folder.glob("part-*.parquet")):  # nothing was written, so the folder is free for another file
                shutil.rmtree(folder / RECORDS)
            raise
    say(f"{spec.dataset} {spec.split}: {manifest.rows} rows of {manifest.tracks} tracks in {folder}")
    say_skipped(folder, manifest)
    return manifest


def describe(spec: ImportSpec) -> dict[str, Any]:
    """What the set is made with. Two imports may share a folder only if their descriptions are equal."""
    body = load_body(spec.body) if spec.body else None
    reference = spec.preprocessing == "reference" and spec.dataset != "insta_variety"
    return {
        "dataset": spec.dataset,
        "split": spec.split,
        "source": {"name": spec.src.name, "hash": hash_of(spec)},
        "backbone": _backbone(spec),
        "body": {
            "name": spec.body.name if spec.body else "SMPL, as imported",
            "open": body.is_open if body else False,
            "hash": body.file_hash if body else IMPORTED,
        },
        "crop": {
            "size": HMR2_SIZE if spec.cache else CROP_SIZE,
            "scale": spec.feature_crop_scale,
            # The reference places the 2D targets of all datasets with boxes at 1.2.
            "target_scale": DEFAULT_CROP_SCALE if reference else spec.feature_crop_scale,
            "box": "as in the file",
            "rule": _rule(spec),
            "preprocessing": spec.preprocessing,
        },
    }


def _backbone(spec: ImportSpec) -> dict[str, Any]:
    """{name, weights, hash} of what made the features; the crop rule, too, where it has a choice of them.

    Without the weights, the hash says only that features are alike: of SPIN, or of HMR2.0 with a crop rule.
    """
    if not spec.cache:
        return {
            "name": "imported",
            "weights": spec.weights.name if spec.weights else "SPIN's, as imported",
            "hash": load_backbone(weights=spec.weights).hash if spec.weights else IMPORTED,
        }
    cache = CACHES[spec.cache]
    return {
        "name": "hmr2",
        "weights": spec.weights.name if spec.weights else cache.weights,
        "hash": load_backbone("hmr2", spec.weights, crop_rule=cache.rule).hash
        if spec.weights
        else f"{IMPORTED}-hmr2-{cache.rule}",
        "crop_rule": cache.rule,
    }


def _rule(spec: ImportSpec) -> str:
    rule = RULES[CACHES[spec.cache].rule] if spec.cache else CropRule()
    return CropRule(rule.name, rule.size, blur=rule.blur).words()


def _write_set(
    database: Database, spec: ImportSpec, settings: dict[str, Any], unusable: list[dict[str, Any]]
) -> Manifest:
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
    size = sum(file.stat().st_size for file in files_of(spec))
    source = {"path": spec.src.name, "bytes": size, "sha256": settings["source"]["hash"], **of_file}
    half = {"dtype": database.feature_dtype} if database.feature_dtype != "float32" else {}
    described = {**settings, "backbone": {**settings["backbone"], "feature_size": database.feature_size, **half}}
    nothing = f"{spec.src}: none of its rows can be used"
    return publish_shares(spec.folder, described, shares, source, unusable=unusable, if_empty=nothing)


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

    part = write_fragment(
        spec.folder / share.part,
        pieces(),
        dataset=spec.dataset,
        split=spec.split,
        dtype=reader.database.feature_dtype,
    )
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
