"""The folder of a set: other settings are refused, one run at a time is at work in it, its files are listed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST
from pipelines.sets.settings import RECORDS, SETTINGS, list_set, open_set, remove_files
from tests.fixtures.unit_rows import SETTINGS as MADE_WITH


def start(folder: Path, settings: dict[str, Any] = MADE_WITH) -> None:
    with open_set(folder, settings):
        pass


def test_a_set_of_other_settings_is_refused_with_both_values(tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path, {**MADE_WITH, "backbone": {**MADE_WITH["backbone"], "weights": "renamed.pth"}})  # the same weights
    changes = (
        ("backbone", "hash", "9"),
        ("body", "hash", "9"),
        ("crop", "scale", 1.3),
        ("backbone", "dtype", "float16"),
    )
    for key, name, value in changes:
        other = {**MADE_WITH, key: {**MADE_WITH[key], name: value}}
        with pytest.raises(
            InputError, match=f"started with {key} .*but this command has .*{value}; give another --out"
        ):
            start(tmp_path, other)


def test_a_set_of_float16_is_not_continued_with_float32(tmp_path: Path) -> None:
    start(tmp_path, {**MADE_WITH, "backbone": {**MADE_WITH["backbone"], "dtype": "float16"}})
    with pytest.raises(InputError, match="started with backbone dtype float16, but this command has dtype float32"):
        start(tmp_path)


def test_a_set_of_the_earlier_schema_is_continued(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / RECORDS / SETTINGS
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 1}))
    start(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(InputError, match="started with schema_version 99"):
        start(tmp_path)


def test_settings_that_are_not_readable_are_said(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / RECORDS / SETTINGS).write_text("{half")
    with pytest.raises(InputError, match="settings.json: not readable; remove"):
        start(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with open_set(tmp_path, MADE_WITH), pytest.raises(InputError, match="another extraction"):
        start(tmp_path)


def test_a_set_made_elsewhere_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="not extracted here"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / RECORDS / "units").mkdir()
    leftovers = [tmp_path / ".part-0000-00000.parquet.host-1", tmp_path / RECORDS / ".packed.parquet.host-1",
                 tmp_path / RECORDS / "units" / ".0000-walk.parquet.host-1"]  # fmt: skip
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    start(tmp_path)
    assert not any(leftover.exists() for leftover in leftovers)


def test_files_are_listed_with_their_sizes_and_removed_by_name(tmp_path: Path) -> None:
    assert list_set(tmp_path / "none") == {}
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.bin").write_bytes(b"12345")
    (tmp_path / "d.bin").write_bytes(b"1")
    os.symlink(tmp_path / "gone", tmp_path / "link")
    assert list_set(tmp_path) == {"a/b/c.bin": 5, "d.bin": 1}
    remove_files(tmp_path, ["d.bin", "never-there.bin"])
    assert list_set(tmp_path) == {"a/b/c.bin": 5}
