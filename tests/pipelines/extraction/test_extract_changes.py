"""Sources that come, go and change, between runs and while one is at work: exactly the difference is done."""

import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pytest
import torch

from glot.cli import NOT_FINISHED
from glot.errors import InputError
from glot.features.schema import MANIFEST, read_manifest, read_table
from glot.human.body import load_body
from glot.location import is_remote, location
from pipelines.decoders.clips import Unit
from pipelines.extraction import units
from pipelines.extraction.spec import ExtractSpec
from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.plan import Plan
from pipelines.sets.settings import list_set
from tests.fixtures.faults import Faults, begun, command, own_ray, wait_for
from tests.fixtures.video import write_film, write_video

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore

torch.set_num_threads(1)
VIDEOS = 100
NAMES = [f"v{number:03d}.mp4" for number in range(VIDEOS)]
SIZE = (64, 48)


@pytest.fixture(scope="module")
def ray(flaky_store: "FlakyStore") -> Iterator[str]:
    """The address of a Ray whose processes know the store."""
    with own_ray() as (address, _):
        yield address


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, flaky_store: "FlakyStore") -> Path:
    """A place for sources and sets: a folder, or an empty one in a store."""
    return tmp_path / "place" if request.param == "folder" else location(f"{flaky_store.uri}/{tmp_path.name}")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def extract(ray: str, root: Path, out: Path, faults: Faults, *options: Any) -> tuple[int, str]:
    """The exit code of the command and what it prints."""
    line = ["--dataset", "video", "--root", root, "--out", out, "--workers", "2", *options]
    process = command(faults, [str(option) for option in line], address=ray)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def put(root: Path, contents: dict[str, bytes]) -> None:
    """Writes files; a file of a folder is replaced by another one, as by ``mv``."""
    if is_remote(root):
        place: Any = root
        place.fs.pipe({f"{place.path}/{name}": content for name, content in contents.items()})
        return
    root.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (root / ".new").write_bytes(content)
        os.replace(root / ".new", root / name)


def boxes_of(videos: list[str], frames: int = 8) -> bytes:
    boxes = {"1": {"frames": list(range(frames)), "bbox": [[4, 4, 20, 30]] * frames}}
    return json.dumps(dict.fromkeys(videos, boxes)).encode()


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Within it, a file gets longer and longer."""
    content, ended = path.read_bytes(), threading.Event()

    def grow() -> None:
        grown = content
        while not ended.wait(0.2):
            grown += bytes(8)
            path.write_bytes(grown)

    grower = threading.Thread(target=grow)
    grower.start()
    try:
        yield
    finally:
        ended.set()
        grower.join()


def rows_of(folder: Path) -> pa.Table:
    return read_table(folder).sort_by([("track_id", "ascending"), ("frame_index", "ascending")])


def video_of(id: str) -> str:
    """The name of the video of a unit, by the unit's id."""
    return id.partition("/")[2].partition("@")[0]


@pytest.mark.slow
def test_exactly_the_difference_is_done(
    ray: str, place: Path, tmp_path: Path, notes: Path, flaky_store: "FlakyStore"
) -> None:
    root, tracks, out = place / "films", place / "boxes.json", place / "out"
    folder, faults = out / "video" / "test", Faults(notes=str(notes))
    video = write_film(tmp_path / "one.mp4", frames=8, size=SIZE).read_bytes()
    put(root, {**dict.fromkeys(NAMES, video), "damaged.mp4": video[:400], "growing.mp4": video})
    put(place, {"boxes.json": boxes_of([*NAMES, "damaged.mp4", "growing.mp4"])})
    with growing(root / "growing.mp4"):
        code, printed = extract(ray, root, out, faults, "--tracks", tracks, "--allow-skips")
    assert code == 0, printed
    before = read_outcomes(folder)
    assert Counter(outcome.kind for outcome in before.values()) == {DONE: VIDEOS, DAMAGED: 1, FAILED: 1}
    assert before["0000/damaged.mp4"].kind == DAMAGED and before["0000/growing.mp4"].kind == FAILED
    first = Counter(begun(notes))
    assert read_manifest(folder).rows == 8 * VIDEOS and set(first.values()) == {1} and len(first) == VIDEOS + 2

    new, gone, replaced = [f"w{number}.mp4" for number in range(5)], NAMES[3], NAMES[7]
    other = write_film(tmp_path / "other.mp4", frames=12, size=SIZE).read_bytes()
    put(root, {**dict.fromkeys(new, video), replaced: other})
    (root / gone).unlink()
    put(place, {"boxes.json": boxes_of([*NAMES, *new, "damaged.mp4", "growing.mp4"])})
    code, printed = extract(ray, root, out, faults, "--tracks", tracks)
    assert code == 1 and f"5 new, 2 changed, 1 gone, {VIDEOS - 1} as before" in printed, printed
    done = {*new, replaced, "growing.mp4"}
    assert Counter(begun(notes)) - first == Counter(quote(f"test 0001/{name}", safe="") for name in done)
    outcomes = read_outcomes(folder)
    assert {id for id in outcomes if id not in before} == {f"0001/{name}" for name in done}
    assert all(outcomes[id] == before[id] for id in outcomes.keys() & before.keys())
    images = Counter(image.partition("#")[0] for image in rows_of(folder)["image"].to_pylist())
    assert images == dict.fromkeys([*(set(NAMES) - {gone}), *new, "growing.mp4"], 8)
    assert [entry["what"] for entry in read_manifest(folder).skipped] == ["damaged.mp4"]

    with flaky_store.counted() as requests:
        assert extract(ray, root, out, faults, "--tracks", tracks)[0] == 1
    asked = [f"{request.method} {request.path}" for request in requests]
    print(f"{len(asked)} requests of a run that has nothing to do:", *asked, sep="\n")
    assert len(asked) <= (30 if is_remote(place) else 0)
    assert not [request for request in asked if ".mp4" in request], "no video is opened"
    assert len(begun(notes)) == VIDEOS + 2 + len(done), "nothing is left"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["store"], indirect=True)
