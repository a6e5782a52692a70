"""Extraction whose videos, boxes and set are in a store that fails 5 % of its requests, or is down for a while."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glot.cli import NOT_FINISHED
from glot.features.schema import read_manifest, read_table
from glot.location import location
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.plan import Plan
from tests.fixtures.faults import Faults, begun, command, own_ray, wait_for
from tests.fixtures.video import write_film
from tests.pipelines.extraction.test_extract_faults import FRAMES, set_of, write_boxes

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore, Request

FILMS = [f"v{number:02d}.mp4" for number in range(12)]
PLANNING, RUNNING, PUBLISHING = "planning", "running", "publishing"


@pytest.fixture(scope="module")
def ray(flaky_store: "FlakyStore") -> Iterator[str]:
    """The address of a Ray whose processes know the store."""
    with own_ray() as (address, _):
        yield address


@pytest.fixture(scope="module")
def undisturbed(ray: str, flaky_store: "FlakyStore", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of an extraction from folders; the same videos and boxes are in the store as well."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "films").mkdir()
    for number, film in enumerate(FILMS):
        write_film(folder / "films" / film, frames=FRAMES, key_every=7 + number % 5, size=(64, 48))
    write_boxes(folder / "boxes.json", FILMS)
    store: Any = location(f"{flaky_store.uri}/sources")
    store.fs.put(str(folder / "films") + "/", f"{store.path}/films/", recursive=True)
    store.fs.put(str(folder / "boxes.json"), f"{store.path}/boxes.json")
    code, printed = extract(ray, folder, folder / "features", Faults())
    assert code == 0, printed
    return folder / "features"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Folder in which workers note the units that they begin."""
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def place(flaky_store: "FlakyStore") -> Path:
    """Where the store has the videos and boxes."""
    return location(f"{flaky_store.uri}/sources")


@pytest.fixture
def out(flaky_store: "FlakyStore", tmp_path: Path) -> Path:
    """A folder in the store that no other test uses."""
    return location(f"{flaky_store.uri}/{tmp_path.name}")


def extract(ray: str, place: Path, out: Path, faults: Faults) -> tuple[int, str]:
    """The exit code of the command and what it prints."""
    options = ["--dataset", "video", "--root", place / "films", "--tracks", place / "boxes.json", "--out", out]
    process = command(faults, [str(option) for option in (*options, "--workers", 2)], address=ray)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def extract_until_finished(ray: str, place: Path, out: Path, faults: Faults) -> list[int]:
    """Runs the command until it does not end with 75, at most three times; returns its exit codes."""
    codes = []
    for _ in range(3):
        code, printed = extract(ray, place, out, faults)
        print(printed)
        codes.append(code)
        if code != NOT_FINISHED:
            break
    return codes


def assert_same_rows(out: Path, wanted: Path) -> None:
    """The rows are those of the other set, nothing is skipped and nothing is damaged."""
    found, expected = set_of(out), set_of(wanted)
    assert read_table(found).equals(read_table(expected))
    assert not read_manifest(found).skipped
    outcomes = read_outcomes(found)
    assert len(outcomes) == len(Plan.read(found)) == len(Plan.read(expected))
    assert {outcome.kind for outcome in outcomes.values()} == {DONE}


def phases_of_faults(requests: Sequence["Request"], first_unit: int) -> Counter[str]:
    """How many requests met a fault in each phase; request ``first_unit`` is the first after a worker began."""
    published = [place for place, request in enumerate(requests) if "part-" in request.path and request.method == "PUT"]
    last = published[0] if published else len(requests)
    return Counter(
        PLANNING if place < first_unit else RUNNING if place < last else PUBLISHING
        for place, request in enumerate(requests)
        if request.fault
    )


@pytest.mark.slow
def test_a_store_that_fails_5_percent_of_its_requests_costs_no_row(
    ray: str, undisturbed: Path, flaky_store: "FlakyStore", place: Path, out: Path, notes: Path
) -> None:
    counted, finished = list[int](), threading.Event()
    with flaky_store.counted() as requests:

        def count() -> None:
            wait_for(lambda: begun(notes) or finished.is_set(), seconds=300)
            counted.append(len(requests))

        counter = threading.Thread(target=count)
        counter.start()
        with flaky_store.failing(0.05, seed=5):
            codes = extract_until_finished(ray, place, out, Faults(notes=str(notes)))
        finished.set()
        counter.join()
    faults = phases_of_faults(requests, counted[0])
    print(f"{len(requests)} requests, faults: {dict(faults)}, exit codes: {codes}")
    assert codes[-1] == 0
    assert_same_rows(out, undisturbed)
    assert sum(faults.values()) > 10
    assert faults[PLANNING] and faults[RUNNING]


@pytest.mark.slow
def test_a_store_that_is_down_for_a_while_costs_no_row(
    ray: str, undisturbed: Path, flaky_store: "FlakyStore", place: Path, out: Path, notes: Path
) -> None:
    def go_down() -> None:
        wait_for(lambda: len(begun(notes)) > 5)
        with flaky_store.failing(1.0):
            time.sleep(5)

    with flaky_store.counted() as requests:
        outage = threading.Thread(target=go_down)
        outage.start()
        codes = extract_until_finished(ray, place, out, Faults(seconds=0.02, notes=str(notes)))
        outage.join()
    refused = sum(bool(request.fault) for request in requests)
    print(f"{refused} of {len(requests)} requests failed, exit codes: {codes}")
    assert codes[-1] == 0
    assert refused > 5
    assert_same_rows(out, undisturbed)
