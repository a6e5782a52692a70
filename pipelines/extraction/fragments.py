"""Clips with their features in, one Parquet file out. The file appears only when it is whole."""

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glot.features.schema import column, schema
from glot.location import is_remote, move_in, temporary_of
from pipelines.decoders.clips import Clip, Unit

ROW_GROUP = 2048  # rows; a shorter track is one row group
DICTIONARY_COLUMNS = ["dataset", "split", "track_id", "image", "gender"]  # columns of texts that repeat


def part_name(unit: Unit) -> str:
    """The file name of a unit's part."""
    return f"part-{unit.name}.parquet"


def write_part(
    folder: Path, unit: Unit, pieces: Iterable[tuple[Clip, NDArray]], *, dataset: str, split: str
) -> dict[str, Any] | None:
    """Writes the rows of a unit from pieces: clips with their features (N, F). One piece is in memory at a time.

    A track may come in several pieces that follow each other. Returns {name, rows, tracks, bytes}. Without any row, it
    returns None and writes no file.
    """
    path = folder / part_name(unit)
    # A part for an object store is written on this machine first.
    temporary = temporary_of(Path(tempfile.gettempdir()) / path.name if is_remote(folder) else path)
    rows, tracks, last_track = 0, 0, None
    writer: pq.ParquetWriter | None = None
    try:
        for clip, features in pieces:
            if not len(clip):
                continue
            columns = schema(features.shape[1])
            if writer is None:
                writer = pq.ParquetWriter(temporary, columns, compression="zstd", use_dictionary=DICTIONARY_COLUMNS)
            writer.write_table(_table(clip, features, columns, dataset, split), row_group_size=ROW_GROUP)
            rows += len(clip)
            tracks += clip.track_id != last_track
            last_track = clip.track_id
        if writer is None:
            return None
        writer.close()
        size = temporary.stat().st_size
        move_in(temporary, path)
    finally:
        if writer is not None and writer.is_open:
            with suppress(OSError):  # on a full disk, closing fails as well; the first error is raised
                writer.close()
        temporary.unlink(missing_ok=True)
    return {"name": path.name, "rows": rows, "tracks": tracks, "bytes": size}


def _table(clip: Clip, features: NDArray, columns: pa.Schema, dataset: str, split: str) -> pa.Table:
    rows = len(clip)
    assert len(features) == rows
    values: dict[str, Any] = {
        "dataset": [dataset] * rows,
        "split": [split] * rows,
        "track_id": [clip.track_id] * rows,
        "image": list(clip.image),
        "fps": np.full(rows, clip.fps, np.float32),
        "crop_scale": np.full(rows, clip.crop_scale, np.float32),
        "gender": [clip.gender] * rows,
        "feature": features,
    }
    values |= {field.name: getattr(clip, field.name) for field in columns if field.name not in values}
    return pa.table([column(values[field.name], field.type) for field in columns], schema=columns)
