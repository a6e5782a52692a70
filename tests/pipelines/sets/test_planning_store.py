"""Videos in a store are listed with few requests, and nothing is fetched to find that nothing has changed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from glot import retries
from glot.errors import NotNowError
from glot.location import location
from pipelines.decoders.video_dataset import VIDEO, video_decoder
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import read_units
from pipelines.sets.planning import in_turn, update_plan
from tests.fixtures.video import write_video

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore


def put(root: Path, contents: dict[str, bytes]) -> None:
    place = cast(Any, root)
    place.fs.pipe({f"{place.path}/{name}": content for name, content in contents.items()})


def test_a_rerun_asks_the_store_a_few_times_for_a_thousand_videos(flaky_store: "FlakyStore", tmp_path: Path) -> None:
    root, folder = location(f"{flaky_store.uri}/many/films"), location(f"{flaky_store.uri}/many/set")
    put(root, {f"{number // 100}/{number}.mp4": b"film %d" % number for number in range(1200)})
    put(root, {"notes.txt": b"notes"})
    run = in_turn(VIDEO, root)
    with flaky_store.counted() as requests:
        plan, changes = update_plan(folder, Plan.read(folder), VIDEO, root, "test", run=run)
    assert changes.describe() == "1200 new" and len(plan) == 1200
    assert not [request for request in requests if ".mp4" in request.path], "small videos are fetched by workers only"
    assert len(requests) <= 12
    with flaky_store.counted() as requests:
        plan, changes = update_plan(folder, Plan.read(folder), VIDEO, root, "test", run=run)
    assert changes.describe() == "1200 as before"
    assert {request.method for request in requests} == {"GET"} and len(requests) <= 5, requests


def test_an_object_that_was_replaced_is_noticed_by_its_etag(flaky_store: "FlakyStore", tmp_path: Path) -> None:
    root, folder = location(f"{flaky_store.uri}/few/films"), tmp_path / "set"
    film = write_video(tmp_path / "a.mp4").read_bytes()
    put(root, {"a.mp4": film, "b.mp4": film})
    tracks = location(f"{flaky_store.uri}/few/boxes")
    put(tracks, {"a.txt": b"1,7,1,2,30,40\n", "b.txt": b"1,7,1,2,30,40\n"})
    decoder = video_decoder(tracks)
    run = in_turn(decoder, root)
    plan, _ = update_plan(folder, Plan.read(folder), decoder, root, "test", run=run)
    assert [len(unit.boxes or {}) for unit in read_units(folder, 0, [0, 1])] == [1, 1]
    put(root, {"a.mp4": film[:-1] + bytes([film[-1] ^ 1])})
    plan, changes = update_plan(folder, plan, decoder, root, "test", run=run)
    assert changes.describe() == "1 changed, 1 as before" and plan.ids == ["0000/b.mp4", "0001/a.mp4"]
    put(tracks, {"b.txt": b"1,8,1,2,30,40\n"})
    plan, changes = update_plan(folder, plan, decoder, root, "test", run=run)
    assert changes.describe() == "1 changed, 1 as before" and plan.ids == ["0001/a.mp4", "0002/b.mp4"]


def test_a_store_that_does_not_answer_makes_no_video_gone(
    flaky_store: "FlakyStore", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "TRIES", 1)  # s3fs has tries of its own
    root, folder = location(f"{flaky_store.uri}/down/films"), tmp_path / "set"
    put(root, {"a.mp4": b"film"})
    decoder = VIDEO._replace(cut=lambda root, source: [replace(source, frames=1)])
    plan, _ = update_plan(folder, Plan.read(folder), decoder, root, "test", run=in_turn(decoder, root))
    with flaky_store.failing(1.0, ["busy"]), pytest.raises(NotNowError):
        update_plan(folder, plan, decoder, root, "test", run=in_turn(decoder, root))
    assert not update_plan(folder, plan, decoder, root, "test", run=in_turn(decoder, root))[1]
