"""The plan of a set: what is new, changed and gone is found source by source, and nothing else is touched."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glot.errors import InputError
from glot.human.body import load_body
from glot.location import location
from pipelines.decoders import unit_cuts
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.threedpw import THREEDPW
from pipelines.decoders.video_dataset import VIDEO, video_decoder
from pipelines.sets import plan_file
from pipelines.sets.differences import Difference
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import boxes_path, read_units, units_path
from pipelines.sets.planning import in_turn, update_plan
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.video import write_video

LONG_AGO = 1_700_000_000


@pytest.fixture(autouse=True)
def short_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_cuts, "UNIT_FRAMES", 8)
    monkeypatch.setattr(unit_cuts, "LONGEST_WHOLE", 12)


def updated(
    folder: Path, root: Path, decoder: Decoder = VIDEO, *, suspects: tuple[str, ...] = ()
) -> tuple[Plan, Difference]:
    return update_plan(
        folder, Plan.read(folder), decoder, root, "test", run=in_turn(decoder, root), suspects=frozenset(suspects)
    )


def write_film(path: Path, frames: int = 2) -> Path:
    """A video whose every picture is a key frame."""
    return write_video(path, frames=frames, codec="mjpeg", pixels="yuvj420p")


def planned(folder: Path, plan: Plan) -> dict[str, Any]:
    """{id: unit with boxes}, as workers read them."""
    units = {}
    for generation in set(plan.generations.tolist()):
        numbers = np.flatnonzero(plan.generations == generation)
        found = read_units(folder, generation, plan.rows[numbers].tolist())
        units |= {plan.ids[number]: unit for number, unit in zip(numbers, found, strict=True)}
    return units


def test_new_changed_and_gone_sources_are_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, folder = tmp_path / "films", tmp_path / "set"
    for name in ("a.mkv", "b.mkv", "c/long.mkv"):
        write_film(root / name, frames=30 if "long" in name else 2)
    (root / "notes.txt").write_text("notes")
    plan, first = updated(folder, root)
    assert first.describe() == "3 new" and "1 file is no video: notes.txt" in capsys.readouterr().out
    assert plan.ids[:2] == ["0000/a.mkv", "0000/b.mkv"] and plan.ids[2] == "0000/c%2Flong.mkv@0000000"
    assert plan.frames[:2].tolist() == [2, 2] and plan.frames.sum() == 34 and len(plan) > 4
    before = units_path(folder, 0).read_bytes()

    plan, again = updated(folder, root)
    assert not again and again.describe() == "3 as before" and not units_path(folder, 1).exists()

    write_film(root / "a.mkv", frames=3)
    (root / "b.mkv").unlink()
    for name in ("d.mkv", "e.mkv"):
        write_film(root / name)
    plan, changes = updated(folder, root)
    assert changes.describe() == "2 new, 1 changed, 1 gone, 1 as before"
    assert plan.ids[0] == "0000/c%2Flong.mkv@0000000", "what did not change keeps its id, and its outcome"
    assert plan.ids[-3:] == ["0001/a.mkv", "0001/d.mkv", "0001/e.mkv"] and plan.frames[-3:].tolist() == [3, 2, 2]
    assert "b.mkv" not in plan.names and units_path(folder, 0).read_bytes() == before

    write_film(root / "b.mkv")
    plan, changes = updated(folder, root)
    assert changes.describe() == "1 new, 4 as before" and plan.ids[-1] == "0002/b.mkv"
    assert not updated(folder, root)[1]


def test_workers_read_the_units_that_were_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "UNITS_IN_GROUP", 2)
    root, folder = tmp_path / "films", tmp_path / "set"
    for number in range(5):
        write_film(root / f"{number}.mkv", frames=2 + 15 * (number % 2))
    plan, _ = updated(folder, root)
    units = plan.units(range(len(plan)))
    found = planned(folder, plan)
    assert list(found.values()) == units and [f"0000/{unit.key}" for unit in units] == plan.ids
    assert read_units(folder, 0, [4, 0, 4]) == [units[4], units[0], units[4]]
    assert units[1].facts["frames"] == 17 and units[1].facts["even"] is True


@pytest.mark.parametrize("remote", [False, True])
def test_a_set_may_be_in_a_store(tmp_path: Path, remote: bool) -> None:
    folder = location(f"memory://sets/{tmp_path.name}") if remote else tmp_path / "set"
    tracks = write_boxes(tmp_path / "boxes.json", {"a.mkv": 1, "b.mkv": 2})
    for name in ("a.mkv", "b.mkv"):
        write_film(tmp_path / "films" / name)
    plan, changes = updated(folder, tmp_path / "films", video_decoder(tracks))
    assert changes.describe() == "2 new" and len(plan) == 2
    assert [len(unit.boxes) for unit in planned(folder, plan).values()] == [1, 2]
    assert not updated(folder, tmp_path / "films", video_decoder(tracks))[1]


def write_boxes(path: Path, videos: Mapping[str, int], *, frames: int = 20) -> Path:
    """A JSON file with so many people for each video."""
    one = {"frames": list(range(frames)), "bbox": [[1, 2, 30, 40 + number] for number in range(frames)]}
    path.write_text(json.dumps({video: {f"p{n}": one for n in range(people)} for video, people in videos.items()}))
    return path


def test_adding_a_video_to_a_shared_file_of_boxes_changes_one_unit(tmp_path: Path) -> None:
    root, folder = tmp_path / "films", tmp_path / "set"
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_film(root / name, frames=20 if name == "b.mkv" else 3)
    tracks = write_boxes(tmp_path / "boxes.json", {"b.mkv": 2, "a.mkv": 1})
    decoder = video_decoder(tracks)
    plan, _ = updated(folder, root, decoder)
    found = planned(folder, plan)
    ranges = [unit for unit in found.values() if unit.name == "b.mkv"]
    assert plan.names == sorted(plan.names) and len(ranges) > 1
    for unit in ranges:
        stop = 20 if unit.stop is None else unit.stop
        assert [boxes.frames.tolist() for boxes in unit.boxes.values()] == [list(range(unit.start, stop))] * 2
        assert unit.sources[1]["path"] == "boxes.json" and unit.sources[1]["hash"]
    missing = found["0000/c.mkv"]
    assert missing.boxes is None
    with pytest.raises(InputError, match="has no boxes for c.mkv"):
        decoder.decode(root, missing, load_body(), "corrected")

    write_boxes(tracks, {"c.mkv": 1, "a.mkv": 1, "b.mkv": 2})
    plan, changes = updated(folder, root, decoder)
    assert changes.describe() == "1 changed, 2 as before" and plan.ids[-1] == "0001/c.mkv"
    write_boxes(tracks, {"c.mkv": 1, "a.mkv": 2, "b.mkv": 2})
    plan, changes = updated(folder, root, decoder)
    assert changes.describe() == "1 changed, 2 as before" and plan.ids[-1] == "0002/a.mkv"
    assert len(planned(folder, plan)["0002/a.mkv"].boxes) == 2


def test_a_shared_file_of_boxes_is_read_only_after_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = tmp_path / "films", tmp_path / "set"
    write_film(root / "a.mkv")
    write_film(root / "b.mkv")
    tracks = write_boxes(tmp_path / "boxes.json", {"a.mkv": 1, "b.mkv": 1})
    updated(folder, root, video_decoder(tracks))
    write_boxes(tracks, {"a.mkv": 1, "b.mkv": 1, "of no video.mkv": 1})
    assert not updated(folder, root, video_decoder(tracks))[1]
    monkeypatch.setattr("pipelines.decoders.video_boxes.iterate_tracks", lambda videos, tracks: pytest.fail("read"))
    assert not updated(folder, root, video_decoder(tracks))[1]


def test_the_file_of_a_videos_boxes_is_noticed_when_it_changes(tmp_path: Path) -> None:
    root, folder, tracks = tmp_path / "films", tmp_path / "set", tmp_path / "boxes"
    tracks.mkdir()
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_film(root / name, frames=20)
        if name != "c.mkv":
            (tracks / f"{name[0]}.txt").write_text("1,7,1,2,30,40\n20,7,1,2,30,40\n")
    plan, changes = updated(folder, root, video_decoder(tracks))
    found = planned(folder, plan)
    assert changes.describe() == "3 new"
    boxes = [unit.boxes["7"].frames.tolist() for unit in found.values() if unit.name == "a.mkv" and unit.boxes]
    assert sum(boxes, []) == [0, 19] and len(boxes) > 1
    (tracks / "b.txt").write_text("1,7,1,2,30,99\n20,7,1,2,30,40\n")
    (tracks / "c.txt").write_text("1,7,1,2,30,40\n")
    plan, changes = updated(folder, root, video_decoder(tracks))
    assert changes.describe() == "2 changed, 1 as before"


def test_a_picture_replaced_in_place_is_read_again_where_it_was_unreadable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sequence(tmp_path / "data", name, frames=3)
        os.utime(tmp_path / "data/imageFiles" / name, (LONG_AGO, LONG_AGO))
    picture = tmp_path / "data/imageFiles/a/image_00001.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    updated(tmp_path / "set", tmp_path / "data", THREEDPW)
    assert not updated(tmp_path / "set", tmp_path / "data", THREEDPW, suspects=("a",))[1]
    picture.write_bytes(whole)
    assert not updated(tmp_path / "set", tmp_path / "data", THREEDPW)[1]
    plan, changes = updated(tmp_path / "set", tmp_path / "data", THREEDPW, suspects=("a",))
    assert changes.describe() == "1 changed, 1 as before" and plan.ids == ["0000/b", "0001/a"]


def test_a_plan_that_was_not_finished_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = tmp_path / "films", tmp_path / "set"
    for number in range(3):
        write_film(root / f"{number}.mkv")
    tracks = write_boxes(tmp_path / "boxes.json", {f"{number}.mkv": 1 for number in range(3)})
    with monkeypatch.context() as patch:
        patch.setattr(plan_file, "write_file", lambda path, content: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(OSError, match="No space"):
            updated(folder, root, video_decoder(tracks))
    assert len(Plan.read(folder)) == 0 and boxes_path(folder, 0).exists()
    plan, changes = updated(folder, root, video_decoder(tracks))
    assert changes.describe() == "3 new" and len(planned(folder, plan)) == 3
    assert not list((folder / ".extraction/plan").glob(".*")), "no temporary file stays"


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    write_film(tmp_path / "films/a.mkv")
    updated(tmp_path / "set", tmp_path / "films")
    path = units_path(tmp_path / "set", 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"0000\.parquet: not readable as Parquet"):
        Plan.read(tmp_path / "set")


def test_names_that_are_no_text_are_planned_and_refused_when_they_are_decoded(tmp_path: Path) -> None:
    write_film(tmp_path / "films/a.mkv").rename(tmp_path / "films" / os.fsdecode(b"caf\xe9.mkv"))
    plan, _ = updated(tmp_path / "set", tmp_path / "films")
    (unit,) = planned(tmp_path / "set", plan).values()
    assert os.fsencode(unit.images) == b"caf\xe9.mkv" and not updated(tmp_path / "set", tmp_path / "films")[1]
    with pytest.raises(InputError, match=r"caf\\xe9.mkv: its name is not UTF-8"):
        VIDEO.decode(tmp_path / "films", unit, load_body(), "corrected")


def test_chunks_may_come_in_any_order_and_get_lost(tmp_path: Path) -> None:
    root, folder = tmp_path / "films", tmp_path / "set"
    for number in range(130):
        (root / f"{number // 10:02d}").mkdir(parents=True, exist_ok=True)
        (root / f"{number // 10:02d}/{number:03d}.mp4").write_bytes(b"film")

    def run(chunks: list[list[Unit]]) -> Iterator[list[Unit]]:
        assert [len(chunk) for chunk in chunks] == [64, 64, 2]
        yield from (whole(root, chunk) for chunk in (chunks[2], chunks[0]))

    decoder = VIDEO._replace(cut=lambda root, source: [replace(source, frames=1)])
    plan, _ = update_plan(folder, Plan.read(folder), decoder, root, "test", run=run)
    assert len(plan) == 66 and plan.names == sorted(plan.names)
    plan, changes = update_plan(folder, plan, decoder, root, "test", run=in_turn(decoder, root))
    assert changes.describe() == "64 new, 66 as before" and len(plan) == 130


def whole(root: Path, chunk: list[Unit]) -> list[Unit]:
    return [replace(source, frames=1) for source in chunk]


def test_a_hundred_times_as_many_videos_take_a_hundred_times_as_long(tmp_path: Path) -> None:
    """Each video had read and hashed the whole file of boxes: four times as long for twice as many."""

    def seconds(count: int) -> float:
        videos = [f"camera_{number // 100:03d}/{number:06d}.mp4" for number in range(count)]
        tracks = write_boxes(tmp_path / f"{count}.json", dict.fromkeys(videos, 1), frames=2)
        folder, root = tmp_path / f"set-{count}", tmp_path / f"films-{count}"
        for video in videos:
            (root / video).parent.mkdir(parents=True, exist_ok=True)
            (root / video).touch()
        decoder = video_decoder(tracks)._replace(cut=lambda root, source: [replace(source, frames=2)])
        start = time.process_time()
        for _ in range(2):
            plan, _ = updated(folder, root, decoder)
        assert len(plan) == count
        return time.process_time() - start

    seconds(10)  # what is slow only the first time
    assert seconds(5000) < 300 * max(seconds(50), 0.01)
