"""Feature sets in, a verdict out: does every row keep the contract of glot/schema.py, and are all the rows there?"""

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
from glot.schema import MANIFEST, Manifest, parts, read_manifest, schema

# Of the whole of 3DPW, from its papers' code and issues: tracks and rows. Nothing else is expected to have them.
PUBLISHED = {("3dpw", "train"): (34, None), ("3dpw", "test"): (37, 34_561)}
SHOWN = 20  # problems said of one set
FINITE = ("feature", "bbox", "keypoints2d", "joints3d", "pose", "betas", "crop_scale", "fps")


def main(folder: Annotated[Path, typer.Argument(help="A feature set, or a folder with sets below it.")]) -> int:
    """Checks extracted feature sets: files, columns, counts, order of rows, NaN, boxes. Exit code 1 when one is broken.

    **Example**: `python pipelines/check_features.py features`
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    sets = sorted(path.parent for path in folder.rglob(MANIFEST))
    if not sets:
        raise InputError(f"{folder}: no {MANIFEST} in it or below; make features with pipelines/extract_features.py")
    return max(check_and_say(path) for path in sets)


def check_and_say(folder: Path) -> int:
    try:
        manifest = read_manifest(folder)
        problems = check(folder, manifest)
    except InputError as error:
        print(f"{folder}: broken\n  {error}")
        return 1
    backbone = manifest.backbone
    network = f"{backbone['name']} {backbone['weights']} {backbone['hash']}"
    print(f"{folder}: {manifest.rows} rows, {manifest.tracks} tracks, {len(manifest.parts)} parts; {network}")
    if published := PUBLISHED.get((manifest.dataset, manifest.split)):
        tracks, rows = published
        print(f"  published for the whole of {manifest.dataset} {manifest.split}: {rows or '?'} rows, {tracks} tracks")
    if manifest.skipped:
        frames = sum(entry["frames"] for entry in manifest.skipped)
        print(f"  skipped when extracting: {len(manifest.skipped)} things, {frames} frames; the manifest names them")
    for problem in problems[:SHOWN]:
        print(f"  broken: {problem}")
    if len(problems) > SHOWN:
        print(f"  broken: and {len(problems) - SHOWN} more problems")
    print(f"  {'broken' if problems else 'fine'}")
    return 1 if problems else 0


def check(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with a set, in sentences; one row group of one part is in memory at a time."""
    problems: list[str] = []
    expected = schema(manifest.backbone["feature_size"])
    files = parts(folder, manifest)
    if stray := sorted(path.name for path in set(folder.glob("part-*.parquet")) - set(files)):
        problems.append(
            f"{', '.join(stray)} not in the manifest; other readers would take its rows for part of the set"
        )
    order = Order()
    rows = 0
    for path, part in zip(files, manifest.parts, strict=True):
        try:
            file = pq.ParquetFile(path)
            if not file.schema_arrow.remove_metadata().equals(expected):
                problems.append(f"{path.name}: its columns are not those of schema version {manifest.schema_version}")
                continue
            if file.metadata.num_rows != part["rows"]:
                problems.append(f"{path.name}: {file.metadata.num_rows} rows, the manifest says {part['rows']}")
            rows += file.metadata.num_rows
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group)
                problems += [f"{path.name}: {problem}" for problem in check_rows(table, manifest)]
                problems += [f"{path.name}: {problem}" for problem in order.add(table)]
        except (pa.ArrowInvalid, OSError) as error:
            problems.append(f"{path.name}: not readable as Parquet ({str(error).splitlines()[0]}); extract again")
    if rows != manifest.rows:
        problems.append(f"{rows} rows, the manifest says {manifest.rows}")
    if len(order.tracks) != manifest.tracks:
        problems.append(f"{len(order.tracks)} tracks, the manifest says {manifest.tracks}")
    return problems


class Order:
    """Watches row after row that a track's rows lie together, in time order, each frame once."""

    def __init__(self) -> None:
        self.tracks: set[str] = set()
        self.last: tuple[str, int] = ("", -1)

    def add(self, table: pa.Table) -> Iterator[str]:
        for track, frame in zip(table["track_id"].to_pylist(), table["frame_index"].to_pylist(), strict=True):
            before, at = self.last
            if track != before and track in self.tracks:
                yield f"rows of track {track} do not lie together"
            if track == before and frame <= at:
                yield f"track {track} goes from frame {at} to {frame}"
            self.tracks.add(track)
            self.last = (track, frame)


def check_rows(table: pa.Table, manifest: Manifest) -> Iterator[str]:
    """Laws that hold in every row by itself."""
    first = table["track_id"][0].as_py()
    columns = {name: numbers(table[name]) for name in FINITE}

    def broken(rows: Any, what: Callable[[int], Any] | str) -> Iterator[str]:
        if len(found := np.flatnonzero(rows)):
            row = table.slice(int(found[0]), 1)
            where = f"track {row['track_id'][0].as_py()} frame {row['frame_index'][0].as_py()}"
            yield f"{len(found)} rows with {what if isinstance(what, str) else what(int(found[0]))}, first {where}"

    for name in table.column_names:
        if table[name].null_count:
            yield f"column {name} has empty values near track {first}"
            return
    for name, wanted in (("dataset", manifest.dataset), ("split", manifest.split)):
        if set(table[name].to_pylist()) != {wanted}:
            yield f"column {name} says other than {wanted} near track {first}"
    for name, values in columns.items():
        yield from broken(~np.isfinite(values).all(1), f"NaN or infinite {name}")
    bbox, scale = columns["bbox"], columns["crop_scale"][:, 0]
    yield from broken((bbox[:, 2] <= 0) | (bbox[:, 2] != bbox[:, 3]), lambda row: f"a bad box such as {bbox[row]}")
    yield from broken(~(scale > 0), "a crop scale that is not positive")
    confidence = columns["keypoints2d"].reshape(len(table), -1, 3)[..., 2]
    yield from broken(((confidence < 0) | (confidence > 1)).any(1), "2D confidences outside 0 to 1")
    yield from broken((columns["feature"] == 0).all(1), "features that are all zero")


def numbers(column: pa.ChunkedArray) -> NDArray[np.floating]:
    """(N, everything flattened)."""
    array = column.combine_chunks()
    rows = len(array)
    while pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(rows, -1)


def command() -> None:
    cli.run(main)


if __name__ == "__main__":
    command()
