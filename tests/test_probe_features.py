"""The probe of several feature sets: what tells of the pose wins, frames are matched, and parts are chosen as said."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.schema import column, read_manifest, read_table, write_manifest
from glot.human.body import load_body
from tests.fixtures.features import write_feature_set
from tests.fixtures.places import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import probe_features

COUNTS = {"train": [40] * 20, "validation": [20] * 4, "test": [20] * 4}


def write_noise(folder: Path, source: Path, *, rows: slice = slice(None)) -> None:
    """The set in ``source`` without every fifth row, the others in reverse track order, with features of noise.

    ``rows``: of these, the rows to write.
    """
    manifest, table = read_manifest(source), read_table(source)
    names = table["track_id"].to_pylist()
    order = [row for name in sorted(set(names), reverse=True) for row, other in enumerate(names) if other == name]
    table = table.take([row for row in order if row % 5][rows])
    noise = np.random.default_rng(0).normal(size=(len(table), manifest.backbone["feature_size"])).astype(np.float32)
    place = table.schema.get_field_index("feature")
    table = table.set_column(place, table.schema.field(place), column(noise, table.schema.field(place).type))
    tracks = len(set(table["track_id"].to_pylist()))
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-00000.parquet", use_dictionary=False)
    size = (folder / "part-00000.parquet").stat().st_size
    part = {"name": "part-00000.parquet", "rows": len(table), "tracks": tracks, "bytes": size}
    write_manifest(folder, replace(manifest, parts=[part], rows=len(table), tracks=tracks))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe")
    for seed, split in enumerate(COUNTS):
        good = out / "rendered" / "good" / "3dpw" / split
        write_feature_set(good, tracks=COUNTS[split], seed=seed, feature_size=216, split=split)
        write_noise(out / "rendered" / "noise" / "3dpw" / split, good)
    return out


def test_what_tells_of_the_pose_wins(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["good", "noise", "noise+good", "good[0:4]", "good/4"]
    probe_features.main(
        folder,
        features=wanted,
        learn=["rendered"],
        test=["rendered"],
        every=1,
        backbone=None,
        out=tmp_path / "figures.json",
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = figures["probes"]
    assert [rows[text]["size"] for text in wanted] == [216, 216, 432, 4, 54]
    errors = {text: row["tests"]["rendered"]["mpjpe_mm"] for text, row in rows.items()}
    assert errors["good"] < 0.8 * errors["mean pose"] and errors["noise+good"] < 0.8 * errors["noise"]
    assert errors["noise"] > 0.9 * errors["mean pose"], "frames are matched, not rows"
    assert errors["good"] < errors["good/4"] and errors["good"] < errors["good[0:4]"]
    assert figures["frames"]["train"]["rendered"] == {"sequences": 20, "tracks": 20, "rows": 640}
    assert "noise+good" in capsys.readouterr().out


def test_parts_are_columns_or_their_means() -> None:
    features = np.arange(24, dtype=np.float32).reshape(2, 12)
    (part,) = probe_features.parse("maps[4:12]/4")
    assert part.of(features).tolist() == [[7, 8], [19, 20]]
    (whole,) = probe_features.parse("maps")
    assert np.array_equal(whole.of(features), features)
    assert [part.name for part in probe_features.parse("a+b.c[0:1]+d-e/2")] == ["a", "b.c", "d-e"]
    for text in ("", "a+", "a[1:]", "a/0", "a b"):
        with pytest.raises(InputError, match="give names like"):
            probe_features.parse(text)
    for text in ("a[4:13]", "a[4:4]", "a/5"):
        with pytest.raises(InputError, match="has 12 numbers"):
            probe_features.parse(text)[0].of(features)


def test_sets_that_share_no_frame_are_refused(folder: Path, tmp_path: Path) -> None:
    source = folder / "rendered/good/3dpw/test"
    for name, rows in {"early": slice(20), "late": slice(20, None)}.items():
        write_noise(tmp_path / name / "3dpw" / "test", source, rows=rows)
    with pytest.raises(InputError, match="early, late have no frame of test in common"):
        probe_features.read_frames(tmp_path, ["early", "late"], "test", load_body())
    every = probe_features.read_frames(folder / "rendered", ["good", "noise"], "test", load_body(), every=7)
    assert len(every.joints) and all(
        (every.stores[name].frame_index[rows] % 7 == 0).all() for name, rows in every.rows.items()
    )
    with pytest.raises(InputError, match="no such feature folder"):
        probe_features.read_frames(tmp_path, ["early", "missing"], "test", load_body())


def test_the_command_asks_for_what_it_needs(folder: Path) -> None:
    with pytest.raises(InputError, match="--features, --learn and --test"):
        probe_features.main(folder, features=["good"], learn=None, test=["rendered"], backbone=None)
    with pytest.raises(InputError, match="nothing have no train split for good"):
        probe_features.main(folder, features=["good"], learn=["nothing"], test=["rendered"], every=1, backbone=None)
