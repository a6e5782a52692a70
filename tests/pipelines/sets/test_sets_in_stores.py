"""Sets in an object store: the same parts as on a disk, few requests, and a store that fails now and then."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glot.features.schema import read_table
from glot.location import location
from pipelines.decoders.clips import Unit
from pipelines.decoders.video_dataset import VIDEO
from pipelines.sets import packing
from pipelines.sets.earlier_sets import continue_earlier
from pipelines.sets.manifest_entries import PlanUnit, units_of
from pipelines.sets.outcomes import Outcome, OutcomeLog, read_outcomes
from pipelines.sets.packed import read_packed
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import written_plan
from pipelines.sets.planning import in_turn, update_plan
from pipelines.sets.publishing import lost_units, publish
from pipelines.sets.settings import RECORDS, list_set, open_set
from pipelines.sets.status import describe_status
from tests.fixtures.places import ROOT
from tests.fixtures.unit_rows import FEATURES, SETTINGS, extract, pack_all, unit

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore

WORK = {
    unit("walk.mp4", 0): {"a": (0, 5), "b": (2, 6)},
    unit("walk.mp4", 10): {"b": (0, 3), "a": (0, 4)},
    unit("run.mp4"): {"a": (0, 7)},
}
LATER = {
    **{key: people for key, people in WORK.items() if key.source == "walk.mp4"},
    unit("jump.mp4", generation=1): {"a": (0, 7)},
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_BYTES", 12 * 4 * FEATURES)


def make(folder: Path) -> Any:
    """Extracts and publishes WORK, then LATER."""
    finish(folder, WORK, extract(folder, WORK))
    new = {key: people for key, people in LATER.items() if key not in WORK}
    return finish(folder, LATER, extract(folder, new, run="later"))


def finish(folder: Path, work: Any, _: Any = None) -> Any:
    units = list(work)
    return publish(
        folder, SETTINGS, units, read_outcomes(folder), run=lambda tasks: pack_all(folder, tasks), if_empty=""
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_set(folder)}


def test_a_set_in_a_store_is_the_one_on_a_disk(flaky_store: "FlakyStore", tmp_path: Path) -> None:
    folder = location(f"{flaky_store.uri}/same")
    assert make(folder) == make(tmp_path)
    assert contents(folder) == contents(tmp_path)
    assert read_table(folder).equals(read_table(tmp_path))


def test_a_store_that_fails_now_and_then_changes_nothing(
    flaky_store: "FlakyStore", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glot.retries.FIRST_WAIT", 0.01)
    make(tmp_path)
    with flaky_store.quick_clients():
        folder = location(f"{flaky_store.uri}/failing")
        with flaky_store.failing(0.2, seed=1), flaky_store.counted() as requests:
            make(folder)
        assert sum(bool(request.fault) for request in requests) > 3
        assert contents(folder) == contents(tmp_path)


def test_each_batch_of_outcomes_is_an_object(flaky_store: "FlakyStore") -> None:
    folder = location(f"{flaky_store.uri}/log")
    for _ in range(2):  # the second log is that of a bookkeeper that was started again
        log = OutcomeLog(folder, "run")
        log.append([Outcome(f"0000/{log.number}", "done")])
        log.append([Outcome(f"0000/{log.number}", "done")])
        log.close()
    assert sorted(list_set(folder)) == [f".extraction/outcomes/run-{number:05d}.jsonl" for number in range(4)]
    assert sorted(read_outcomes(folder)) == [f"0000/{number}" for number in range(4)]


def test_a_rerun_with_nothing_to_do_asks_a_store_five_times(flaky_store: "FlakyStore") -> None:
    folder = location(f"{flaky_store.uri}/rerun")
    names = [f"{number:04d}.mp4" for number in range(300)]
    with written_plan(folder, 0, {}) as plan:
        for number, name in enumerate(names):
            plan.add(Unit(name, name, name, 10, ({"path": name, "bytes": 7},)), number)
    units = units_of(Plan.read(folder))
    done = [Outcome(one.id, "done", frames=10) for one in units[1:]]
    OutcomeLog(folder, "run").append(done)
    extract(folder, {units[0]: {"a": (0, 5)}}, run="one")
    finish(folder, units)
    with flaky_store.counted() as requests:
        assert rerun(folder) == 300
    assert [request.method for request in requests] == ["GET"] * 5, requests


def rerun(folder: Path) -> int:
    files = list_set(folder)
    units: list[PlanUnit] = units_of(Plan.read(folder, files))
    outcomes = read_outcomes(folder, files)
    packed = read_packed(folder, files)
    assert not lost_units(folder, outcomes, files, packed)
    publish(folder, SETTINGS, units, outcomes, run=lambda _: [], if_empty="", files=files, packed=packed)
    return len(outcomes)


def test_the_status_of_a_set_in_a_store_is_read_with_few_requests(flaky_store: "FlakyStore") -> None:
    folder = location(f"{flaky_store.uri}/status")
    with open_set(folder, SETTINGS):
        with written_plan(folder, 0, {}) as plan:
            plan.add(Unit("a.mp4", "a.mp4", "a.mp4", 10, ({"path": "a.mp4", "bytes": 7},)), 0)
        (one,) = units_of(Plan.read(folder))
        extract(folder, {one: {"a": (0, 5)}})
        with flaky_store.counted() as requests:
            text = describe_status(folder, Plan.read(folder))
        assert {request.method for request in requests} == {"GET"} and len(requests) < 8
        assert f"a run is at work on {socket.gethostname()} (process {os.getpid()}), or was killed there" in text
        finish(folder, [one])
    text = describe_status(folder, Plan.read(folder))
    assert "no run is at work" in text and "published: 5 rows of 1 tracks in 1 part" in text


def test_a_set_of_earlier_code_in_a_store_is_continued(flaky_store: "FlakyStore", tmp_path: Path) -> None:
    folder = location(f"{flaky_store.uri}/earlier")
    stored = ROOT / "tests" / "fixtures" / "earlier_sets" / "finished"
    for name in list_set(stored):
        (folder / name).write_bytes((stored / name).read_bytes())
    (folder / RECORDS / "lock").unlink()
    for name, size in (("jump.mp4", 4), ("run.mp4", 5), ("walk.mp4", 6)):
        (tmp_path / name).write_bytes(b"v" * size)
    settings = {**SETTINGS, "split": "test"}
    with open_set(folder, settings):
        assert continue_earlier(folder, VIDEO, tmp_path, "test", list_set(folder))
        plan, difference = update_plan(folder, Plan.read(folder), VIDEO, tmp_path, "test", run=in_turn(VIDEO, tmp_path))
        assert not difference and difference.same == 3
        publish(folder, settings, units_of(plan), read_outcomes(folder), run=lambda _: [], if_empty="")
    assert read_table(folder).equals(read_table(stored))
    assert not [name for name in list_set(folder) if name.endswith(".mp4.json")]
