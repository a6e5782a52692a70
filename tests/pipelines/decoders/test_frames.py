"""Reading pictures: whole ones exactly, truncated ones never, and each only once for all people in it."""

import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from glot.human.body import load_body
from glot.human.crop import crop_image
from glot.people.video import Unreadable, Video, Videos, video_frame
from pipelines.decoders import frames
from pipelines.decoders.clips import Clip
from pipelines.decoders.frames import read_crops, read_picture
from pipelines.decoders.threedpw import decode, find_units
from tests.fixtures.threedpw import write_sequence


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


def write_video(path: Path, *, codec: str = "mjpeg", frames: int = 24, options: dict[str, str] | None = None) -> Path:
    """A white bar over black, 4 px longer in every frame; some noise makes the frames large."""
    noise = np.random.default_rng(0).integers(0, 60, (frames, 96, 128, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, picture in enumerate(noise):
            picture[:48, : 4 * number + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def number_in(picture: np.ndarray) -> int:
    return round(((picture[24, :, 1] > 150).sum() - 8) / 4)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """(position, size) of the compressed pictures in the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def numbers_read(path: Path, wanted: int = 24, *, threads: int = 1) -> tuple[list[int], str]:
    """The numbers that the readable pictures show, in order, and the reason why reading ended early."""
    video, seen = Video(path, threads=threads), []
    with closing(video):
        for number in range(wanted):
            try:
                seen.append(number_in(video.read(number)))
            except Unreadable as error:
                return seen, str(error)
    return seen, ""


def reorders(codec: str, options: dict[str, str]) -> bool:
    """Whether the video has B-frames; then some pictures before a damaged place cannot be decoded either."""
    return options.get("bf", "2" if codec == "libx264" else "0") != "0"


CODECS = [("mjpeg", {}), ("mpeg4", {}), ("mpeg4", {"bf": "2"}), ("libx264", {"bf": "0"}), ("libx264", {})]


@pytest.mark.parametrize(("codec", "options"), CODECS, ids=lambda value: str(value))
@pytest.mark.parametrize("ending", [".avi", ".mp4", ".mkv"])
def test_pictures_of_a_video_have_the_requested_numbers(
    tmp_path: Path, codec: str, options: dict[str, str], ending: str
) -> None:
    path = write_video(tmp_path / f"a{ending}", codec=codec, options=options)
    for threads in (1, 3):
        assert numbers_read(path, 25, threads=threads) == (list(range(24)), "the video ends after 24 frames")
    with closing(Video(path)) as video:
        assert [number_in(video.read(number)) for number in (3, 4, 11, 11, 23)] == [3, 4, 11, 11, 23]
        assert (video.width, video.height) == (128, 96) and video.frames == (0 if ending == ".mkv" else 24)


@pytest.mark.parametrize(("codec", "options"), CODECS, ids=lambda value: str(value))
@pytest.mark.parametrize("inside", [0, 0.5], ids=["between pictures", "inside one"])
def test_a_cut_video_gives_the_pictures_before_the_cut(
    tmp_path: Path, codec: str, options: dict[str, str], inside: float
) -> None:
    path = write_video(tmp_path / "a.avi", codec=codec, options=options)
    start, size = packets_of(path)[16]
    path.write_bytes(path.read_bytes()[: start + int(inside * size) - (8 if not inside else 0)])
    seen, reason = numbers_read(path)
    assert seen == list(range(len(seen))) and f"after {len(seen)} frames" in reason
    assert len(seen) == 16 or (10 <= len(seen) < 16 and reorders(codec, options))


@pytest.mark.parametrize(("codec", "options"), CODECS, ids=lambda value: str(value))
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("harm", ["picture", "half a picture", "header"])
def test_after_damage_no_picture_is_taken_for_another(
    tmp_path: Path, codec: str, options: dict[str, str], harm: str, threads: int
) -> None:
    path = write_video(tmp_path / "a.avi", codec=codec, options=options)
    start, size = packets_of(path)[16]
    content = bytearray(path.read_bytes())
    if harm == "picture":
        content[start : start + size] = np.random.default_rng(1).bytes(size)
    elif harm == "half a picture":  # by default, decoders fill in the lost half
        content[start + size // 2 : start + size] = np.random.default_rng(1).bytes(size - size // 2)
    else:
        content[start - 8 : start - 4] = b"JUNK"  # the reader skips it without a message
    path.write_bytes(content)
    seen, reason = numbers_read(path, threads=threads)
    assert seen == list(range(len(seen)))
    assert len(seen) == 16 or (10 <= len(seen) < 16 and reorders(codec, options))
    if codec != "mjpeg":  # there is no key frame after the damage
        assert f"damaged after {len(seen)} frames" in reason
        return
    assert "frame 16 is damaged" in reason
    with closing(Video(path, threads=threads)) as video:
        assert number_in(video.read(15)) == 15
        with pytest.raises(Unreadable, match="frame 16 is damaged"):
            video.read(16)
        # Each picture is a key frame, and the index of the file knows its number.
        assert [number_in(video.read(number)) for number in (17, 18, 23)] == [17, 18, 23]


def test_a_file_that_is_no_video_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")  # FFmpeg would follow a playlist
    write_video(tmp_path / "film.mp4").rename(tmp_path / "film.avi")
    for name, reason in (("gone.avi", "No such file"), ("text.avi", "not a readable"), ("film.avi", "not a readable")):
        with pytest.raises(Unreadable, match=reason):
            Video(tmp_path / name)


def video_clips(clips: list[Clip]) -> list[Clip]:
    """Person 0 in a.avi and person 1 in b.avi, at the same times."""
    return [
        replace(clip, image=[f"{name}.avi#{frame}" for frame in clip.frame_index])
        for clip, name in zip(clips, "ab", strict=True)
    ]


def test_crops_come_from_videos_one_after_the_other(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[str] = []
    opened: list[str] = []
    opens, closes = Video.__init__, Video.close

    def watched_open(self: Video, path: Path, **settings: Any) -> None:
        assert not now, "two open videos"
        now.append(path.name)
        opened.append(path.name)
        opens(self, path, **settings)

    def watched_close(self: Video) -> None:
        now.clear()
        closes(self)

    monkeypatch.setattr(Video, "__init__", watched_open)
    monkeypatch.setattr(Video, "close", watched_close)
    first, second = (write_video(tmp_path / f"{name}.avi") for name in "ab")
    start, _ = packets_of(second)[7]
    second.write_bytes(second.read_bytes()[:start])
    films = video_clips(clips)
    seen = list(read_crops(tmp_path, films, threads=3, ahead=2))
    assert [frame.image for frame in seen] == [*films[0].image, *films[1].image]
    assert opened == ["a.avi", "b.avi"] and not now
    assert all(frame.reason for frame in seen[-5:]) and not any(frame.reason for frame in seen[:-5])
    assert seen[-1].reason.startswith("the video ends after 7 frames") and not seen[-1].crops
    with closing(Video(first)) as video:
        expected = crop_image(video.read(films[0].frame_index[5]), films[0].bbox[5], 1.2)
    assert np.array_equal(seen[5].crops[0], expected)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_video_that_cannot_be_opened_costs_its_frames_and_is_tried_once(tmp_path: Path, clips: list[Clip]) -> None:
    write_video(tmp_path / "a.avi")
    seen = list(read_crops(tmp_path, video_clips(clips)))
    assert {frame.reason for frame in seen} == {"", "No such file or directory"}
    assert sum(not frame.reason for frame in seen) == len(clips[0])


def test_going_back_opens_the_video_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    write_video(tmp_path / "b.avi", frames=4)
    with closing(Videos(tmp_path)) as videos:
        order = [("a.avi", 5), ("a.avi", 2), ("b.avi", 3), ("a.avi", 7), ("a.avi", 7)]
        assert [number_in(videos.read(name, number)) for name, number in order] == [number for _, number in order]
        with pytest.raises(Unreadable, match="ends after 4 frames"):
            videos.read("b.avi", 4)


def test_a_hash_in_a_name_makes_no_video() -> None:
    assert video_frame("a/b.avi#12") == ("a/b.avi", 12) and video_frame("b.AVI#0") == ("b.AVI", 0)
    assert video_frame("a.avi") is None and video_frame("a#1.jpg") is None and video_frame("a.jpg#1") is None
    assert video_frame("a.avi#-1") is None and video_frame("a.avi#²") is None
