"""Tracks that go on in later parts: together in the local copy, the same for every reader as in one part."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.layout import ROWS_AT_ONCE, Piece, layout_of
from glot.features.schema import Part, parts, read_manifest, read_table, write_manifest
from glot.features.store import FeatureStore
from glot.features.windows import training_windows
from tests.fixtures.features import write_feature_set, write_split_set

TRACKS = [40, 1, 33, 2 * ROWS_AT_ONCE + 7]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a set in one part, the same rows in three parts)."""
    folder = tmp_path_factory.mktemp("sets")
    write_feature_set(folder / "whole", tracks=TRACKS, gap=3, invalid=0.2, feature_size=8, parts=1)
    write_split_set(folder / "split", folder / "whole")
    return folder / "whole", folder / "split"


def copied_files(store: FeatureStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.copy.iterdir()}


def test_the_copy_has_the_tracks_together_whatever_parts_they_are_in(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, split = (FeatureStore.open(folder, cache=tmp_path) for folder in folders)
    assert len(split.manifest.parts) == 3 and sum(part["tracks"] for part in split.manifest.parts) > 2 * len(TRACKS)
    assert read_table(folders[0])["track_id"] != read_table(folders[1])["track_id"]
    # clip01_0 has a single row, which is in the last part, so there it is the last track to appear.
    assert [track.track_id for track in split.tracks] == ["clip00_0", "clip02_0", "clip03_0", "clip01_0"]
    for track in whole.tracks:
        other = split.track(track.track_id)
        np.testing.assert_array_equal(split.features_of(other.rows), whole.features_of(track.rows))
        for name in ("frame_index", "fps", "bbox", "keypoints2d", "joints3d_valid", "pose", "valid"):
            np.testing.assert_array_equal(getattr(split, name)[other.rows], getattr(whole, name)[track.rows])


def test_windows_of_training_go_over_the_ends_of_parts(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def windows(folder: Path) -> dict[tuple[str, int], bytes]:
        store = FeatureStore.open(folder, cache=tmp_path)
        starts = training_windows(store.tracks, store.frame_index, frames=16, stride=5)
        names = [next(track.track_id for track in store.tracks if track.start <= row < track.stop) for row in starts]
        batch = store.batch(starts, 16)["features"]
        frames = store.frame_index[starts].tolist()
        return {(n, f): rows.tobytes() for n, f, rows in zip(names, frames, batch, strict=True)}

    whole, split = (windows(folder) for folder in folders)
    assert whole == split and len(whole) > 800


def test_a_set_whose_tracks_are_in_one_part_is_copied_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    manifest = write_feature_set(folder, tracks=[30, 5, ROWS_AT_ONCE + 50, 8], feature_size=4, parts=3)
    assert layout_of(parts(folder, manifest), manifest.row_schema).pieces == [Piece(manifest.rows, 0)]
    store, table = FeatureStore.open(folder, cache=tmp_path / "cache"), read_table(folder)
    for name, content in copied_files(store).items():
        if name.endswith(".npy"):
            column = name.removesuffix(".npy")
            values = np.array(table[column].to_pylist(), np.load(store.copy / name).dtype)
            np.save(tmp_path / name, values)
            assert (tmp_path / name).read_bytes() == content, name


def write_rows(folder: Path, tables: list[pa.Table], *, tracks: int) -> None:
    """Makes the tables the parts of the set in ``folder``."""
    manifest = read_manifest(folder)
    for path in folder.glob("part-*"):
        path.unlink()
    entries = []
    for number, table in enumerate(tables):
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(table, path)
        entries.append({"name": path.name, "rows": len(table), "tracks": 1, "bytes": path.stat().st_size})
    write_manifest(folder, replace(manifest, parts=entries, rows=sum(map(len, tables)), tracks=tracks))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda table: [table[20:], table[:20]], r"part-00001.*clip00_0 is not in time order, .* frame 39 to 0"),
        (lambda table: [table[:21], table[20:]], "part-00001.*frame 20 to 20"),
        (lambda table: [table[:5], table.take([5, 40, 6, *range(41, 60)])], "part-00001.*clip00_0 are not together"),
    ],
)
def test_frames_rise_through_the_parts_and_tracks_are_together_in_each(
    tmp_path: Path, cut: Callable[[pa.Table], list[pa.Table]], message: str
) -> None:
    write_feature_set(tmp_path / "set", tracks=[40, 20], feature_size=4, parts=1)
    write_rows(tmp_path / "set", cut(read_table(tmp_path / "set")), tracks=2)
    with pytest.raises(InputError, match=message):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")


def test_an_empty_set_and_values_that_are_missing(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[4], feature_size=4, parts=1)
    table = read_table(tmp_path / "set")
    assert layout_of([], table.schema).rows == 0
    frames = pa.array([0, None, 2, 3], pa.int32())
    write_rows(tmp_path / "set", [table.set_column(3, table.schema.field(3), frames)], tracks=1)
    with pytest.raises(InputError, match="a value in it is null"):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")


def test_the_parts_after_a_broken_one_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glot.features import layout

    manifest = write_feature_set(tmp_path / "set", tracks=[4] * 60, feature_size=4, parts=60)
    files = parts(tmp_path / "set", manifest)
    files[0].path.write_bytes(b"PAR1")
    opened: list[Path] = []
    open_part = layout.open_part

    def noted(part: Part, expected: pa.Schema):
        opened.append(part.path)
        return open_part(part, expected)

    monkeypatch.setattr(layout, "open_part", noted)
    with pytest.raises(InputError, match="part-00000.*not readable as Parquet"):
        layout_of(files, manifest.row_schema)
    assert len(opened) < 50
