"""Sets that earlier code made are continued: what has not changed is taken over, everything else is done again.

The stored sets were written by the code of commit b4bf017, with features of 4 numbers.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.features.schema import read_manifest, read_table
from pipelines.decoders.video_dataset import video_decoder
from pipelines.jobs.bookkeeper import DAMAGED, DONE
from pipelines.sets.earlier_sets import continue_earlier
from pipelines.sets.manifest_entries import PlanUnit, units_of
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.plan import Plan
from pipelines.sets.planning import in_turn, update_plan
from pipelines.sets.publishing import lost_units, publish
from pipelines.sets.settings import RECORDS, list_set, open_set
from tests.fixtures.interruptions import Interrupted, interrupted_at
from tests.fixtures.places import ROOT
from tests.fixtures.unit_rows import SETTINGS, extract, pack_all

STORED = ROOT / "tests" / "fixtures" / "earlier_sets"
SETTINGS_THEN = {**SETTINGS, "split": "test"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of the sizes that the records name. None is opened."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, size in (("jump.mp4", 4), ("run.mp4", 5), ("walk.mp4", 6)):
        (folder / name).write_bytes(b"v" * size)
    return folder


def stored(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / name, tmp_path / name))


def start(folder: Path, root: Path, tracks: Path | None = None) -> tuple[Plan, Any]:
    """What a run does first."""
    decoder = video_decoder(tracks)
    with open_set(folder, SETTINGS_THEN):
        continue_earlier(folder, decoder, root, "test", list_set(folder))
        return update_plan(folder, Plan.read(folder), decoder, root, "test", run=in_turn(decoder, root))


def finish(folder: Path, units: list[PlanUnit]) -> Any:
    return publish(
        folder, SETTINGS_THEN, units, read_outcomes(folder), run=lambda tasks: pack_all(folder, tasks), if_empty=""
    )


def test_a_finished_set_stays_as_it_is(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stored("finished", tmp_path)
    before, rows = read_manifest(folder), read_table(folder)
    plan, difference = start(folder, root)
    assert not difference and difference.same == 3
    outcomes = read_outcomes(folder)
    assert {id: outcome.kind for id, outcome in outcomes.items()} == {
        "0000/jump.mp4": DAMAGED, "0000/run.mp4": DONE, "0000/walk.mp4": DONE,
    }  # fmt: skip
    assert not lost_units(folder, outcomes)
    said = capsys.readouterr().out
    assert "3 of 3 sources are taken over" in said
    assert "earlier code skipped 1 of them, perhaps by a fault that passed; --retry-skipped tries them again" in said
    manifest = finish(folder, units_of(plan))
    assert replace(manifest, schema_version=before.schema_version) == before
    assert read_table(folder).equals(rows)
    assert not list((folder / RECORDS).glob("*.mp4.json"))
    again, difference = start(folder, root)
    assert not difference and again.ids == plan.ids


def test_new_and_changed_sources_are_the_difference(tmp_path: Path, root: Path) -> None:
    folder = stored("finished", tmp_path)
    (root / "swim.mp4").write_bytes(b"new")
    (root / "run.mp4").write_bytes(b"another video")
    (root / "jump.mp4").unlink()
    plan, difference = start(folder, root)
    assert (len(difference.new) + len(difference.changed), difference.same) == (2, 1)
    outcomes = read_outcomes(folder)
    missing = [unit for unit in units_of(plan) if unit.id not in outcomes]
    assert sorted(unit.source for unit in missing) == ["run.mp4", "swim.mp4"]
    extract(folder, {unit: {"0": (0, 3)} for unit in missing})
    manifest = finish(folder, units_of(plan))
    assert [part["name"] for part in manifest.parts] == ["part-walk.mp4.parquet", "part-0000-00000.parquet"]
    assert not (folder / "part-run.mp4.parquet").exists()
    assert manifest.rows == 6 + 3 + 3 == len(read_table(folder))
    assert manifest.code_version == "0.1.0, 1.0"


def test_an_unfinished_set_with_boxes_goes_on(tmp_path: Path, root: Path) -> None:
    (root / "jump.mp4").unlink()
    boxes = Path(shutil.copy(STORED / "boxes.json", tmp_path))
    folder = stored("unfinished", tmp_path)
    plan, difference = start(folder, root, boxes)
    assert not difference and len(plan) == 2
    (root / "jump.mp4").write_bytes(b"jump")
    everything = json.loads(boxes.read_text())
    everything["jump.mp4"] = everything["walk.mp4"]
    boxes.write_text(json.dumps(everything))
    _, difference = start(folder, root, boxes)
    assert (len(difference.new), len(difference.changed), difference.same) == (1, 0, 2)


def test_other_boxes_in_a_shared_file_do_the_sources_again(tmp_path: Path, root: Path) -> None:
    (root / "jump.mp4").unlink()
    boxes = Path(shutil.copy(STORED / "boxes.json", tmp_path))
    boxes.write_text(boxes.read_text().replace("6, 6", "7, 7"))  # of the same size
    folder = stored("unfinished", tmp_path)
    _, difference = start(folder, root, boxes)
    assert len(difference.new) == 2


def test_what_is_lost_or_not_readable_is_done_again(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored("finished", tmp_path)
    (folder / "part-run.mp4.parquet").write_bytes(b"half")
    (folder / RECORDS / "walk.mp4.json").write_text("{half")
    _, difference = start(folder, root)
    assert len(difference.new) == 2 and difference.same == 1
    said = capsys.readouterr().out
    assert "walk.mp4.json: not readable; this source is extracted again" in said
    assert "1 of 2 sources are taken over, 1 have changed or have no rows any more and are done again" in said


def test_other_settings_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = stored("finished", tmp_path)
    other = {**SETTINGS_THEN, "crop": {"size": 224, "scale": 1.3}}
    wanted = "started with crop scale 1.2, but this command has scale 1.3; give another"
    with pytest.raises(InputError, match=wanted), open_set(folder, other):
        pass


def test_taking_over_may_be_interrupted(tmp_path: Path, root: Path) -> None:
    number = 0
    ended = False
    while not ended:
        number += 1
        folder = Path(shutil.copytree(STORED / "finished", tmp_path / f"{number}"))
        with suppress(Interrupted), interrupted_at(number):
            start(folder, root)
            ended = True
        plan, difference = start(folder, root)
        assert not difference and len(plan) == 3, number
        assert finish(folder, units_of(plan)).rows == 11
    assert number > 4
