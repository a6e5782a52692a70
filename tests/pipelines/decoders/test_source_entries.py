"""Changes of files and folders are noticed, and folders of pictures are not read more often than needed."""

import os
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.location import location
from glot.people.files import open_file
from pipelines.decoders import source_entries
from pipelines.decoders.clips import Unit
from pipelines.decoders.registry import DATASETS, VIDEO, load_decoder
from pipelines.decoders.source_entries import (
    Before,
    changed_source,
    file_source,
    pictures_source,
    same_source,
    same_sources,
    unit_of_pictures,
    with_bytes,
)
from pipelines.decoders.video_files import list_videos

LONG_AGO = 1_700_000_000


def age(path: Path, seconds: int = LONG_AGO) -> None:
    os.utime(path, (seconds, seconds))


def write_pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"x" * (number + 1))
    age(folder)
    return folder


def is_jpg(name: str) -> bool:
    return name.endswith(".jpg")


def test_entries_are_compared_by_what_both_know() -> None:
    older = {"path": "a", "bytes": 5}
    assert same_source(older, {**older, "modified": 7}) and same_source({**older, "modified": 7}, older)
    assert not same_source({**older, "modified": 7}, {**older, "modified": 8})
    assert not same_source(older, {"path": "a", "bytes": 6, "modified": 7})
    assert same_sources([older], [older]) and not same_sources([older], [older, older])
    assert not same_sources([older], [{**older, "path": "b"}])


def test_a_file_replaced_by_one_of_the_same_size_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    age(tmp_path / "a")
    before = file_source(tmp_path, "a")
    (tmp_path / "a").write_text("two")
    after = file_source(tmp_path, "a")
    assert before["bytes"] == after["bytes"] and not same_source(before, after)
    assert file_source(tmp_path, "gone") == {"path": "gone", "bytes": 0}


def test_a_folder_is_listed_again_only_after_its_time_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "pictures")
    entry = pictures_source(tmp_path, "pictures", is_jpg)
    assert entry == {"path": "pictures", "files": 3, "modified": LONG_AGO * 10**9}
    before = Before({"pictures": entry})
    with monkeypatch.context() as patch:
        patch.setattr(source_entries.os, "scandir", lambda path: pytest.fail(f"{path} is listed"))
        assert pictures_source(tmp_path, "pictures", is_jpg, before) == entry
    (folder / "3.jpg").write_bytes(b"")
    assert pictures_source(tmp_path, "pictures", is_jpg, before)["files"] == 4
    assert pictures_source(tmp_path, "gone", is_jpg, before) == {"path": "gone", "files": 0}


def test_a_folder_that_changed_just_now_is_listed_again(tmp_path: Path) -> None:
    """Two changes within one tick of the clock give a folder the same time."""
    folder = write_pictures(tmp_path / "pictures")
    os.utime(folder)
    assert "modified" not in pictures_source(tmp_path, "pictures", is_jpg)


def test_a_picture_replaced_in_place_is_noticed_among_the_suspects(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (tmp_path / "unit.pkl").write_text("labels")
    unit = with_bytes(tmp_path, unit_of_pictures(tmp_path, tmp_path / "unit.pkl", "pictures"))
    assert unit.sources[1]["bytes"] == 1 + 2 + 3
    entries = {entry["path"]: entry for entry in unit.sources}

    def now(*suspects: str) -> Any:
        return unit_of_pictures(tmp_path, tmp_path / "unit.pkl", "pictures", Before(entries, suspects)).sources

    assert same_sources(now("unit"), unit.sources)
    (folder / "1.jpg").write_bytes(b"a whole picture")
    assert folder.stat().st_mtime == LONG_AGO
    assert same_sources(now(), unit.sources), "the time of a folder says nothing about its pictures"
    assert not same_sources(now("unit"), unit.sources)


@pytest.mark.parametrize("dataset", sorted(DATASETS.keys() - {VIDEO}))
def test_datasets_of_pictures_are_not_read_from_a_store(dataset: str) -> None:
    decoder = load_decoder(dataset)
    with pytest.raises(InputError, match="only videos are read from an object store"):
        decoder.find(location("memory://bucket/data"), decoder.splits[0])


def test_a_source_that_changes_after_it_was_planned_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (tmp_path / "unit.pkl").write_text("labels")
    unit = unit_of_pictures(tmp_path, tmp_path / "unit.pkl", "pictures")
    assert changed_source(tmp_path, unit) is None
    (folder / "9.jpg").write_bytes(b"")
    assert changed_source(tmp_path, unit) == "pictures"
    age(folder)
    (tmp_path / "unit.pkl").write_text("LABELS")
    age(tmp_path / "unit.pkl")
    assert changed_source(tmp_path, unit) == "unit.pkl"
    (tmp_path / "unit.pkl").unlink()
    assert changed_source(tmp_path, unit) == "unit.pkl"


def test_a_source_in_a_store_that_names_no_versions_is_compared(tmp_path: Path) -> None:
    root = location("memory://changes")
    (root / "film.mp4").write_bytes(b"film")
    (unit,) = list_videos(root)
    assert changed_source(root, unit) is None
    (root / "film.mp4").write_bytes(b"FILM")
    assert changed_source(root, unit) == "film.mp4"
    (root / "film.mp4").unlink()
    assert changed_source(root, unit) == "film.mp4"


def test_the_uri_of_a_folder_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "film #1.mp4").write_bytes(b"film")
    for scheme in ("file", "local"):
        root = location(f"{scheme}://{tmp_path}")
        (unit,) = list_videos(root)
        assert unit.sources == tuple(list_videos(tmp_path)[0].sources) and changed_source(root, unit) is None
        with open_file(root / unit.images, unit.sources[0]) as file:
            assert file.read() == b"film"


def test_parts_of_files_and_boxes_elsewhere_are_no_changed_sources(tmp_path: Path) -> None:
    (tmp_path / "annot.mat").write_text("labels")
    labels = {**file_source(tmp_path, "annot.mat"), "path": "annot.mat#4"}
    assert changed_source(tmp_path, Unit("S1", "annot.mat#4", "film.avi", 3, (labels,))) is None
    (tmp_path / "film#1.mp4").write_text("film")
    film, boxes = file_source(tmp_path, "film#1.mp4"), {"path": "film#1.txt", "bytes": 9, "modified": 7}
    unit = Unit("film", "film#1.mp4", "film#1.mp4", 3, (film, boxes), facts={"boxes_in": "/elsewhere/film#1.txt"})
    assert changed_source(tmp_path, unit) is None
    (tmp_path / "film#1.mp4").write_text("another film")
    assert changed_source(tmp_path, unit) == "film#1.mp4"
