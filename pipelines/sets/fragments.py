"""Clips with their features in, one Parquet file of a unit's rows out. The file appears only when it is whole."""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glot.features.schema import GUESS_SIZE, column, guess_columns, schema
from glot.location import for_arrow, is_remote, move_in, temporary_of
from pipelines.decoders.clips import Clip
from pipelines.sets.settings import RECORDS, written

UNITS = "units"  # folder of the fragments, in RECORDS
ROW_GROUP = 2048  # rows; a shorter track is one row group
DICTIONARY_COLUMNS = ["dataset", "split", "track_id", "image", "gender"]  # columns of texts that repeat
SHOWN_NAME = 80  # characters of a unit's id that its fragment's name shows


def fragment_path(folder: Path, id: str) -> Path:
    """The file of a unit's rows while they are in no part yet.

    Every file system takes its name, whatever the id holds, with room for what ``temporary_of`` adds.
    """
    shown = re.sub(r"[^A-Za-z0-9._@-]", "-", id)[:SHOWN_NAME]
    digest = hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folder / RECORDS / UNITS / f"{shown}-{digest}.parquet"


def write_fragment(
    path: Path,
    pieces: Iterable[tuple[Clip, NDArray]],
    *,
    dataset: str,
    split: str,
    dtype: str = "float32",
    with_guess: bool = False,
) -> dict[str, Any] | None:
    """Writes the rows of a unit from pieces: clips with their features (N, F). One piece is in memory at a time.

    A track may come in several pieces that follow each other. ``dtype``, float32 or float16, is how features are kept.
    ``with_guess``: the last GUESS_SIZE numbers of each row of features are a first guess, which gets its own columns.
    Returns {name, rows, tracks, bytes}. Without any row, it returns None and writes no file.
    """
    rows, tracks, last_track = 0, 0, None
    with written_whole(path) as file:
        for clip, features in pieces:
            if not len(clip):
                continue
            columns = schema(features.shape[1] - GUESS_SIZE * with_guess, dtype, with_guess=with_guess)
            file.write(_table(clip, features, columns, dataset, split, with_guess=with_guess))
            rows += len(clip)
            tracks += clip.track_id != last_track
            last_track = clip.track_id
    return {"name": path.name, "rows": rows, "tracks": tracks, "bytes": file.size} if rows else None


class WholeFile:
    """A Parquet file that is being written: a row group for every ROW_GROUP rows of each table."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.writer: pq.ParquetWriter | None = None
        self.size = 0  # bytes, once it is whole

    def write(self, table: pa.Table) -> None:
        if self.writer is None:
            self.writer = pq.ParquetWriter(
                for_arrow(self.temporary), table.schema, compression="zstd", use_dictionary=DICTIONARY_COLUMNS
            )
        self.writer.write_table(table, row_group_size=ROW_GROUP)

    def note(self, texts: dict[str, str]) -> None:
        """Adds texts to the footer."""
        assert self.writer is not None
        self.writer.add_key_value_metadata(texts)


@contextmanager
def written_whole(path: Path) -> Iterator[WholeFile]:
    """The file at ``path``, which appears when the block ends without an error and has written rows."""
    # A file for an object store is written on this machine first.
    temporary = temporary_of(Path(tempfile.gettempdir()) / path.name if is_remote(path) else path)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    file = WholeFile(temporary)
    try:
        yield file
        if file.writer is not None:
            file.writer.close()
            file.size = temporary.stat().st_size
            written(path, lambda: move_in(temporary, path))
    finally:
        if file.writer is not None and file.writer.is_open:
            with suppress(OSError):  # on a full disk, closing fails as well; the first error is raised
                file.writer.close()
        temporary.unlink(missing_ok=True)


def _table(
    clip: Clip, features: NDArray, columns: pa.Schema, dataset: str, split: str, *, with_guess: bool
) -> pa.Table:
    rows = len(clip)
    assert len(features) == rows
    values: dict[str, Any] = {
        "dataset": [dataset] * rows,
        "split": [split] * rows,
        "track_id": [clip.track_id] * rows,
        "image": list(clip.image),
        "fps": np.full(rows, clip.fps, np.float32),
        "crop_scale": np.broadcast_to(np.asarray(clip.crop_scale, np.float32), rows),
        "gender": [clip.gender] * rows,
    }
    if with_guess:
        features, guess = np.split(features, [features.shape[1] - GUESS_SIZE], axis=1)
        values |= guess_columns(guess)
    values["feature"] = features
    values |= {field.name: getattr(clip, field.name) for field in columns if field.name not in values}
    return pa.table([column(values[field.name], field.type) for field in columns], schema=columns)
