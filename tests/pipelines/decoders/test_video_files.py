"""Folders and stores are listed once: every video has a name of its own, and other files are named."""

import os
from pathlib import Path

import pytest

from glot.errors import InputError, NotNowError
from glot.location import location
from pipelines.decoders.video_files import VideoFiles, list_videos, unit_names


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="surrogateescape"))


def paths(root: Path) -> list[str]:
    return [file.path for file in list_videos(root).files]


def test_videos_at_any_depth_are_listed_in_order_with_their_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, "b.mp4", "a/z.MOV", "a/b/c.mkv", "a.avi", "a/notes.txt")
    found = list_videos(tmp_path)
    assert [unit.images for unit in found] == ["a/b/c.mkv", "a/z.MOV", "a.avi", "b.mp4"]
    assert found[0].sources == (
        {"path": "a/b/c.mkv", "bytes": 9, "modified": (tmp_path / "a/b/c.mkv").stat().st_mtime_ns},
    )
    assert found[0].frames == 0 and [unit.name for unit in found[1:3]] == ["a%2Fz.MOV", "a.avi"]


def test_files_that_are_no_videos_are_named_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, "a.mp4")
    assert list_videos(tmp_path).note == ""
    write(tmp_path, "notes.txt")
    assert list_videos(tmp_path).note == "1 file is no video: notes.txt (1 .txt)"
    write(tmp_path, "b.zip", "c.txt", "d")
    note = list_videos(tmp_path).note
    assert note == "4 files are no videos: b.zip, c.txt, d, ... (2 .txt, 1 .zip, 1 without an ending)"
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match=r"no videos in it \(.avi.*; 4 files are no videos: b.zip"):
        list_videos(tmp_path)


def test_linked_folders_are_listed_once_and_loops_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write(root, "z/a.mp4")
    write(other, "b.mp4")
    (root / "a_link").symlink_to(root / "z")  # before the folder, by name; the folder keeps its own path
    (root / "z/up").symlink_to(root)
    (root / "disk").symlink_to(other)
    (root / "again").symlink_to(other)
    (root / "file.mp4").symlink_to(other / "b.mp4")
    (root / "nowhere.mp4").symlink_to(tmp_path / "gone")
    found = paths(root)
    assert "z/a.mp4" in found and "file.mp4" in found and len(found) == 3
    assert {"disk/b.mp4", "again/b.mp4"} & set(found)


def test_names_of_any_bytes_are_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    write(tmp_path, name, "new\nline.mp4", "50% #1@x.mp4")
    found = list_videos(tmp_path)
    assert {file.path for file in found.files} == {name, "new\nline.mp4", "50% #1@x.mp4"}
    assert {unit.name for unit in found} == {"caf%E9.mp4", "new%0Aline.mp4", "50%25 %231%40x.mp4"}


def test_two_videos_never_have_one_name() -> None:
    deep = "long/" * 60
    videos = [f"{deep}a.mp4", f"{deep}b.mp4", "Walk.mp4", "walk.mp4", "WALK.mp4", "straße.mp4", "strasse.mp4"]
    names = unit_names(videos)
    assert len({name.casefold() for name in names}) == len(videos) and max(map(len, names)) <= 150
    assert names[2] == "Walk.mp4" and names[3].startswith("walk.mp4-")
    assert unit_names(videos[:2] + videos[3:])[2] == "walk.mp4"


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def refuse(path: Path) -> "os._ScandirIterator[str]":
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(NotNowError, match="closed.*cannot be listed"):
        list_videos(tmp_path)


def test_a_store_is_listed_as_a_folder_is(tmp_path: Path) -> None:
    root = location("memory://films/videos")
    for name in ("b.mp4", "a/c.mkv", "notes.txt"):
        (root / name).write_bytes(name.encode())
    found = list_videos(root)
    assert isinstance(found, VideoFiles) and [unit.images for unit in found] == ["a/c.mkv", "b.mp4"]
    assert found[0].sources[0]["bytes"] == 7 and found[0].sources[0]["etag"]
    assert found.note == "1 file is no video: notes.txt (1 .txt)"
    with pytest.raises(InputError, match="no videos in it"):
        list_videos(location("memory://films/nothing"))
