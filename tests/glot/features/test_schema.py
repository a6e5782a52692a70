"""Versions of feature sets, features of 16 bits, and manifests of many sources."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError, NotNowError
from glot.features.schema import MANIFEST, Part, column, open_part, read_manifest, read_table, schema, write_manifest
from glot.features.store import FeatureStore
from tests.fixtures.features import write_feature_set


def change_manifest(folder: Path, **values: object) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, **values}))


def test_sets_of_this_version_and_of_the_one_before_are_read_and_others_refused(tmp_path: Path) -> None:
    manifest = write_feature_set(tmp_path, tracks=[5], feature_size=4)
    assert manifest.schema_version == 2
    change_manifest(tmp_path, schema_version=1)
    assert read_table(tmp_path).num_rows == 5 and read_manifest(tmp_path).key != manifest.key
    change_manifest(tmp_path, schema_version=3)
    with pytest.raises(InputError, match="schema version 3, this code reads 1 and 2; update this code") as refused:
        read_manifest(tmp_path)
    assert "\n" not in str(refused.value)
    change_manifest(tmp_path, schema_version=2, backbone={**manifest.backbone, "dtype": "int8"})
    with pytest.raises(InputError, match="features of type int8, this code reads float32, float16"):
        read_manifest(tmp_path)


def test_features_of_16_bits_are_rounded_and_reach_the_model_as_32(tmp_path: Path) -> None:
    exact = write_feature_set(tmp_path / "exact", tracks=[40, 30], feature_size=64)
    short = write_feature_set(tmp_path / "short", tracks=[40, 30], feature_size=64, dtype="float16")
    assert short.feature_dtype == "float16" and short.key != exact.key
    assert read_table(tmp_path / "short").schema.field("feature").type == pa.list_(pa.float16(), 64)
    full, half = (FeatureStore.open(tmp_path / name, cache=tmp_path / "cache") for name in ("exact", "short"))
    rounded = full.features.astype(np.float16)
    assert half.features.dtype == np.float16 and (half.features == rounded).all() and (rounded != full.features).any()
    assert half.features_of(half.tracks[1].rows).dtype == np.float32
    starts = np.array([3, 41, 0])
    ours, theirs = half.batch(starts, 16), full.batch(starts, 16)
    assert ours["features"].dtype == np.float32
    np.testing.assert_array_equal(ours["features"], theirs["features"].astype(np.float16).astype(np.float32))
    for name in theirs.keys() - {"features"}:
        np.testing.assert_array_equal(ours[name], theirs[name])
    sizes = [(store.copy / "feature.npy").stat().st_size for store in (half, full)]
    assert sizes[1] - sizes[0] == 2 * full.features.size


def test_a_part_has_the_type_of_the_manifest(tmp_path: Path) -> None:
    write_feature_set(tmp_path, tracks=[5], feature_size=4, dtype="float16")
    change_manifest(tmp_path, backbone={"name": "fixture", "weights": "none", "hash": "1", "feature_size": 4})
    with pytest.raises(InputError, match="columns are not those of the manifest"):
        read_table(tmp_path)


def test_numbers_that_16_bits_cannot_hold_are_refused() -> None:
    kind = schema(2, "float16").field("feature").type
    assert column([[1.0, 65504.0]], kind).to_pylist() == [[1.0, 65504.0]]
    with pytest.raises(InputError, match="70000 does not fit into float16"):
        column([[1.0, 70_000.0]], kind)
    assert np.isnan(column([[np.nan, 1.0]], kind).to_pylist()[0][0])  # found by those who check for it


def test_a_manifest_of_many_sources_is_read_back_and_its_key_is_quick(tmp_path: Path) -> None:
    manifest = write_feature_set(tmp_path, tracks=[5], feature_size=4)
    sources = [{"path": f"videos/{i:06d}.mp4", "bytes": i, "modified": 10**18 + i, "frames": 5} for i in range(50_000)]
    many = replace(manifest, sources=sources)
    start = time.process_time()
    key = many.key
    seconds = time.process_time() - start
    start = time.process_time()
    asdict(many)  # what the key must not cost
    assert seconds < time.process_time() - start
    write_manifest(tmp_path, many)
    assert read_manifest(tmp_path) == many and read_manifest(tmp_path).key == key
    assert (tmp_path / MANIFEST).read_text().count("\n") > 50_000  # one can look at it


def test_a_disk_that_does_not_answer_is_not_the_fault_of_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_feature_set(tmp_path, tracks=[5], feature_size=4, parts=1)
    manifest = read_manifest(tmp_path)

    def stale(*_: object, **__: object) -> None:
        raise OSError(116, "Stale file handle")

    part = Part(tmp_path / "part-00000.parquet", manifest.parts[0]["bytes"], 0)
    with monkeypatch.context() as broken:
        broken.setattr(pq, "ParquetFile", stale)
        with pytest.raises(NotNowError, match="part-00000.*cannot be read now .*Stale"), open_part(part, schema(4)):
            pass
        with pytest.raises(NotNowError, match="cannot be read now"):
            FeatureStore.open(tmp_path, cache=tmp_path / "cache")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", stale)
        with pytest.raises(NotNowError, match="manifest.json: cannot be read now"):
            read_manifest(tmp_path)
    content = bytearray(part.path.read_bytes())
    content[200:2000] = bytes(1800)
    part.path.write_bytes(content)
    with pytest.raises(InputError):  # damage inside stays the set's own
        FeatureStore.open(tmp_path, cache=tmp_path / "cache")
