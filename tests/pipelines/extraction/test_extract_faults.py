"""Extraction under faults, with units in mid-video: killed workers and books, crashes, a full disk, failing reads."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glot.cli import NOT_FINISHED
from glot.errors import InputError
from glot.features.schema import MANIFEST, read_manifest, read_table
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.plan import Plan
from pipelines.sets.settings import RECORDS
from tests.fixtures.faults import BOOKKEEPER, WORKER, Faults, begun, extracting, processes, wait_for
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.video import write_film

torch.set_num_threads(1)
FILMS, FRAMES = ("a.mp4", "b.mp4", "deep/c.mkv"), 110
SLOW = Faults(seconds=0.02)


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """For all tests of this module."""


def write_boxes(file: Path, videos: Sequence[str]) -> None:
    """Two people in each video, one from its start and one from frame 25 to 84, so that tracks cross units."""

    def boxes(first: int, last: int) -> dict[str, Any]:
        frames = list(range(first, last))
        return {"frames": frames, "bbox": [[4 + frame % 9, 4, 20, 30] for frame in frames]}

    people = {video: {"1": boxes(0, FRAMES), "2": boxes(25, 85)} for video in videos}
    file.write_text(json.dumps(people))


def extract(root: Path, out: Path, faults: Faults = SLOW, **options: Any) -> int:
    with extracting(faults):
        tracks = root.parent / "boxes.json"
        return main(ExtractSpec(dataset="video", root=root, out=out, tracks=tracks, workers=2, **options))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, out) of an extraction without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for number, film in enumerate(FILMS):
        (folder / "films" / film).parent.mkdir(parents=True, exist_ok=True)
        write_film(folder / "films" / film, frames=FRAMES, key_every=7 + number, size=(64, 48))
    write_boxes(folder / "boxes.json", FILMS)
    assert extract(folder / "films", folder / "features", Faults()) == 0
    return folder / "films", folder / "features"


def extract_while_killing(title: str, root: Path, out: Path, notes: Path, *, at_once: int) -> None:
    """Kills three processes with this title, of which at most ``at_once`` run, while units are at work.

    The extraction must succeed all the same.
    """
    killed: list[int] = []
    notes.mkdir()

    def kill() -> None:
        for number in range(1, 4):
            wait_for(lambda: len(begun(notes)) > 3 * number)  # noqa: B023
            found = wait_for(lambda: [process for process in processes(title) if process not in killed])
            assert len(found) <= at_once
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    killer = threading.Thread(target=kill)
    killer.start()
    assert extract(root, out, replace(SLOW, notes=str(notes))) == 0
    killer.join()
    assert len(set(killed)) == 3


def set_of(out: Path, dataset: str = "video") -> Path:
    return out / dataset / "test"


def assert_same(out: Path, wanted: Path, dataset: str = "video") -> None:
    found, expected = set_of(out, dataset), set_of(wanted, dataset)
    assert read_table(found).equals(read_table(expected))
    ours, theirs = vars(read_manifest(found)), vars(read_manifest(expected))
    assert ours == theirs
    assert not read_manifest(found).skipped
    assert {path.name for path in found.glob("*part*")} == {part["name"] for part in read_manifest(found).parts}
    assert all(outcome.kind == DONE for outcome in read_outcomes(found).values())


def test_units_are_in_mid_video(undisturbed: tuple[Path, Path]) -> None:
    plan = Plan.read(set_of(undisturbed[1]))
    assert len(plan) >= 12 and len(set(plan.names)) == len(FILMS)


def test_killed_workers_cost_no_row(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    root, wanted = undisturbed
    extract_while_killing(WORKER, root, tmp_path / "out", tmp_path / "notes", at_once=2)
    assert_same(tmp_path / "out", wanted)


def test_a_unit_whose_workers_are_killed_fails_alone_and_is_done_by_the_next_run(
    undisturbed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, wanted = undisturbed
    notes = tmp_path / "notes"
    notes.mkdir()
    faults = Faults(notes=str(notes), killed="b.mp4@", kills=3)
    unit = [id for id in Plan.read(set_of(wanted)).ids if "b.mp4@" in id][1]
    faults = replace(faults, killed=unit)
    assert extract(root, tmp_path / "out", faults) == NOT_FINISHED
    assert len(begun(notes, unit)) == 3
    folder = set_of(tmp_path / "out")
    outcomes = read_outcomes(folder)
    assert {id: outcome.kind for id, outcome in outcomes.items() if outcome.kind != DONE} == {unit: FAILED}
    assert len(outcomes) == len(Plan.read(folder)) and not (folder / MANIFEST).exists()
    printed = capsys.readouterr().out
    assert "was killed 3 times" in printed and "too little memory" in printed and "mistake in our code" not in printed
    before = len(begun(notes))
    assert extract(root, tmp_path / "out", replace(faults, killed="")) == 0
    assert begun(notes)[before:] and len(begun(notes)) == before + 1, "only this unit is done"
    assert_same(tmp_path / "out", wanted)


def test_a_picture_that_crashes_its_decoder_is_damage_and_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, notes = tmp_path / "3dpw", tmp_path / "notes"
    notes.mkdir()
    for seed in range(3):
        write_sequence(root, f"walk_{seed:02d}", frames=4, seed=seed)
    picture = root / "imageFiles" / "walk_01" / "image_00002.jpg"
    sound = picture.read_bytes()
    picture.write_bytes(sound + b"CRASHES-THE-DECODER" + sound[-2:])
    status = picture.stat()
    faults = Faults(notes=str(notes), crashing="CRASHES-THE-DECODER")

    def run(faults: Faults, **options: Any) -> int:
        with extracting(faults):
            return main(ExtractSpec(dataset="3dpw", root=root, out=tmp_path / "out", split="test", **options))

    assert run(faults) == 1
    assert "its decoder crashes (SIGSEGV)" in capsys.readouterr().out
    folder = set_of(tmp_path / "out", "3dpw")
    assert {id: outcome.kind for id, outcome in read_outcomes(folder).items()} == {
        "0000/walk_00": DONE, "0000/walk_01": DAMAGED, "0000/walk_02": DONE,
    }  # fmt: skip
    assert [entry["frames"] for entry in read_manifest(folder).skipped] == [4]
    before = len(begun(notes))
    assert run(faults) == 1
    assert len(begun(notes)) == before
    picture.write_bytes(sound + sound[-2:].rjust(status.st_size - len(sound), b"\0"))
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))  # such a change is seen by nobody
    assert run(faults, retry_skipped=True) == 0
    assert len(begun(notes)) == before + 1 and not read_manifest(folder).skipped
    assert read_manifest(folder).rows == 24


@pytest.mark.parametrize("dataset", ["video", "3dpw"])
def test_reads_that_fail_for_a_while_set_nothing_aside(
    undisturbed: tuple[Path, Path], tmp_path: Path, dataset: str
) -> None:
    outage = tmp_path / "the-server-is-away"
    outage.touch()
    if dataset == "video":
        root, unreadable = undisturbed[0], "b.mp4"
    else:
        root, unreadable = tmp_path / "3dpw", "walk_01/image_"  # five pictures
        for seed in range(3):
            write_sequence(root, f"walk_{seed:02d}", frames=5, seed=seed)

    def run(out: str, faults: Faults) -> int:
        if dataset == "video":
            return extract(root, tmp_path / out, faults)
        with extracting(faults):
            return main(ExtractSpec(dataset="3dpw", root=root, out=tmp_path / out, split="test"))

    faults = Faults(unreadable=unreadable, while_there=str(outage))
    assert run("out", faults) == NOT_FINISHED
    kinds = {outcome.kind for outcome in read_outcomes(set_of(tmp_path / "out", dataset)).values()}
    assert kinds == {DONE, FAILED}
    outage.unlink()
    assert run("out", faults) == 0
    if dataset == "3dpw":
        assert run("wanted", Faults()) == 0
    wanted = undisturbed[1] if dataset == "video" else tmp_path / "wanted"
    if dataset == "3dpw":
        assert_same(tmp_path / "out", wanted, dataset)
        return
    # The video could not be read when it was planned, so it is planned again, and comes after the others.
    ours, theirs = (
        read_table(set_of(out)).sort_by([("track_id", "ascending"), ("frame_index", "ascending")])
        for out in (tmp_path / "out", wanted)
    )
    assert ours.equals(theirs) and not read_manifest(set_of(tmp_path / "out")).skipped
    assert len(Plan.read(set_of(tmp_path / "out"))) == len(Plan.read(set_of(wanted)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB; skipped where mounting is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_error_and_extraction_continues_with_more_space(
    undisturbed: tuple[Path, Path], small_disk: Path
) -> None:
    root, wanted = undisturbed
    with pytest.raises(InputError, match="No space left on device.*what is done is kept, run the same command again"):
        extract(root, small_disk)
    folder = set_of(small_disk)
    assert not (folder / MANIFEST).exists()
    before = {path.name: path.stat().st_mtime_ns for path in (folder / RECORDS / "units").glob("*.parquet")}
    outcomes = read_outcomes(folder)
    assert outcomes and len(outcomes) < len(Plan.read(folder))
    assert {outcome.kind for outcome in outcomes.values()} == {DONE}
    assert {outcome.fragment["name"] for outcome in outcomes.values() if outcome.fragment} <= before.keys()
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert extract(root, small_disk) == 0
    assert_same(small_disk, wanted)


def test_books_that_are_killed_lose_no_unit_and_nothing_is_done_twice(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    root, wanted = undisturbed
    extract_while_killing(BOOKKEEPER, root, tmp_path / "out", tmp_path / "notes", at_once=1)
    assert_same(tmp_path / "out", wanted)
    units = begun(tmp_path / "notes")
    assert len(units) == len(set(units)) == len(Plan.read(set_of(tmp_path / "out")))


def test_outcomes_that_cannot_be_written_for_a_while_are_written_later(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    root, wanted = undisturbed
    folder = set_of(tmp_path / "out") / RECORDS
    notes = tmp_path / "notes"
    notes.mkdir()
    folder.mkdir(parents=True)
    (folder / "outcomes").write_text("in the way of the folder with this name")

    def clear() -> None:
        wait_for(lambda: len(begun(notes)) > 8)
        time.sleep(1.5)
        (folder / "outcomes").unlink()

    clearer = threading.Thread(target=clear)
    clearer.start()
    assert extract(root, tmp_path / "out", replace(SLOW, notes=str(notes))) == 0
    clearer.join()
    assert_same(tmp_path / "out", wanted)
    assert len(begun(notes)) == len(Plan.read(set_of(tmp_path / "out")))


def test_a_unit_that_is_handed_out_twice_is_done_once(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    """Ray may give a task to a second worker while the first still runs, or again after its end."""
    from pipelines.extraction import job as jobs

    root, wanted = undisturbed
    notes = tmp_path / "notes"
    notes.mkdir()
    with extracting(replace(SLOW, notes=str(notes))), pytest.MonkeyPatch.context() as patch:
        run_pool = jobs.run_pool
        patch.setattr(jobs, "run_pool", lambda job: run_pool(replace(job, tasks=[*job.tasks, *job.tasks, *job.tasks])))
        tracks = root.parent / "boxes.json"
        assert main(ExtractSpec(dataset="video", root=root, out=tmp_path / "out", tracks=tracks, workers=2)) == 0
    assert_same(tmp_path / "out", wanted)
    units = begun(notes)
    assert len(set(units)) == len(Plan.read(set_of(tmp_path / "out")))
    assert len(units) <= len(set(units)) + 1, "only what both workers had begun"
