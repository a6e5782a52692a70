"""Sets in an object store: the same parts as on a disk, few requests, and a store that fails now and then."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glot.features.schema import read_table
from glot.location import location
from pipelines.decoders.clips import Unit
from pipelines.extraction import packing
from pipelines.extraction.manifest_entries import PlanUnit, units_of
from pipelines.extraction.outcomes import Outcome, OutcomeLog, read_outcomes
from pipelines.extraction.packed import read_packed
from pipelines.extraction.plan import Plan
from pipelines.extraction.plan_file import written_plan
from pipelines.extraction.publishing import lost_units, publish
from pipelines.extraction.settings import list_set
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
    monkeypatch.setattr("glot.people.retries.FIRST_WAIT", 0.01)
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
