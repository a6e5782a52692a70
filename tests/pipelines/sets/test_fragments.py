"""The rows of a unit in a file: whole or not there, with a name that every file system takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from glot.features.schema import schema
from glot.human.body import load_body
from pipelines.decoders.threedpw import decode, find_units
from pipelines.sets.fragments import ROW_GROUP, fragment_path, write_fragment
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.unit_rows import FEATURES, rows_of, unit


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    write_sequence(tmp_path / "3dpw", "a", frames=6, seed=0)
    (source,) = find_units(tmp_path / "3dpw", "test")
    clips = decode(tmp_path / "3dpw", source, load_body(), "corrected").clips
    features = [np.random.default_rng(i).normal(size=(len(clip), 4)).astype(np.float32) for i, clip in enumerate(clips)]
    path = tmp_path / "set" / "a.parquet"
    found = write_fragment(path, zip(clips, features, strict=True), dataset="3dpw", split="test")
    rows = sum(map(len, clips))
    assert found == {"name": "a.parquet", "rows": rows, "tracks": len(clips), "bytes": path.stat().st_size}
    file = pq.ParquetFile(path)
    table = file.read()
    assert file.schema_arrow.equals(schema(4))
    assert table["track_id"].to_pylist() == [clip.track_id for clip in clips for _ in range(len(clip))]
    for name in ("frame_index", "image", "bbox", "keypoints2d", "joints3d", "joints3d_valid", "pose", "betas", "valid"):
        wanted = np.concatenate([np.asarray(getattr(clip, name)) for clip in clips])
        read = np.array(table[name].to_pylist())
        assert np.array_equal(read, wanted if wanted.dtype.kind in "iUb" else wanted.astype(np.float32)), name
    assert set(table["crop_scale"].to_pylist()) == {np.float32(1.2)}
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [len(clip) for clip in clips]
    columns = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
    assert not any("DICT" in str(c.encodings) for c in columns if c.path_in_schema.startswith("feature"))


def test_a_long_track_has_several_row_groups(tmp_path: Path) -> None:
    one = unit("walk.mp4")
    path = tmp_path / "a.parquet"
    write_fragment(path, rows_of(one, {"a": (0, ROW_GROUP + 5), "b": (0, 3)}), dataset="video", split="all")
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [ROW_GROUP, 5, 3]


def test_pieces_of_a_track_are_one_track(tmp_path: Path) -> None:
    ((clip, features),) = rows_of(unit("walk.mp4"), {"a": (0, 6)})
    parts = [np.arange(0, 4), np.arange(4, 6)]
    pieces = [(clip.take(rows), features[rows]) for rows in parts]
    found = write_fragment(tmp_path / "a.parquet", pieces, dataset="video", split="all")
    assert found and (found["rows"], found["tracks"]) == (6, 1)


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    assert write_fragment(tmp_path / "a.parquet", [], dataset="video", split="all") is None
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def pieces() -> Iterator[Any]:
        yield from rows_of(unit("walk.mp4"), {"a": (0, 6)})
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError):
        write_fragment(tmp_path / "a.parquet", pieces(), dataset="video", split="all")
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_fragment(tmp_path / name, rows_of(unit("w.mp4"), {"a": (0, 9)}), dataset="video", split="all")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float16_features_are_rounded_and_nothing_else(tmp_path: Path) -> None:
    pieces = rows_of(unit("w.mp4"), {"a": (0, 9)})
    for dtype in ("float32", "float16"):
        write_fragment(tmp_path / dtype, pieces, dataset="video", split="all", dtype=dtype)
    full, half = (pq.read_table(tmp_path / dtype) for dtype in ("float32", "float16"))
    assert half.schema.equals(schema(FEATURES, "float16"))
    assert full.drop_columns("feature").equals(half.drop_columns("feature"))
    assert np.array_equal(np.array(half["feature"].to_pylist()), pieces[0][1].astype(np.float16))


def test_names_fit_every_file_system_and_differ(tmp_path: Path) -> None:
    ids = [
        "0000/a/b",
        "0000/a-b",
        "0000/a%2Fb",
        "0000/A/b",
        f"0000/{'ü%FF' * 80}@0002000",
        f"0000/{'ü%FF' * 80}@0004000",
    ]
    names = [fragment_path(tmp_path, id).name for id in ids]
    assert len({name.lower() for name in names}) == len(ids)
    for name in names:
        assert name.isascii() and len(name) < 120 and "/" not in name and not name.startswith(".")
