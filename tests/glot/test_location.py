"""Folders with any name are read as folders: a path is not a URI."""

from pathlib import Path

import pytest

from glot.features.store import FeatureStore
from tests.fixtures.features import write_feature_set


@pytest.mark.parametrize("name", ["run:1", "s3:x", "100%20 #1?"])
def test_a_set_in_a_folder_with_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_feature_set(tmp_path / name, tracks=[20])
    monkeypatch.chdir(tmp_path)
    assert len(FeatureStore.open(Path(name), cache=tmp_path / "cache")) == 20
