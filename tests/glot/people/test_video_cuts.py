"""Pictures that are read from a cut are, byte by byte, those that reading from the beginning gives."""

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from glot.people.seeking import SeekableVideo
from glot.people.video import Cut, Unreadable, Video, Videos, estimated_frames, scan
from glot.people.video_reading.video_file import VideoFile
from glot.people.video_reading.video_packets import pictures
from tests.fixtures.video import copy_stream, write_film

OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
PYRAMID = {"x264-params": "open-gop=1:keyint=14:bframes=5:b-pyramid=strict:ref=5:b-adapt=0"}
SLICES = {"x264-params": "open-gop=1:bluray-compat=1:keyint=13:ref=4:bframes=3:slices=4"}
X265 = {"x265-params": "log-level=0:keyint=12:open-gop=1"}
UNEVEN = [40 * number + 17 * (number % 3) + 300 * (number > 25) for number in range(60)]

KINDS = {
    "closed.mp4": {"codec": "libx264"},
    "open.mp4": {"options": OPEN},
    "open.3gp": {"options": OPEN},
    "open.mkv": {"options": PYRAMID},
    "slices.mkv": {"options": SLICES},
    "open.ts": {"options": OPEN},
    "open.m2ts": {"options": PYRAMID},
    "open.mts": {"options": OPEN},
    "open.flv": {"options": OPEN},
    "sorenson.flv": {"codec": "flv"},
    "b.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "b.mpeg": {"codec": "mpeg1video", "b_frames": 2},
    "b.ts": {"codec": "mpeg2video", "b_frames": 2},
    "b.mkv": {"codec": "mpeg4", "b_frames": 2},
    "plain.wmv": {"codec": "wmv2"},
    "plain.avi": {"codec": "mpeg4"},
    "all.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "h263.3gp": {"codec": "h263", "size": (176, 144)},
    "x265.mp4": {"codec": "libx265", "options": X265},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "8"}},
    "uneven.mp4": {"options": OPEN, "ticks": UNEVEN},
}


