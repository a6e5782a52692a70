"""The light registry of datasets agrees with the decoders, which it imports only when they are needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.decoders.registry import DATASETS, load_decoder
from tests.fixtures.places import ROOT


@pytest.mark.parametrize("name", DATASETS)
def test_the_splits_are_those_of_the_decoder(name: str) -> None:
    assert DATASETS[name].splits == load_decoder(name).splits


def test_every_decoder_is_registered() -> None:
    files = (ROOT / "pipelines" / "decoders").glob("*.py")
    assert {file.stem for file in files if " Decoder(\n" in file.read_text()} == {d.module for d in DATASETS.values()}


def test_tracks_are_given_to_the_decoder_of_videos(tmp_path: Path) -> None:
    assert "box" in load_decoder("video", tmp_path).box_rule and load_decoder("video").box_rule == "the whole picture"


def test_names_need_no_decoder() -> None:
    code = "import sys; import pipelines.decoders.registry; assert not {'cv2', 'scipy', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
