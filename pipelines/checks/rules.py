"""A feature set in, sentences about what breaks the contract of glot/features/schema.py out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import Manifest, list_parts, open_part, parts
from pipelines.checks.published import FIGURES
from pipelines.checks.summary import Summary, numbers

FINITE = ("feature", "bbox", "keypoints2d", "joints3d", "pose", "betas", "crop_scale", "fps")
GENDERS = {"male", "female", "neutral"}
# Datasets whose 2D joints have confidence 0 or 1. InstaVariety's joints come from a detector, so it is not among them.
BINARY = {dataset for dataset, _ in FIGURES} - {"insta_variety"}
WIDEST = 100.0  # m between two joints of a person; a larger number must be in millimetres


def check(folder: Path, manifest: Manifest, summary: Summary) -> list[str]:
    """What is wrong with a set, in sentences. Adds all of its rows to ``summary``.

    One row group of one part is in memory at a time. InputError where a part is missing or has another size,
    NotNowError where a disk or a store does not answer.
    """
    problems: list[str] = []
    listed = list_parts(folder)
    files = parts(folder, manifest, listed)
    if stray := sorted(listed.keys() - {file.path.name for file in files}):
        problems.append(
            f"{', '.join(stray)} not in the manifest; other readers would take the rows for a part of the set"
        )
    rows = 0
    for file, entry in zip(files, manifest.parts, strict=True):
        try:
            with open_part(file, manifest.row_schema) as opened:
                rows += opened.metadata.num_rows
                summary.start_part()
                problems += check_part(opened, file.path.name, entry, manifest, summary)
        except InputError as error:
            problems.append(str(error).removeprefix(f"{folder}/"))
    if rows != manifest.rows:
        problems.append(f"{rows} rows, but the manifest has {manifest.rows}")
    if len(summary.frames) != manifest.tracks:
        problems.append(f"{len(summary.frames)} tracks, but the manifest has {manifest.tracks}")
    return problems


def check_part(
    file: pq.ParquetFile, name: str, part: dict[str, Any], manifest: Manifest, summary: Summary
) -> list[str]:
    """What is wrong with one part; ``part`` is its entry in the manifest."""
    problems = []
    if file.metadata.num_rows != part["rows"]:
        problems.append(f"{name}: {file.metadata.num_rows} rows, but the manifest has {part['rows']}")
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group)
        if empty := [column for column in table.column_names if table[column].null_count]:
            problems.append(f"{name}: column {empty[0]} has empty values near {place(table, 0)}")
            continue
        problems += [f"{name}: {problem}" for problem in check_rows(table, manifest)]
        problems += [f"{name}: {problem}" for problem in summary.add(table)]
    return problems


def place(table: pa.Table, row: int) -> str:
    """The track and frame of a row, for messages."""
    return f"track {table['track_id'][row].as_py()} frame {table['frame_index'][row].as_py()}"


# (mask of broken rows, description or a function that describes one row) -> a sentence if there are broken rows.
Broken = Callable[[Any, Callable[[int], Any] | str], Iterator[str]]


def check_rows(table: pa.Table, manifest: Manifest) -> Iterator[str]:
    """Checks the rules for single rows; yields a sentence for each broken rule."""
    columns = {name: numbers(table[name]) for name in FINITE}

    def broken(rows: Any, what: Callable[[int], Any] | str) -> Iterator[str]:
        if len(found := np.flatnonzero(rows)):
            description = what if isinstance(what, str) else what(int(found[0]))
            yield f"{len(found)} rows with {description}, first {place(table, int(found[0]))}"

    for name, wanted in (("dataset", {manifest.dataset}), ("split", {manifest.split}), ("gender", GENDERS)):
        if other := set(table[name].to_pylist()) - wanted:
            yield f"column {name} has {sorted(other)[0]!r} near {place(table, 0)}, not {' or '.join(sorted(wanted))}"
    for name, values in columns.items():
        yield from broken(~np.isfinite(values).all(1), f"NaN or infinite {name}")
    bbox, scale = columns["bbox"], columns["crop_scale"][:, 0]
    yield from broken((bbox[:, 2] <= 0) | (bbox[:, 2] != bbox[:, 3]), lambda row: f"a bad box such as {bbox[row]}")
    yield from broken(~(scale > 0), "a crop scale that is not positive")
    yield from broken(~(columns["fps"][:, 0] > 0), "a frame rate that is not positive")
    yield from broken(numbers(table["frame_index"])[:, 0] < 0, "a frame index below 0")
    yield from broken((columns["feature"] == 0).all(1), "features that are all zero")
    yield from check_keypoints(columns["keypoints2d"].reshape(len(table), -1, 3), manifest, broken)
    yield from check_labels(table, columns, manifest, broken)


def check_keypoints(keypoints2d: NDArray[np.floating], manifest: Manifest, broken: Broken) -> Iterator[str]:
    """The rules for 2D joints (N, 49, 3)."""
    confidence = keypoints2d[..., 2]
    yield from broken(((confidence < 0) | (confidence > 1)).any(1), "2D confidences outside 0 to 1")
    if manifest.dataset in BINARY:
        between = (confidence > 0) & (confidence < 1)
        yield from broken(between.any(1), f"2D confidences between 0 and 1, which {manifest.dataset} does not have")
    at_corner = (keypoints2d[..., :2] == 0).all(-1) & (confidence > 0)
    yield from broken(at_corner.any(1), "2D joints seen at exactly 0, 0, where missing joints are stored")


def check_labels(
    table: pa.Table, columns: dict[str, NDArray[np.floating]], manifest: Manifest, broken: Broken
) -> Iterator[str]:
    """The rules for 3D joints and poses."""
    joints3d = columns["joints3d"].reshape(len(table), -1, 3)
    known = numbers(table["joints3d_valid"])
    has_3d, has_smpl = (numbers(table[name])[:, 0] for name in ("has_3d", "has_smpl"))
    yield from broken(has_3d & ~known.any(1), "has_3d but no 3D joint")
    if manifest.crop.get("preprocessing") == "corrected":  # reference sets have minus the pelvis for missing joints
        missing = (joints3d != 0).any(-1) & ~known
        yield from broken(missing.any(1), "3D joints that are marked missing but are not 0")
    with np.errstate(invalid="ignore"):
        low, high = (np.where(known[..., None], joints3d, start) for start in (np.inf, -np.inf))
        wide = np.nan_to_num((high.max(1) - low.min(1)).max(1), nan=0.0, posinf=0.0, neginf=0.0)
    yield from broken((wide > WIDEST) & has_3d, lambda row: f"3D joints {wide[row]:.0f} m apart: millimetres?")
    yield from broken(has_smpl & (columns["pose"] == 0).all(1), "has_smpl but a pose of zeros")
