"""Ready-made features of VIBE, TCMR or GLoT in, a feature set out (the contract is glot/features/schema.py).

Rows stream from the file to the parts, some thousand at a time: memory does not grow with the file.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.schema import MANIFEST, Manifest, write_manifest
from glot.human.body import load_body
from glot.human.crop import CROP_SIZE, DEFAULT_CROP_SCALE
from pipelines.decoders.clips import PREPROCESSING, Clip, Unit
from pipelines.extraction.reference import round_targets
from pipelines.extraction.ledger import RECORDS, Record, code_version, finished, open_set, write_part, write_record
from pipelines.imports.feature_columns import open_columns
from pipelines.imports.feature_dbs import LAYOUTS, Database, Run, crop_scale_of

SPLITS = ("train", "validation", "test")
PART_ROWS = 16_384  # a part ends with the track that reaches them: about 130 MB
PIECE_ROWS = 2048  # held in memory at once
HASHED_BYTES = 1 << 24
IMPORTED = "imported"  # stands for the hash of SPIN's weights, and of SMPL's files, where they are not given
SHORT_TRACK = 16  # frames of a window
SHOWN_SKIPS = 5


def main(
    dataset: Annotated[str, typer.Option(help=f"What the features are of: {', '.join(LAYOUTS)}.")],
    split: Annotated[str, typer.Option(help='train, validation or test. MPI-INF-3DHP\'s files of "val" are its test.')],
    src: Annotated[Path, typer.Option(help="A *_db.pt of TCMR, VIBE or GLoT, or insta_train_db.h5.")],
    out: Annotated[Path, typer.Option(help="The feature set goes to OUT/DATASET/SPLIT/, a folder.")],
    crop_scale: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="What the pictures were cropped with. Default: what the file's name says (scale12, scale1, tight), "
            "else what TCMR used: 1.3 for 3dpw and posetrack (VIBE's 3dpw files: say 1.2), 1.2 for the others.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="SPIN's checkpoint, which made the features: lets them go with sets extracted with it here."),
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="SMPL's files: lets the set go with others that were extracted with them here.")
    ] = None,
    preprocessing: Annotated[
        str,
        typer.Option(
            help="corrected: 2D targets at the features' crop scale, 3D joints from the hips, unknown joints left out. "
            "reference: as the published training code takes them, scale 1.2 and float16 targets as stored."
        ),
    ] = "corrected",
    allow_skips: Annotated[bool, typer.Option(help="Rows that cannot be used are fine: exit with 0.")] = False,
) -> int:
    """Turns preprocessed files of TCMR, VIBE and GLoT into a feature set; the features stay bit for bit as they are.

    **Example**: `python pipelines/import_features.py --dataset 3dpw --split test --src 3dpw_test_db.pt --out features`

    Nothing in a file is executed: one that asks for more than arrays is refused, with the name of what it asked for.
    Interrupted, it goes on where it was. Rows that cannot be used are left out and named in manifest.json; the exit
    code is then 1, unless `--allow-skips`.
    """
    if dataset not in LAYOUTS:
        raise InputError(f"--dataset {dataset}: not known; there is {', '.join(LAYOUTS)}")
    if split not in SPLITS:
        raise InputError(f"--split {split}: there is {', '.join(SPLITS)}")
    if preprocessing not in PREPROCESSING:
        raise InputError(f"--preprocessing {preprocessing}: there is {' and '.join(PREPROCESSING)}")
    if not src.is_file():
        raise InputError(f"--src {src}: there is no such file")
    if crop_scale is not None and dataset == "insta_variety":
        raise InputError("--crop-scale: the pictures of insta_variety are crops already; leave it out")
    backbone, person = load_backbone(weights=weights) if weights else None, load_body(body) if body else None
    cropped = crop_scale or crop_scale_of(src, dataset)
    folder = out / dataset / split
    settings: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "source": {"name": src.name, "hash": file_hash(src)},
        "backbone": {"name": "imported", "weights": weights.name if weights else "SPIN's, as imported",
                     "hash": backbone.hash if backbone else IMPORTED},
        "body": {"name": body.name if body else "SMPL, as imported", "open": person.is_open if person else False,
                 "hash": person.file_hash if person else IMPORTED},
        "crop": {
            "size": CROP_SIZE,
            "scale": cropped,
            "target_scale": target_scale(dataset, cropped, preprocessing),
            "box": "as in the file",
            "rule": "square of side scale * width, bilinear, black outside",
            "preprocessing": preprocessing,
        },
    }  # fmt: skip
    manifest = import_file(src, folder, settings)
    for entry in manifest.skipped[:SHOWN_SKIPS]:
        say(f"skipped {entry['frames']} rows of {entry['what']}: {entry['reason']}")
    if manifest.skipped:
        frames = sum(entry["frames"] for entry in manifest.skipped)
        say(f"{frames} rows skipped in all, listed in {folder / MANIFEST}; --allow-skips says that this is fine")
    return 1 if manifest.skipped and not allow_skips else 0


def target_scale(dataset: str, cropped: float, preprocessing: str) -> float:
    """The crop scale of 2D targets: the features' own. The reference takes 1.2 for whatever has boxes."""
    return DEFAULT_CROP_SCALE if preprocessing == "reference" and dataset != "insta_variety" else cropped


