"""Extraction on machines that come and go: nodes that are killed, and nodes that are preempted again and again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from pipelines.sets.plan import Plan
from tests.fixtures.faults import Faults, extracting
from tests.fixtures.preemptions import Losses, run
from tests.fixtures.video import write_film
from tests.pipelines.extraction.test_extract_faults import assert_same, set_of

BATCH = 8  # crops of a batch on a CPU


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """For the extractions that nothing happens to."""


def write_films(folder: Path, frames: dict[str, int]) -> None:
    """Videos of so many frames, with one person in each."""
    people = {}
    for film, count in frames.items():
        (folder / "films" / film).parent.mkdir(parents=True, exist_ok=True)
        write_film(folder / "films" / film, frames=count, key_every=10, size=(64, 48))
        boxes = [[4 + frame % 9, 4, 20, 30] for frame in range(count)]
        people[film] = {"1": {"frames": list(range(count)), "bbox": boxes}}
    (folder / "boxes.json").write_text(json.dumps(people))


def spec_of(folder: Path, out: str, workers: int) -> dict[str, Any]:
    paths = {"root": folder / "films", "out": folder / out, "tracks": folder / "boxes.json"}
    return {"dataset": "video", "split": "test", "workers": workers, **paths}


def extract_while_nodes_go(folder: Path, faults: Faults, losses: Losses, workers: int) -> dict[str, Any]:
    """Extracts the films of the folder on a cluster that loses nodes, and compares the rows; returns what happened."""
    with extracting(Faults(cut=faults.cut)):
        assert main(ExtractSpec(**spec_of(folder, "wanted", 2))) == 0
    happened = run(faults, spec_of(folder, "out", workers), losses, seconds=500)
    assert happened["code"] == 0, happened
    assert_same(folder / "out", folder / "wanted")
    return happened


def notes_in(folder: Path) -> dict[str, Any]:
    (folder / "notes").mkdir()
    return {"notes": str(folder / "notes"), "quick_once": str(folder / "quick")}


@pytest.mark.slow
def test_a_node_that_is_killed_in_mid_video_costs_no_row(tmp_path: Path) -> None:
    write_films(tmp_path, {"a.mp4": 120, "b.mp4": 120, "deep/c.mkv": 120})
    faults = Faults(cut=30, seconds=0.05, **notes_in(tmp_path))
    happened = extract_while_nodes_go(tmp_path, faults, Losses(turns=1, hard=1), workers=2)
    assert len(Plan.read(set_of(tmp_path / "out"))) == 12
    assert 0 < happened["hard"] < 360, "it went in the middle"


@pytest.mark.slow
def test_preemptions_during_one_long_video_cost_no_row_and_features_are_kept(tmp_path: Path) -> None:
    """Most of the nodes go with a notice, and what their workers have done is not done again."""
    frames, unit, losses = 300, 60, Losses(turns=5, hard=5)
    noticed = losses.turns - losses.turns // losses.hard
    write_films(tmp_path, {"long.mp4": frames})
    faults = Faults(cut=unit, seconds=0.1, **notes_in(tmp_path))
    happened = extract_while_nodes_go(tmp_path, faults, losses, workers=1)
    assert len(Plan.read(set_of(tmp_path / "out"))) > 4, "it is cut into units"
    assert happened["kept"] >= noticed // 2
    again = happened["crops"] - frames
    # The last batch of a unit may not be full, and then it is not kept. A worker has run 12 crops before its node goes.
    assert 0 <= again <= happened["hard"] + noticed * (BATCH - 1) < happened["hard"] + noticed * 12
