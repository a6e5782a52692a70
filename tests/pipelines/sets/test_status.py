"""The state of a set, said without touching it."""

from pathlib import Path

import pytest

from pipelines.decoders.clips import Unit
from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED
from pipelines.sets import outcomes as outcomes_module
from pipelines.sets.manifest_entries import PlanUnit, units_of
from pipelines.sets.outcomes import Outcome, OutcomeLog, read_outcomes
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import written_plan
from pipelines.sets.publishing import publish
from pipelines.sets.settings import open_set
from pipelines.sets.status import describe_status
from tests.fixtures.unit_rows import SETTINGS, extract, pack_all


def planned(folder: Path, names: list[str]) -> list[PlanUnit]:
    with written_plan(folder, 0, {}) as plan:
        for number, name in enumerate(names):
            plan.add(Unit(name, name, name, 100, ({"path": name, "bytes": 7},)), number)
    return units_of(Plan.read(folder))


def state_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_running_set_is_described_and_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    assert "nothing is planned yet" in describe_status(folder, Plan.read(folder))
    assert not folder.exists()
    with open_set(folder, SETTINGS):
        planned(folder, [f"{number}.mp4" for number in range(6)])
        log = OutcomeLog(folder, "run")
        clock = iter((1000.0, 1010.0, 1020.0))
        monkeypatch.setattr(outcomes_module.time, "time", lambda: next(clock))
        log.append([Outcome("0000/0.mp4", DONE, frames=100, code="1.0")])
        log.append([Outcome("0000/1.mp4", DAMAGED, skipped=[{"what": "1.mp4", "reason": "no video", "frames": 100}],
                            frames=100, code="1.1")])  # fmt: skip
        log.append([Outcome("0000/2.mp4", DONE, frames=100), Outcome("0000/3.mp4", FAILED,
                    skipped=[{"what": "3.mp4", "reason": "the store is busy", "frames": 100}])])  # fmt: skip
        before = state_of(folder)
        text = describe_status(folder, Plan.read(folder))
        assert state_of(folder) == before
    assert text.splitlines() == [
        f"{folder}: a run is at work",
        "  units: 6 planned, 2 done, 1 damaged, 1 failed, 2 left",
        "  frames: 300 of 600 done (50 %), 0 rows",
        "  rate: 10.0 frames/s in the last 20 s of the run, 30 s for the rest at this rate",
        "  damaged: 1.mp4: no video",
        "  failed: 3.mp4: the store is busy",
        "  not published yet: there is no manifest",
        "  code: 1.0, 1.1",
    ]
    assert "no run of this machine is at work" in describe_status(folder, Plan.read(folder))


def test_a_finished_set_says_what_is_published(tmp_path: Path) -> None:
    with open_set(tmp_path, SETTINGS):
        units = planned(tmp_path, ["a.mp4", "b.mp4"])
        extract(tmp_path, {unit: {"0": (0, 5)} for unit in units})
        publish(tmp_path, SETTINGS, units, read_outcomes(tmp_path), run=lambda t: pack_all(tmp_path, t), if_empty="")
    text = describe_status(tmp_path, Plan.read(tmp_path))
    assert "units: 2 planned, 2 done, 0 damaged, 0 failed, 0 left" in text
    assert "published: 10 rows of 2 tracks in 1 part\n" in text
    extract(tmp_path, {units[0]: {"0": (0, 5)}}, run="again")
    assert "what was done since then is not in it yet" in describe_status(tmp_path, Plan.read(tmp_path))
