"""The synthetic body, with which released files are written."""

from pathlib import Path

import pytest

from glot.human.body import Body, load_body
from tests.fixtures import synthetic_body


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the body's files."""
    made = tmp_path_factory.mktemp("smpl")
    synthetic_body.write(made)
    return made


@pytest.fixture(scope="session")
def body(folder: Path) -> Body:
    return load_body(folder)
