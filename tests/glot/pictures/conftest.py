"""The open body, a folder to render from, and its test features."""

from pathlib import Path

import pytest

from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from tests.fixtures.rendering import write_folder


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Path:
    return write_folder(tmp_path_factory.mktemp("render"), body)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("GLOT_CACHE", str(folder / "cache"))
    return FeatureStore.open(folder / "features" / "3dpw" / "test")
