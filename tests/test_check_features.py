"""The checker passes what extraction makes and has a sentence for each way to break it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.body import load_body
from glot.errors import InputError
from glot.schema import MANIFEST
from pipelines.check_features import main
from pipelines.decoders.threedpw import decode, find_units
from pipelines.shards import Record, finished, open_set, publish, write_part, write_record
from tests.threedpw_fixture import write_sequence


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set as extraction leaves it, with 8 numbers for a feature."""
    root, folder = tmp_path_factory.mktemp("3dpw"), tmp_path_factory.mktemp("features") / "3dpw" / "test"
    for name in ("a", "b"):
        write_sequence(root, name, frames=6)
    settings: dict[str, Any] = {
        "dataset": "3dpw",
        "split": "test",
        "backbone": {"name": "resnet50", "weights": "w", "hash": "1", "feature_size": 8},
        "body": {"name": "b", "hash": "2", "open": True},
        "crop": {"scale": 1.2},
    }
    units, body = find_units(root, "test"), load_body()
    with open_set(folder, settings):
        for unit in units:
            clips = decode(root, unit, body, "corrected").clips
            features = [np.random.default_rng(0).normal(size=(len(clip), 8)).astype(np.float32) for clip in clips]
            part = write_part(folder, unit, clips, features, dataset="3dpw", split="test")
            write_record(folder, Record(unit.name, list(unit.sources), part))
        publish(folder, units, finished(folder, units), settings)
    return folder


def test_a_good_set_is_fine(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(good) == 0 and main(good.parent.parent) == 0
    printed = capsys.readouterr().out
    assert "20 rows, 4 tracks, 2 parts" in printed and "34561 rows, 37 tracks" in printed and "broken" not in printed


def change(column: str, edit: Callable[[list], Any]) -> Callable[[Path], None]:
    """Edits a column of the first part as a list of Python values, the manifest fitting the new file."""

    def apply(folder: Path) -> None:
        path = folder / "part-a.parquet"
        table = pq.read_table(path)
        values = table[column].to_pylist()
        values = edit(values) or values
        at = table.schema.get_field_index(column)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        rewrite(folder, table)

    return apply


def rewrite(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / "part-a.parquet", row_group_size=5)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["parts"][0]["bytes"] = (folder / "part-a.parquet").stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))


def put(row: int, value: Any) -> Callable[[list], None]:
    return lambda values: values.__setitem__(row, value)


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nan feature": (
        change("feature", put(3, [float("nan")] * 8)),
        "rows with NaN or infinite feature, first track a_0 frame 4",
    ),
    "zero feature": (change("feature", put(3, [0.0] * 8)), "features that are all zero"),
    "nan pose": (change("pose", put(0, [[float("inf")] * 3] * 24)), "NaN or infinite pose"),
    "box": (change("bbox", put(0, [5.0, 5.0, -1.0, -1.0])), "a bad box"),
    "box not square": (change("bbox", put(0, [5.0, 5.0, 2.0, 1.0])), "a bad box"),
    "scale": (change("crop_scale", put(0, 0.0)), "crop scale"),
    "confidence": (change("keypoints2d", put(0, [[0.0, 0.0, 7.0]] * 49)), "confidences outside"),
    "missing value": (change("fps", put(0, None)), "column fps has empty values"),
    "split": (change("split", put(0, "train")), "column split says other than test"),
    "order": (change("frame_index", lambda values: [values[1], values[0], *values[2:]]), "from frame 1 to 0"),
    "twice": (change("frame_index", put(1, 0)), "from frame 0 to 0"),
    "contiguous": (change("track_id", put(2, "a_1")), "do not lie together"),
    "one row less": (
        lambda folder: rewrite(folder, pq.read_table(folder / "part-a.parquet")[:-1]),
        "19 rows, the manifest says 20",
    ),
    "column gone": (
        lambda folder: rewrite(folder, pq.read_table(folder / "part-a.parquet").drop_columns("fps")),
        "columns are not those",
    ),
    "part gone": (lambda folder: (folder / "part-a.parquet").unlink(), "missing or not of the size"),
    "part cut": (
        lambda folder: (folder / "part-a.parquet").write_bytes((folder / "part-a.parquet").read_bytes()[:-9]),
        "missing or not of the size",
    ),
    "stray part": (
        lambda folder: shutil.copy(folder / "part-a.parquet", folder / "part-z.parquet") and None,
        "part-z.parquet not in the manifest",
    ),
    "manifest": (lambda folder: (folder / MANIFEST).write_text("{}") and None, "not a manifest"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_every_way_to_break_a_set_is_seen(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, sentence = BREAKS[name]
    shutil.copytree(good, tmp_path / "set")
    damage(tmp_path / "set")
    assert main(tmp_path / "set") == 1
    assert sentence in capsys.readouterr().out


def test_an_unreadable_part_of_the_right_size_is_seen(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good, tmp_path / "set")
    part = tmp_path / "set" / "part-a.parquet"
    part.write_bytes(b"\0" * part.stat().st_size)
    assert main(tmp_path / "set") == 1
    assert "not readable as Parquet" in capsys.readouterr().out


def test_no_set_at_all_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manifest.json"):
        main(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        main(tmp_path / "gone")
