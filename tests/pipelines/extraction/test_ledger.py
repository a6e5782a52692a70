"""Parts, records and the manifest: files are whole, other settings are refused, rows are in the source's order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, read_manifest, read_table, schema
from glot.human.body import Body, load_body
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.threedpw import decode, find_units
from pipelines.extraction.ledger import Record, finished, open_set, write_record
from pipelines.sets.fragments import write_part
from pipelines.sets.publishing import finish_set, sources_of
from tests.fixtures.threedpw import write_sequence

SETTINGS: dict[str, Any] = {
    "dataset": "3dpw",
    "split": "test",
    "backbone": {"name": "resnet50", "weights": "a.pth", "hash": "1", "feature_size": 4},
    "body": {"name": "b.npz", "hash": "2", "open": True},
    "crop": {"size": 224, "scale": 1.2},
}


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        write_sequence(tmp_path / "3dpw", name, frames=6, seed=seed)
    return tmp_path / "3dpw"


def fill(folder: Path, root: Path, unit: Unit, body: Body, skipped: Any = ()) -> list[Clip]:
    clips = decode(root, unit, body, "corrected").clips
    features = [np.random.default_rng(i).normal(size=(len(clip), 4)).astype(np.float32) for i, clip in enumerate(clips)]
    part = write_part(folder, unit, zip(clips, features, strict=True), dataset="3dpw", split="test")
    write_record(folder, Record(unit.name, list(unit.sources), part, {"rows": 0}, list(skipped)))
    return clips


def publish_units(folder: Path, units: list[Unit], records: dict[str, Record]) -> Manifest:
    ordered = [records[unit.name] for unit in units]
    return finish_set(folder, ordered, SETTINGS, sources_of(units, records), if_empty="nothing could be extracted")


def test_rows_come_back_as_they_went_in(tmp_path: Path, root: Path, body: Body) -> None:
    folder, units = tmp_path / "set", find_units(root, "test")
    with open_set(folder, SETTINGS):
        clips = [clip for unit in reversed(units) for clip in fill(folder, root, unit, body)]
        assert not (folder / MANIFEST).exists()
        publish_units(folder, units, finished(folder, units))
    clips = clips[2:] + clips[:2]  # in the order of units, not of the work
    table = read_table(folder)
    assert table["track_id"].to_pylist() == [clip.track_id for clip in clips for _ in range(len(clip))]
    for name in ("frame_index", "image", "bbox", "keypoints2d", "joints3d", "joints3d_valid", "pose", "betas", "valid"):
        wanted = np.concatenate([np.asarray(getattr(clip, name)) for clip in clips])
        found = np.array(table[name].to_pylist())
        assert np.array_equal(found, wanted if wanted.dtype.kind in "iUb" else wanted.astype(np.float32)), name
    assert set(table["crop_scale"].to_pylist()) == {np.float32(1.2)}
    file = pq.ParquetFile(folder / "part-a.parquet")
    assert file.schema_arrow.equals(schema(4))
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [len(clip) for clip in clips[:2]]
    feature = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
    assert not any("DICT" in str(column.encodings) for column in feature if column.path_in_schema.startswith("feature"))


def test_a_set_of_other_settings_is_refused_with_both_values(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", SETTINGS):
        pass
    moved = {**SETTINGS, "backbone": {**SETTINGS["backbone"], "weights": "renamed.pth"}}
    with open_set(tmp_path / "set", moved):  # the same weights under another name are the same
        pass
    for key, change in (("backbone", {"hash": "9"}), ("body", {"hash": "9"}), ("crop", {"scale": 1.3})):
        other = {**SETTINGS, key: {**SETTINGS[key], **change}}
        with (
            pytest.raises(InputError, match=f"{key} .*{list(change.values())[0]}; give another --out"),
            open_set(tmp_path / "set", other),
        ):
            pass


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        open_set(tmp_path / "set", SETTINGS),
        pytest.raises(InputError, match="another extraction"),
        open_set(tmp_path / "set", SETTINGS),
    ):
        pass


def test_a_set_made_elsewhere_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="not extracted here"), open_set(tmp_path, SETTINGS):
        pass


def test_only_whole_units_count_as_done(tmp_path: Path, root: Path, body: Body) -> None:
    folder, units = tmp_path / "set", find_units(root, "test")
    with open_set(folder, SETTINGS):
        for unit in units:
            fill(folder, root, unit, body)
        (folder / "part-b.parquet").write_bytes(b"half")
        (folder / ".part-a.parquet.host-1").write_bytes(b"left over")
        assert list(finished(folder, units)) == ["a"]
    with open_set(folder, SETTINGS):
        assert not list(folder.glob(".part*"))


def test_a_changed_source_is_refused_unless_the_unit_had_skipped_something(
    tmp_path: Path, root: Path, body: Body
) -> None:
    folder, units = tmp_path / "set", find_units(root, "test")
    with open_set(folder, SETTINGS):
        fill(folder, root, units[0], body)
        fill(folder, root, units[1], body, skipped=[{"what": "x", "reason": "truncated JPEG", "frames": 1}])
        picture = root / "imageFiles" / "b" / "image_00000.jpg"
        picture.write_bytes(picture.read_bytes() + b"\0")
        assert list(finished(folder, find_units(root, "test"))) == ["a"]
        picture = root / "imageFiles" / "a" / "image_00000.jpg"
        picture.write_bytes(picture.read_bytes() + b"\0")
        with pytest.raises(InputError, match="the files of a have changed since it was extracted"):
            finished(folder, find_units(root, "test"))
        with pytest.raises(InputError, match="holds a, which is no longer in the source"):
            finished(folder, units[1:])


def test_nothing_extracted_is_an_error_without_a_manifest(tmp_path: Path, root: Path) -> None:
    folder, units = tmp_path / "set", find_units(root, "test")
    skipped = [{"what": "a.pkl", "reason": "not a readable pickle file", "frames": 6}]
    with open_set(folder, SETTINGS):
        records = {unit.name: Record(unit.name, list(unit.sources), None, skipped=skipped) for unit in units}
        with pytest.raises(InputError, match="nothing could be extracted.*a.pkl: not a readable"):
            publish_units(folder, units, records)
    assert not (folder / MANIFEST).exists()


def test_the_manifest_counts_and_names(tmp_path: Path, root: Path, body: Body) -> None:
    folder, units = tmp_path / "set", find_units(root, "test")
    lost = {"what": "imageFiles/b/image_00001.jpg", "reason": "truncated JPEG", "frames": 1}
    with open_set(folder, SETTINGS):
        fill(folder, root, units[0], body)
        write_record(folder, Record("b", list(units[1].sources), None, {"rows": 0}, [lost]))
        (folder / "part-b.parquet").write_bytes(b"of an earlier run")
        manifest = publish_units(folder, units, finished(folder, units))
    assert read_manifest(folder) == manifest
    assert (
        manifest.skipped == [lost]
        and manifest.tracks == 2
        and [part["name"] for part in manifest.parts] == ["part-a.parquet"]
    )
    assert not (folder / "part-b.parquet").exists()
    assert {source["path"] for source in manifest.sources} == {
        "sequenceFiles/test/a.pkl", "imageFiles/a", "sequenceFiles/test/b.pkl", "imageFiles/b",
    }  # fmt: skip
    assert json.loads((folder / MANIFEST).read_text())["rows"] == manifest.rows == len(read_table(folder))