def import_file(src: Path, folder: Path, settings: dict[str, Any]) -> Manifest:
    """Writes what is missing of the parts, then the manifest. The folder is this run's alone meanwhile."""
    dataset, crop = settings["dataset"], settings["crop"]
    with open_set(folder, settings):
        for leftover in folder.glob(".uncompressed-*"):
            shutil.rmtree(leftover)
        try:
            with open_columns(src, scratch=folder) as columns:
                database = Database(src.name, dataset, columns, crop["preprocessing"], crop["target_scale"])
                manifest = write_set(database, src, folder, settings)
        except InputError:
            if not any(folder.glob("part-*.parquet")):  # nothing of it is there: the folder is free for another file
                shutil.rmtree(folder / RECORDS)
            raise
    say(f"{dataset} {settings['split']}: {manifest.rows} rows of {manifest.tracks} tracks in {folder}")
    return manifest


def write_set(database: Database, src: Path, folder: Path, settings: dict[str, Any]) -> Manifest:
    runs = database.runs()
    of_file = take_counts(database)
    shares = share_out(runs)
    units = [unit_of(src, number, share) for number, share in enumerate(shares)]
    done = finished(folder, units)
    state = f", {len(done)} of {len(units)} parts done before" if done else ""
    say(f"{src.name}: {database.rows} rows of {len(runs)} tracks{state}")
    missing = [(unit, share) for unit, share in zip(units, shares, strict=True) if unit.name not in done]
    for unit, share in cli.progress(missing, total=len(missing), what="parts"):
        done[unit.name] = import_unit(database, unit, share, folder, settings)
    short = sum(run.stop - run.start < SHORT_TRACK for run in runs)
    of_file.update({"rows_in_file": database.rows, "tracks_shorter_than_a_window": short})
    return publish(src, folder, [done[unit.name] for unit in units], of_file, settings, database.feature_size)


def share_out(runs: Sequence[Run]) -> list[list[Run]]:
    """Whole tracks for one part after the other."""
    shares: list[list[Run]] = []
    rows = PART_ROWS
    for run in runs:
        if rows >= PART_ROWS:
            shares.append([])
            rows = 0
        shares[-1].append(run)
        rows += run.stop - run.start
    return shares


def unit_of(src: Path, number: int, share: Sequence[Run]) -> Unit:
    start, stop = share[0].start, share[-1].stop
    source = {"path": src.name, "bytes": src.stat().st_size, "rows": [start, stop]}
    return Unit(f"{number:05d}", src.name, "", stop - start, (source,))


def import_unit(database: Database, unit: Unit, share: Sequence[Run], folder: Path, settings: dict[str, Any]) -> Record:
    lost: dict[tuple[str, str], int] = {}
    rounded = settings["crop"]["preprocessing"] == "reference" and settings["split"] != "test"

    def pieces() -> Iterator[tuple[Clip, NDArray[np.float32]]]:
        for run in share:
            for start in range(run.start, run.stop, PIECE_ROWS):
                clip, features, reasons = database.piece(run, start, min(start + PIECE_ROWS, run.stop))
                for reason, count in reasons.items():
                    lost[run.track_id, reason] = lost.get((run.track_id, reason), 0) + count
                yield round_targets(clip) if rounded and len(clip) else clip, features

    part = write_part(folder, unit, pieces(), dataset=settings["dataset"], split=settings["split"])
    skipped = [
        {"what": f"{unit.annotation}: {track}", "reason": reason, "frames": count}
        for (track, reason), count in lost.items()
    ]
    record = Record(unit.name, list(unit.sources), part, dict(take_counts(database)), skipped)
    write_record(folder, record)
    return record


def publish(
    src: Path, folder: Path, records: Sequence[Record], of_file: Counter[str], settings: dict[str, Any], size: int
) -> Manifest:
    """The manifest, written last; InputError where no row was usable."""
    parts = [record.part for record in records if record.part]
    skipped = [entry for record in records for entry in record.skipped]
    if not parts:
        raise InputError(f"{src}: not one row of it can be used; the first: {skipped[0]['reason']}")
    counts = of_file + sum((Counter(record.counts) for record in records), Counter())
    source = {"path": src.name, "bytes": src.stat().st_size, "sha256": settings["source"]["hash"]}
    manifest = Manifest(
        dataset=settings["dataset"],
        split=settings["split"],
        rows=sum(part["rows"] for part in parts),
        tracks=sum(part["tracks"] for part in parts),
        backbone={**settings["backbone"], "feature_size": size},
        crop=settings["crop"],
        body=settings["body"],
        parts=parts,
        sources=[{**source, **counts}],
        skipped=skipped,
        code_version=code_version(),
    )
    write_manifest(folder, manifest)
    return manifest


def take_counts(database: Database) -> Counter[str]:
    """What was counted since the last time."""
    counts = +database.counts
    database.counts.clear()
    return counts


def file_hash(path: Path) -> str:
    """The first 16 hex digits of sha256; a megabyte or so in memory."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        chunks = max(1, -(-size // HASHED_BYTES))
        for _ in cli.progress(range(chunks), total=chunks, what=f"sha256 of {path.name}"):
            digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()[:16]


def say(text: str) -> None:
    print(text, flush=True)


def command() -> None:
    cli.run(main)


if __name__ == "__main__":
    command()
