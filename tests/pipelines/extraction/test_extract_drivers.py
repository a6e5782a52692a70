"""Drivers that are killed in mid-video, and two drivers that write the same set, in a folder and in a store."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glot.features.schema import MANIFEST
from glot.location import location
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.plan import Plan
from tests.fixtures.faults import Faults, begun, command, own_ray, wait_for
from tests.fixtures.video import write_film
from tests.pipelines.extraction.test_extract_faults import FILMS, FRAMES, assert_same, set_of, write_boxes

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore

ERROR_OF_USE = 2
BUSY = "another extraction is writing it"


@pytest.fixture(scope="module")
def ray(flaky_store: "FlakyStore") -> Iterator[str]:
    """The address of a Ray whose processes know the store, and which outlives drivers."""
    with own_ray() as (address, _):
        yield address


@pytest.fixture(scope="module")
def undisturbed(ray: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, out) of an extraction without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for number, film in enumerate(FILMS):
        (folder / "films" / film).parent.mkdir(parents=True, exist_ok=True)
        write_film(folder / "films" / film, frames=FRAMES, key_every=7 + number, size=(64, 48))
    write_boxes(folder / "boxes.json", FILMS)
    code, printed = ended(start(ray, folder / "films", folder / "features", Faults()))
    assert code == 0, printed
    return folder / "films", folder / "features"


@pytest.fixture(params=["folder", "store"])
def out(request: pytest.FixtureRequest, tmp_path: Path, flaky_store: "FlakyStore") -> Path:
    return tmp_path / "out" if request.param == "folder" else location(f"{flaky_store.uri}/{tmp_path.name}")


@pytest.fixture
def slow(tmp_path: Path) -> Faults:
    """A network that is slow enough for a driver to be killed in between."""
    (tmp_path / "notes").mkdir()
    return Faults(seconds=0.05, notes=str(tmp_path / "notes"))


def start(ray: str, root: Path, out: Path, faults: Faults) -> "subprocess.Popen[str]":
    options = ["--dataset", "video", "--root", root, "--out", out, "--tracks", root.parent / "boxes.json"]
    return command(faults, [str(option) for option in (*options, "--workers", 2)], address=ray)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code of the command and what it printed."""
    printed, _ = process.communicate(timeout=200)
    return process.returncode, printed


def wait_until_some_are_done(out: Path, faults: Faults) -> None:
    """Waits until outcomes are written, while other units are at work."""
    wait_for(lambda: len(begun(Path(faults.notes))) > 3)
    wait_for(lambda: read_outcomes(set_of(out)))


def kill(driver: "subprocess.Popen[str]", out: Path) -> set[str]:
    """Kills the driver, not the workers; returns the units whose outcomes are written."""
    assert driver.poll() is None, ended(driver)
    driver.kill()
    driver.wait()
    done = {id for id, outcome in read_outcomes(set_of(out)).items() if outcome.kind == DONE}
    assert 0 < len(done) < len(Plan.read(set_of(out))), "the driver was killed in the middle"
    assert not (set_of(out) / MANIFEST).exists()
    return done


@pytest.mark.slow
def test_of_two_drivers_one_is_refused_and_when_the_other_is_killed_the_next_goes_on(
    ray: str, undisturbed: tuple[Path, Path], out: Path, slow: Faults
) -> None:
    root, wanted = undisturbed
    drivers = [start(ray, root, out, slow) for _ in range(2)]
    wait_for(lambda: any(driver.poll() is not None for driver in drivers))
    refused, first = sorted(drivers, key=lambda driver: driver.poll() is None)
    code, printed = ended(refused)
    assert code == ERROR_OF_USE and "Traceback" not in printed, printed
    assert sum(BUSY in line for line in printed.splitlines()) == 1, printed
    wait_until_some_are_done(out, slow)
    done = kill(first, out)
    code, printed = ended(start(ray, root, out, slow))
    assert code == 0, printed
    assert_same(out, wanted)
    assert [id for id in done if len(begun(Path(slow.notes), id)) != 1] == [], "what is done is done once"
