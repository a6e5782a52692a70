"""Feature sets in, a page about each and a verdict out: does every row keep the contract of glot/features/schema.py, are all the
rows there, and how do they compare with what is published."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, parts, read_manifest, schema
from glot.location import location, open_parquet
from pipelines.checks.crop_sheet import write_sheet
from pipelines.checks.published import FIGURES
from pipelines.checks.summary import Summary, numbers

SHOWN = 20  # problems said of one set
FINITE = ("feature", "bbox", "keypoints2d", "joints3d", "pose", "betas", "crop_scale", "fps")
GENDERS = {"male", "female", "neutral"}
# Their 2D joints are seen or not, nothing between; InstaVariety's come from a detector.
BINARY = {dataset for dataset, _ in FIGURES} - {"insta_variety"}
WIDEST = 100.0  # m between joints of one person; more, and they are millimetres


def main(
    folder: Annotated[
        Path, typer.Argument(parser=location, help="A feature set, or a folder or URI with sets below it.")
    ],
    sheet: Annotated[
        Path | None, typer.Option(help="Write a picture of crops from all over the set, joints drawn; needs --root.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The dataset's folder that the set was extracted from.")] = None,
) -> int:
    """Checks extracted feature sets: files, columns, counts, order of rows, NaN, boxes, confidences. Exit code 1 when
    one is broken. Says on a page what is in each, beside what is published.

    **Example**: `python pipelines/check_features.py features`

    **Look at it**: `python pipelines/check_features.py features/3dpw/train --sheet sheet.png --root data/3dpw`. The red
    side must be the person's right, and every joint where it belongs.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    sets = sorted(path.parent for path in folder.rglob(MANIFEST))
    if not sets:
        raise InputError(f"{folder}: no {MANIFEST} in it or below; make features with pipelines/extract_features.py")
    if sheet and (root is None or len(sets) > 1):
        raise InputError(
            f"--sheet {sheet}: name one of the {len(sets)} sets"
            if root
            else f"--sheet {sheet}: say where the pictures are with --root"
        )
    code = max(check_and_say(path) for path in sets)
    if sheet and root:
        unread = write_sheet(sheet, sets[0], read_manifest(sets[0]), root)
        print(f"{sheet}: crops with their joints" + (f"; {unread} pictures could not be read" if unread else ""))
    return code


def check_and_say(folder: Path) -> int:
    try:
        manifest = read_manifest(folder)
        summary = Summary()
        problems = check(folder, manifest, summary)
        page = summary.page(manifest)
    except InputError as error:
        print(f"{folder}: broken\n  {error}")
        return 1
    print(
        f"{folder}: {manifest.rows:,} rows, {manifest.tracks:,} tracks, {len(manifest.parts):,} parts", *page, sep="\n"
    )
    for problem in problems[:SHOWN]:
        print(f"  broken: {problem}")
    if len(problems) > SHOWN:
        print(f"  broken: and {len(problems) - SHOWN} more problems")
    print(f"  {'broken' if problems else 'fine'}")
    return 1 if problems else 0


def check(folder: Path, manifest: Manifest, summary: Summary) -> list[str]:
    """What is wrong with a set, in sentences; one row group of one part is in memory at a time. Fills ``summary``."""
    problems: list[str] = []
    expected = schema(manifest.backbone["feature_size"])
    files = parts(folder, manifest)
    if stray := sorted(path.name for path in set(folder.glob("part-*.parquet")) - set(files)):
        problems.append(
            f"{', '.join(stray)} not in the manifest; other readers would take its rows for part of the set"
        )
    rows = 0
    for path, part in zip(files, manifest.parts, strict=True):
        try:
            with open_parquet(path) as file:
                if file.schema_arrow.remove_metadata().equals(expected):
                    rows += file.metadata.num_rows
                    problems += check_part(file, path.name, part, manifest, summary)
                else:
                    problems.append(
                        f"{path.name}: its columns are not those of schema version {manifest.schema_version}"
                    )
        except (pa.ArrowInvalid, OSError) as error:
            problems.append(f"{path.name}: not readable as Parquet ({str(error).splitlines()[0]}); extract again")
    if rows != manifest.rows:
        problems.append(f"{rows} rows, the manifest says {manifest.rows}")
    if len(summary.frames) != manifest.tracks:
        problems.append(f"{len(summary.frames)} tracks, the manifest says {manifest.tracks}")
    return problems


