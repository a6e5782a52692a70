"""Reading pictures: whole ones exactly, cut ones never, and each only once however many people are in it."""

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from glot.body import load_body
from glot.crop import crop_image
from pipelines import frames
from pipelines.clips import Clip
from pipelines.decoders.threedpw import decode, find_units
from pipelines.frames import Unreadable, read_crops, read_picture
from tests.threedpw_fixture import write_sequence


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    write_sequence(tmp_path, "walk_00")
    return decode(tmp_path, find_units(tmp_path, "test")[0], load_body(), "corrected").clips


def picture(path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    return path.read_bytes()


def test_a_picture_is_what_opencv_reads(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    assert np.array_equal(read_picture(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg")))


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.2, 0.01])
def test_a_cut_jpeg_is_refused_wherever_it_is_cut(tmp_path: Path, kept: float) -> None:
    whole = picture(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(Unreadable, match="truncated JPEG|not a readable picture"):
        read_picture(tmp_path / "a.jpg")


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused_and_a_padded_one_is_not(tmp_path: Path) -> None:
    whole = picture(tmp_path / "a.jpg")
    thumbnail = picture(tmp_path / "small.jpg")[:60_000]
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail  # an APP1 block, where cameras keep one
    (tmp_path / "a.jpg").write_bytes(whole[:2] + segment + whole[2:-500])
    with pytest.raises(Unreadable, match="truncated"):
        read_picture(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(whole[:2] + segment + whole[2:] + b"\0" * 64)
    assert read_picture(tmp_path / "a.jpg").shape == (64, 64, 3)


def test_missing_empty_and_foreign_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    for name, reason in (("gone", "No such file"), ("empty", "empty file"), ("text", "not a readable picture")):
        with pytest.raises(Unreadable, match=reason):
            read_picture(tmp_path / f"{name}.jpg")


def test_every_picture_is_read_once_for_all_its_people(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def watched(path: Path) -> Any:
        read.append(path.name)
        return read_picture(path)

    monkeypatch.setattr(frames, "read_picture", watched)
    seen = list(read_crops(tmp_path, clips, threads=3, ahead=4))
    assert sorted(read) == [f"image_{i:05d}.jpg" for i in range(12)]
    assert [frame.image for frame in seen] == sorted(frame.image for frame in seen)
    assert seen[3].people == [(1, 3)] and seen[0].people == [(0, 0), (1, 0)]
    assert sum(len(frame.crops) for frame in seen) == len(clips[0]) + len(clips[1])
    expected = crop_image(cv2.imread(str(tmp_path / clips[1].image[2])), clips[1].bbox[2], 1.2)
    assert np.array_equal(seen[2].crops[1], expected)


def test_reading_stays_a_few_pictures_ahead_and_ends_with_its_reader(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(frames, "read_picture", lambda path: read.append(path) or np.zeros((80, 96, 3), np.uint8))
    crops = read_crops(tmp_path, clips, ahead=2)
    next(crops)
    crops.close()
    assert len(read) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]
