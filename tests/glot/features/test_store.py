"""The local copy equals the Parquet rows, is built once by many processes, is never half; damaged sets are refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.copy_cache import INDEX
from glot.features.schema import read_manifest, read_table, write_manifest
from glot.features.store import FeatureStore
from glot.human.crop import keypoints_to_crop
from tests.fixtures.features import write_feature_set
from tests.fixtures.places import ROOT

# Opens a store slowly in another process, and prints how often it copied a part and the sum of the features.
OPEN = """
import sys, time
from pathlib import Path
from glot.features import copy_writing, store
copied, batches = [], copy_writing.batches
def slow(part, *args):
    copied.append(part)
    for batch in batches(part, *args):
        time.sleep(float(sys.argv[3]))
        yield batch
copy_writing.batches = slow
print("ready", flush=True)
opened = store.FeatureStore.open(Path(sys.argv[1]), cache=Path(sys.argv[2]))
print(len(copied), len(opened), float(opened.features.astype("f8").sum()), flush=True)
"""


def in_another_process(features: Path, cache: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(features), str(cache), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_store_holds_the_rows_of_the_parquet_files(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 1, 33], gap=3, invalid=0.3, feature_size=8)
    table = read_table(tmp_path / "set")
    store = FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    assert [tuple(track) for track in store.tracks] == [("clip00_0", 0, 20), ("clip01_0", 20, 21), ("clip02_0", 21, 54)]
    assert len(store) == 54
    assert store.features.shape == (54, 8)
    for name in ("frame_index", "bbox", "keypoints2d", "joints3d_valid", "pose", "betas", "valid"):
        np.testing.assert_array_equal(getattr(store, name), np.array(table[name].to_pylist()), err_msg=name)
    np.testing.assert_array_equal(store.features, np.array(table["feature"].to_pylist(), np.float32))
    assert store.track("clip02_0").rows == slice(21, 54)
    with pytest.raises(InputError, match=r"'nobody'.*e\.g\. clip00_0"):
        store.track("nobody")
    with pytest.raises(ValueError, match="read-only"):
        store.features[0, 0] = 1


def test_batch_gathers_windows_and_never_moves_the_stored_keypoints(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 30])
    store = FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    starts = np.array([0, 34, 3])
    rows = starts[:, None] + np.arange(16)
    before = store.keypoints2d.copy()
    first, second = store.batch(starts, 16), store.batch(starts, 16)
    np.testing.assert_array_equal(store.keypoints2d, before)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        assert values.flags.writeable
    np.testing.assert_array_equal(first["features"], store.features[rows])
    np.testing.assert_array_equal(first["joints3d"], store.joints3d[rows])
    expected = keypoints_to_crop(store.keypoints2d[rows], store.bbox[rows], store.crop_scale[rows])
    np.testing.assert_allclose(first["keypoints2d"], expected, atol=1e-6)
    assert first["keypoints2d"].dtype == np.float32
    assert np.abs(first["keypoints2d"][..., :2]).max() <= 1 / 1.2 + 1e-5  # the box is tight, the crop 1.2 of it
    assert store.batch(np.empty(0, np.int64), 16)["features"].shape == (0, 16, 32)
    with pytest.raises(ValueError, match="from 35 to 35"):
        store.batch(np.array([35]), 16)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_of_rows_are_read_from_the_file(tmp_path: Path, dtype: str) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 30], feature_size=8, dtype=dtype)
    store = FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    whole = np.array(store.features, np.float32)
    chosen = np.array([7, 8, 9, 3, 49, 0, 1, 1])
    rows: list = [slice(20, 50), slice(None, None, 7), slice(5, 5), chosen, chosen.astype(np.int32), np.arange(0)]
    for index in rows:
        found = store.features_of(index)
        np.testing.assert_array_equal(found, whole[index])
        assert found.dtype == np.float32 and found.flags.writeable
    for wrong in ([50], [-1]):
        with pytest.raises(IndexError, match="there are 50"):
            store.features_of(np.array(wrong))


def test_second_opening_reads_no_parquet_and_a_remade_set_is_read_again(tmp_path: Path) -> None:
    features = tmp_path / "set"
    write_feature_set(features, tracks=[20], seed=1)
    first = FeatureStore.open(features, cache=tmp_path / "cache")
    assert FeatureStore.open(features, cache=tmp_path / "cache").copy == first.copy
    manifest = read_manifest(features)
    write_feature_set(features, tracks=[20], seed=2)
    write_manifest(features, manifest)  # other content with the same manifest
    again = FeatureStore.open(features, cache=tmp_path / "cache")
    assert not np.array_equal(again.features, first.features)


def test_many_processes_at_once_build_one_copy(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 30], feature_size=8)
    processes = [in_another_process(tmp_path / "set", tmp_path / "cache", 0.5) for _ in range(3)]
    lines = [process.communicate(timeout=300)[0].split()[1:] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(line[0] for line in lines) == ["0", "0", "2"]
    assert len({tuple(line[1:]) for line in lines}) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 30], feature_size=8)
    cache = tmp_path / "cache"
    process = in_another_process(tmp_path / "set", cache, 600)
    deadline = time.monotonic() + 300
    while not list(cache.glob(".*.building-*/feature.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(cache.glob(".*.building-*"))
    assert not any(index.read_text() for index in cache.glob(f"*/{INDEX}"))
    store = FeatureStore.open(tmp_path / "set", cache=cache)
    assert len(store) == 50
    assert not list(cache.glob(".*.building-*"))  # and the disk space of the killed build is free again


def test_a_copy_with_a_cut_file_is_built_again(tmp_path: Path) -> None:
    write_feature_set(tmp_path / "set", tracks=[20])
    store = FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    features = store.features.copy()
    path = store.copy / "feature.npy"
    path.unlink()
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache").features, features)
    with path.open("r+b") as handle:
        handle.truncate(1000)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache").features, features)


def test_the_environment_decides_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_feature_set(tmp_path / "set", tracks=[20])
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "elsewhere"))
    assert FeatureStore.open(tmp_path / "set").copy.parent == tmp_path / "elsewhere"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="GLOT_CACHE"):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "file" / "cache")


def rewrite(part: Path, change) -> None:
    """Changes the table of a part, and its size in the manifest."""
    table = change(pq.read_table(part))
    pq.write_table(table, part)
    manifest = read_manifest(part.parent)
    manifest.parts[0]["bytes"] = part.stat().st_size
    write_manifest(part.parent, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(0, 30), "manifest has"),
        (lambda t: t.take([*range(5), *range(20, 50), *range(5, 20)]), "not together"),
        (lambda t: t.take([1, 0, *range(2, 50)]), "not in time order"),
        (lambda t: t.drop_columns(["fps"]), "columns"),
    ],
)
def test_broken_sets_are_refused(tmp_path: Path, change, message: str) -> None:
    write_feature_set(tmp_path / "set", tracks=[20, 30], parts=1)
    rewrite(tmp_path / "set" / "part-00000.parquet", change)
    with pytest.raises(InputError, match=message):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob(f"**/{INDEX}"))


def test_features_that_are_not_finite_and_missing_sets_are_refused(tmp_path: Path) -> None:
    def poison(table):
        values = table["feature"].combine_chunks().flatten().to_numpy().copy()
        values[7 * 32] = np.nan
        column = type(table["feature"].combine_chunks()).from_arrays(values, 32)
        return table.set_column(table.schema.get_field_index("feature"), table.schema.field("feature"), column)

    write_feature_set(tmp_path / "set", tracks=[20, 30], parts=1)
    rewrite(tmp_path / "set" / "part-00000.parquet", poison)
    with pytest.raises(InputError, match="row 7 of the set are not finite"):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    with pytest.raises(InputError, match="no such feature folder"):
        FeatureStore.open(tmp_path / "none", cache=tmp_path / "cache")
    (tmp_path / "set" / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not of the size"):
        FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
