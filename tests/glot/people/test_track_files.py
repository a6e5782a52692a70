"""Files of boxes: which file belongs to which video, and that nobody gets the boxes of another video."""

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from upath import UPath

from glot.capture.spec import PredictSpec
from glot.capture.video_list import check_tracks, find_videos
from glot.errors import InputError, NotNowError
from glot.people import track_files
from glot.people.track_files import VideoBoxes, iterate_tracks, match_tracks, read_tracks

PERSON = {"frames": [0], "bbox": [[1, 2, 3, 4]]}


def folder(root: Path, *names: str) -> Path:
    """A folder with these files; the person in a file is called as the file."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: PERSON}) if name.endswith(".json") else "1,1,1,2,3,4\n")
    return root


def matched(tracks: Path, *videos: str) -> dict[str, str | None]:
    """The name of each video's file. read_tracks and iterate_tracks must agree with match_tracks."""
    found = match_tracks(videos, tracks)
    names = {}
    for (video, boxes), (same, path) in zip(iterate_tracks(videos, tracks), found.items(), strict=True):
        assert video == same
        if isinstance(path, InputError):
            assert isinstance(boxes, InputError) and "has no boxes for it; expected a file " in str(boxes)
            with pytest.raises(InputError, match="has no boxes for it"):
                read_tracks(video, tracks)
            names[video] = None
        else:
            names[video] = path.relative_to(tracks).as_posix()
            assert isinstance(boxes, VideoBoxes) and read_tracks(video, tracks).hash == boxes.hash
            assert path.suffix != ".json" or list(boxes.people) == [names[video]]
    return names


def test_a_file_has_the_path_of_its_video(tmp_path: Path) -> None:
    tracks = folder(tmp_path, "cam1/walk.json", "cam2/walk.mp4.json", "run.txt", "run.mkv.csv", "cam3/walk.json.bak")
    assert matched(tracks, "cam1/walk.mp4", "cam2/walk.mp4", "run.mp4", "run.mkv", "cam3/walk.mp4") == {
        "cam1/walk.mp4": "cam1/walk.json",
        "cam2/walk.mp4": "cam2/walk.mp4.json",
        "run.mp4": "run.txt",
        "run.mkv": "run.mkv.csv",
        "cam3/walk.mp4": None,
    }


def test_a_name_at_the_top_is_enough_if_only_one_video_has_it(tmp_path: Path) -> None:
    tracks = folder(tmp_path, "walk.json", "run.mp4.json", "deep/jump.json")
    assert matched(tracks, "cam1/walk.mp4", "cam2/run.mp4", "cam2/run.avi", "a/jump.mp4") == {
        "cam1/walk.mp4": "walk.json", "cam2/run.mp4": "run.mp4.json", "cam2/run.avi": None, "a/jump.mp4": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "videos"),
    [
        (["walk.json"], ["cam1/walk.mp4", "cam2/walk.avi", "walk.mkv"]),
        (["walk.json"], ["cam1/walk.mp4", "cam2/walk.avi"]),
        (["walk.json", "cam2/walk.json"], ["cam1/walk.mp4", "cam2/walk.avi"]),
        (["walk.mp4.txt"], ["cam1/walk.mp4", "cam2/walk.mp4"]),
        (["cam1/walk.json"], ["cam1/walk.mp4", "cam1/walk.mkv"]),
    ],
)
def test_a_file_that_could_be_for_several_videos_is_refused_with_the_remedy(
    tmp_path: Path, files: list[str], videos: list[str]
) -> None:
    tracks = folder(tmp_path, *files)
    with pytest.raises(InputError) as refused:
        match_tracks(videos, tracks)
    with pytest.raises(InputError, match="could be for"):
        list(iterate_tracks(videos, tracks))
    message = str(refused.value)
    assert f"{files[0]} could be for " in message and all(video in message for video in videos)
    remedy = message.rpartition("for example ")[2]
    (tracks / files[0]).rename(folder(tracks, remedy) / remedy)
    assert list(matched_files(videos, tracks).values()).count(remedy) == 1, "after the remedy it is clear"


def matched_files(videos: list[str], tracks: Path) -> dict[str, str | None]:
    found = match_tracks(videos, tracks)
    return {
        video: None if isinstance(path, InputError) else path.relative_to(tracks).as_posix()
        for video, path in found.items()
    }