def test_a_source_that_changes_during_the_run_is_not_done_now_and_no_damage(
    ray: str, place: Path, tmp_path: Path, notes: Path
) -> None:
    root, out = place / "films", place / "out"
    folder = out / "video" / "test"
    film = write_video(tmp_path / "a.avi", frames=60, size=(192, 144), codec="rawvideo").read_bytes()
    longer = write_video(tmp_path / "b.avi", frames=70, size=(192, 144), codec="rawvideo").read_bytes()
    middle = len(film) // 2
    replaced = film[:middle] + bytes(255 - value for value in film[middle : middle + 100]) + film[middle + 100 :]
    put(root, dict.fromkeys(("a.avi", "grows.avi", "is-replaced.avi", "goes.avi"), film))
    # Sources in a store are streamed, as long ones are.
    faults = Faults(notes=str(notes), seconds=0.05, environment={"GLOT_SOURCE_CACHE_BYTES": "0"})

    def change() -> None:
        wait_for(lambda: begun(notes))
        (root / "grows.avi").write_bytes(longer)
        put(root, {"is-replaced.avi": replaced})
        (root / "goes.avi").unlink()

    changer = threading.Thread(target=change)
    changer.start()
    code, printed = extract(ray, root, out, faults, "--batch-size", "2")
    changer.join()
    kinds = {id: outcome.kind for id, outcome in read_outcomes(folder).items()}
    assert {id: DONE if video_of(id) == "a.avi" else FAILED for id in kinds} == kinds
    assert set(map(video_of, kinds)) == {"a.avi", "grows.avi", "is-replaced.avi", "goes.avi"}
    assert code == NOT_FINISHED and not (folder / MANIFEST).exists(), printed
    assert all("a.avi" in name for name in list_set(folder) if "/units/" in name), "nothing of the others is kept"
    first = Counter(begun(notes))
    assert first == Counter(quote(f"test {id}", safe="") for id in kinds), "none is tried again in vain"
    reasons = {outcome.skipped[0]["reason"] for outcome in read_outcomes(folder).values() if outcome.skipped}
    assert all("changed while it was" in reason or "changed since it was listed" in reason for reason in reasons)

    code, printed = extract(ray, root, out, replace(faults, seconds=0.0))
    assert code == 0 and "2 changed, 1 gone, 1 as before" in printed, printed
    second = Counter(begun(notes)) - first
    assert {video_of(unquote(key)) for key in second} == {"grows.avi", "is-replaced.avi"} and set(second.values()) == {
        1
    }
    assert len(Plan.read(folder)) == len(read_outcomes(folder)) and not read_manifest(folder).skipped
    assert extract(ray, root, tmp_path / "wanted", Faults())[0] == 0
    wanted = rows_of(tmp_path / "wanted" / "video" / "test")
    assert len(wanted) == 60 + 70 + 60 and rows_of(folder).equals(wanted)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOENT, InputError), (errno.ESTALE, OSError)])
def test_only_what_a_file_of_the_unit_is_guilty_of_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    """Other errors, such as that of a folder for rows that is gone, are raised as they are."""

    def fail(*_: Any) -> Any:
        raise OSError(code, os.strerror(code), "labels.json")

    monkeypatch.setattr(units, "_decoded", fail)
    spec: Any = ExtractSpec(dataset="video", root=tmp_path, out=tmp_path / "out")
    job = units.SplitJob(spec, "test", {})
    tools = units.Tools(lambda crops: pytest.fail("no crop"), load_body(None))
    with pytest.raises(error, match="labels.json") as raised:
        units.OpenUnit(job, "", Unit("walk", "labels.json", "walk", 3, ()), tools)
    assert raised.type is error