def read_from(
    path: Path, start: Cut | None = None, *, threads: int = 1
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The pictures that can be read, and the reasons for the others, until the video ends."""
    read: dict[int, np.ndarray] = {}
    lost: dict[int, str] = {}
    number = start.number if start else 0
    with closing(Video(path, threads=threads, start=start)) as video:
        while not video.ended:
            try:
                read[number] = video.read(number)
            except Unreadable as error:
                lost[number] = str(error)
            number += 1
    return read, lost


def assert_same(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for number, picture in found.items():
        assert np.array_equal(picture, expected[number]), number


def shown_by_opencv(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.parametrize("name", KINDS)
def test_reading_from_any_cut_is_reading_from_the_beginning(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, **KINDS[name])  # type: ignore[arg-type]
    whole, ends = read_from(path)
    assert len(whole) == 60 == shown_by_opencv(path) and list(ends) == [60]
    timeline, cuts = scan(path, 10)
    assert timeline.frames == 60 and timeline.even == (name != "uneven.mp4")
    assert len(cuts) >= 4 and cuts[0].number == 0
    for cut in cuts:
        assert_same(read_from(path, cut)[0], {n: picture for n, picture in whole.items() if n >= cut.number})
    assert_same(read_from(path, cuts[1], threads=3)[0], {n: p for n, p in whole.items() if n >= cuts[1].number})
    with closing(SeekableVideo(path)) as video:
        assert len(video) == 60
        for number in (59, 0, cuts[2].number - 1, cuts[2].number, 31):
            assert np.array_equal(video.read(number), whole[number])


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".3gp"])
@pytest.mark.parametrize("start", [0.2, 1.0, 1.48])
def test_what_an_edit_list_hides_is_no_picture(tmp_path: Path, ending: str, start: float) -> None:
    source = write_film(tmp_path / "whole.mp4", options=OPEN)
    path = copy_stream(source, tmp_path / f"trimmed{ending}", start=start)
    whole, _ = read_from(source)
    first = round(25 * start)
    found, lost = read_from(path)
    assert len(found) == 60 - first == shown_by_opencv(path) and list(lost.values()) == [
        f"the video ends after {60 - first} frames"
    ]
    assert_same(found, {n - first: picture for n, picture in whole.items() if n >= first})
    timeline, cuts = scan(path, 10)
    assert timeline.frames == estimated_frames(path) == 60 - first and timeline.even and len(cuts) > 1
    for cut in cuts:
        assert_same(read_from(path, cut)[0], {n: picture for n, picture in found.items() if n >= cut.number})
    with closing(SeekableVideo(path)) as video:
        assert len(video) == 60 - first and np.array_equal(video.read(20), found[20])


@pytest.mark.parametrize("ending", [".mkv", ".ts", ".flv"])
@pytest.mark.parametrize(("first", "shown"), [(0, 0), ("key", 24), ("middle", 24)])
def test_a_film_that_begins_in_the_middle_begins_at_its_first_key_frame(
    tmp_path: Path, ending: str, first: int | str, shown: int
) -> None:
    source = write_film(tmp_path / f"whole{ending}", options=OPEN)
    whole, _ = read_from(source)
    with closing(VideoFile(source)) as file:
        stored = list(pictures(file))
    key = next(place for place, picture in enumerate(stored) if picture.is_key and picture.number == shown)
    place = 0 if first == 0 else key if first == "key" else key - 4
    path = copy_stream(source, tmp_path / f"cut{ending}", first=place)
    found, _ = read_from(path)
    assert_same(found, {n - shown: picture for n, picture in whole.items() if n >= shown})
    timeline, cuts = scan(path, 10)
    assert timeline.frames == 60 - shown and len(cuts) > 2
    assert_same(read_from(path, cuts[1])[0], {n: picture for n, picture in found.items() if n >= cuts[1].number})


def test_there_is_no_cut_where_reading_cannot_begin(tmp_path: Path) -> None:
    refresh = {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}  # marked as key frames, but made from others
    assert len(scan(write_film(tmp_path / "refresh.ts", options=refresh), 10).cuts) == 1
    assert len(scan(write_film(tmp_path / "b.avi", codec="mpeg4", b_frames=2), 10).cuts) == 1
    assert len(scan(write_film(tmp_path / "one.mp4", key_every=250), 10).cuts) == 1
    path = write_film(tmp_path / "often.mp4", codec="mpeg4", key_every=2)
    assert [cut.number for cut in scan(path, 20).cuts] == [0, 20, 40]
    assert [cut.number for cut in scan(path, 50).cuts] == [0], "a short rest belongs to the range before"


def test_recordings_joined_together_are_read_to_the_end(tmp_path: Path) -> None:
    first = write_film(tmp_path / "a.ts", options=OPEN, frames=40)
    second = write_film(tmp_path / "b.ts", options=OPEN, frames=30)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())  # times begin anew at picture 40
    timeline, cuts = scan(path, 10)
    assert timeline.frames == 70 and len(cuts) > 2 and all(cut.number < 40 for cut in cuts)
    found, lost = read_from(path)
    assert {number for number in lost if number < 70} <= {37, 38, 39}, "the format marks what is stored at the joint"
    for number, picture in read_from(second)[0].items():
        assert np.array_equal(found[40 + number], picture)


def test_videos_are_read_from_their_cuts(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", options=OPEN)
    whole, _ = read_from(path)
    cut = scan(path, 20).cuts[1]
    with closing(Videos(tmp_path, starts={"a.mp4": cut})) as videos:
        for number in (cut.number, 50, cut.number, cut.number - 1, 3, 50):
            assert np.array_equal(videos.read("a.mp4", number), whole[number])


def test_the_mean_rate_comes_from_the_times_where_the_header_says_nothing_or_another_one(tmp_path: Path) -> None:
    ticks = np.cumsum(np.random.default_rng(0).integers(5, 90, 60)).tolist()
    for name in ("a.mkv", "a.flv", "a.mp4"):
        timeline = scan(write_film(tmp_path / name, ticks=ticks, options=OPEN), 20).timeline
        assert timeline.fps == pytest.approx(59 / (ticks[-1] - ticks[0]) * 1000, rel=0.02) and not timeline.even