def test_a_store_is_asked_for_one_listing_however_many_videos_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = cast(Any, UPath("memory://boxes-of-many"))
    videos = [f"cam{number % 7}/{number}.mp4" for number in range(500)]
    for video in videos[:400]:
        (tracks / f"{video}.json").write_text(json.dumps({"1": PERSON}))
    calls: list[str] = []

    def counted(name: str) -> Any:
        plain = getattr(tracks.fs, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return plain(*args, **kwargs)

        return call

    for name in ("find", "info", "exists", "isfile", "isdir"):
        monkeypatch.setattr(tracks.fs, name, counted(name))
    found = match_tracks(videos, tracks)
    assert sum(isinstance(path, InputError) for path in found.values()) == 100
    assert str(found["cam1/1.mp4"]) == "memory://boxes-of-many/cam1/1.mp4.json"
    assert calls.count("find") == 1 and len(calls) < 20
    monkeypatch.undo()
    read = dict(iterate_tracks(videos[399:401], tracks))
    assert [type(read[video]) for video in videos[399:401]] == [VideoBoxes, InputError]


def test_a_file_of_one_video_is_refused_for_several(tmp_path: Path) -> None:
    folder(tmp_path, "mot.txt")
    assert list(read_tracks("a.mp4", tmp_path / "mot.txt").people) == ["1"]
    with pytest.raises(InputError, match="is about one video, but there are 2; give a folder"):
        match_tracks(["a.mp4", "b.mp4"], tmp_path / "mot.txt")
    (tmp_path / "one.json").write_text(json.dumps({"1": PERSON}))
    with pytest.raises(InputError, match="is about one video, but there are 2"):
        list(iterate_tracks(["a.mp4", "b.mp4"], tmp_path / "one.json"))
    with pytest.raises(InputError, match="no such file or folder"):
        match_tracks(["a.mp4"], tmp_path / "gone")


def test_a_mistake_in_a_file_is_that_of_its_video(tmp_path: Path) -> None:
    folder(tmp_path, "a.json", "b.json", "c.txt", "d.json")
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"1": {"frames": [0], "bbox": [[1, 2, NaN, 4]]}}')
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe1,1")
    found = dict(iterate_tracks(["a.mp4", "b.mp4", "c.mp4", "d.mp4"], tmp_path))
    assert isinstance(found.pop("d.mp4"), VideoBoxes)
    for video, error in found.items():
        assert isinstance(error, InputError) and video[0] in str(error) and "\n" not in str(error)
        with pytest.raises(InputError, match="holds"):
            read_tracks(video, tmp_path)


def test_a_file_that_cannot_be_read_now_is_no_mistake_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path, "a.json")
    (tmp_path / "all.json").write_text("{}")

    def stale(path: Path) -> None:
        raise OSError(116, os.strerror(116), str(path))

    monkeypatch.setattr(track_files, "open_file", stale)
    for tracks in (tmp_path, tmp_path / "all.json"):
        with pytest.raises(NotNowError, match="Stale"):
            list(iterate_tracks(["a.mp4", "b.mp4"], tracks))
    with pytest.raises(NotNowError, match="Stale"):
        read_tracks("a.mp4", tmp_path)


def test_predict_refuses_boxes_that_could_be_those_of_several_videos(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for name in ("cam1/walk.mp4", "cam2/walk.mp4"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"")

    def check(tracks: Path) -> None:
        check_tracks(root, find_videos(root), PredictSpec(video=root, out=tmp_path / "out", tracks=tracks))

    with pytest.raises(InputError, match="walk.json could be for cam1/walk.mp4 or cam2/walk.mp4"):
        check(folder(tmp_path / "boxes", "walk.json"))
    shared = tmp_path / "all.json"
    for content, reason in (({"walk.mp4": {"1": PERSON}}, "could be"), ({"1": PERSON}, "is about one video")):
        shared.write_text(json.dumps(content))
        with pytest.raises(InputError, match=reason):
            check(shared)
    shared.write_text(json.dumps({"cam1/walk.mp4": {"1": PERSON}}))
    check(shared)
    check(folder(tmp_path / "own", "cam1/walk.json"))