def check_part(
    file: pq.ParquetFile, name: str, part: dict[str, Any], manifest: Manifest, summary: Summary
) -> list[str]:
    """The same of one part."""
    problems = []
    if file.metadata.num_rows != part["rows"]:
        problems.append(f"{name}: {file.metadata.num_rows} rows, the manifest says {part['rows']}")
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group)
        if empty := [column for column in table.column_names if table[column].null_count]:
            problems.append(f"{name}: column {empty[0]} has empty values near {place(table, 0)}")
            continue
        problems += [f"{name}: {problem}" for problem in check_rows(table, manifest)]
        problems += [f"{name}: {problem}" for problem in summary.add(table)]
    return problems


def place(table: pa.Table, row: int) -> str:
    return f"track {table['track_id'][row].as_py()} frame {table['frame_index'][row].as_py()}"


def check_rows(table: pa.Table, manifest: Manifest) -> Iterator[str]:
    """Laws that hold in every row by itself."""
    columns = {name: numbers(table[name]) for name in FINITE}

    def broken(rows: Any, what: Callable[[int], Any] | str) -> Iterator[str]:
        if len(found := np.flatnonzero(rows)):
            said = what if isinstance(what, str) else what(int(found[0]))
            yield f"{len(found)} rows with {said}, first {place(table, int(found[0]))}"

    for name, wanted in (("dataset", {manifest.dataset}), ("split", {manifest.split}), ("gender", GENDERS)):
        if other := set(table[name].to_pylist()) - wanted:
            yield f"column {name} says {sorted(other)[0]!r} near {place(table, 0)}, not {' or '.join(sorted(wanted))}"
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


Broken = Callable[[Any, Callable[[int], Any] | str], Iterator[str]]


def check_keypoints(keypoints2d: NDArray[np.floating], manifest: Manifest, broken: Broken) -> Iterator[str]:
    """Laws of (N, 49, 3) 2D joints."""
    confidence = keypoints2d[..., 2]
    yield from broken(((confidence < 0) | (confidence > 1)).any(1), "2D confidences outside 0 to 1")
    if manifest.dataset in BINARY:
        between = (confidence > 0) & (confidence < 1)
        yield from broken(between.any(1), f"2D confidences between 0 and 1, which {manifest.dataset} does not have")
    at_corner = (keypoints2d[..., :2] == 0).all(-1) & (confidence > 0)
    yield from broken(at_corner.any(1), "2D joints seen at exactly 0, 0, as missing ones are stored")


def check_labels(
    table: pa.Table, columns: dict[str, NDArray[np.floating]], manifest: Manifest, broken: Broken
) -> Iterator[str]:
    """Laws of 3D joints and poses."""
    joints3d = columns["joints3d"].reshape(len(table), -1, 3)
    known = numbers(table["joints3d_valid"])
    has_3d, has_smpl = (numbers(table[name])[:, 0] for name in ("has_3d", "has_smpl"))
    yield from broken(has_3d & ~known.any(1), "has_3d and no 3D joint")
    if manifest.crop.get("preprocessing") == "corrected":  # where the reference has minus the pelvis
        missing = (joints3d != 0).any(-1) & ~known
        yield from broken(missing.any(1), "3D joints that are marked missing and not 0")
    with np.errstate(invalid="ignore"):
        low, high = (np.where(known[..., None], joints3d, start) for start in (np.inf, -np.inf))
        wide = np.nan_to_num((high.max(1) - low.min(1)).max(1), nan=0.0, posinf=0.0, neginf=0.0)
    yield from broken((wide > WIDEST) & has_3d, lambda row: f"3D joints {wide[row]:.0f} m apart: millimetres?")
    yield from broken(has_smpl & (columns["pose"] == 0).all(1), "has_smpl and a pose of zeros")


def command() -> None:
    cli.run(main)


if __name__ == "__main__":
    command()
