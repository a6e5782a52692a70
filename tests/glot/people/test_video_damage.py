"""Damage costs the pictures that it touches, not the video; no picture is shown painted over or under a wrong number.

Failures of a disk or a store are never taken for damage.
"""

import errno
import io
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from glot.errors import NotNowError
from glot.people.files import SourceFile
from glot.people.seeking import SeekableVideo
from glot.people.video import Unreadable, Video, read_timeline, scan
from glot.people.video_reading import video_file
from glot.people.video_reading.video_file import VideoFile
from glot.people.video_reading.video_packets import Picture, pictures
from tests.fixtures.video import copy_stream, write_film
from tests.glot.people.test_video_cuts import OPEN, assert_same, read_from

CLOSED = {"x264-params": "keyint=15:min-keyint=15:bframes=2:scenecut=0"}
KINDS = {
    "closed.mp4": {"options": CLOSED},
    "open.mp4": {"options": OPEN},
    "open.mkv": {"options": OPEN},
    "slices.mkv": {"options": {"x264-params": "slices=4:keyint=15:bframes=2"}},
    "closed.flv": {"options": CLOSED},
    "b.mkv": {"codec": "mpeg4", "b_frames": 2, "key_every": 15},
    "plain.avi": {"codec": "mpeg4", "key_every": 15},
    "sorenson.flv": {"codec": "flv", "key_every": 15},
    "all.mkv": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


def stored_at(path: Path, place: int) -> tuple[int, int]:
    """(position, size) of a packet's content in the file."""
    with av.open(str(path)) as container:
        content = bytes([packet for packet in container.demux(video=0) if packet.size][place])
    start = path.read_bytes().find(content)
    assert start > 0
    return start, len(content)


def at(path: Path, place: int) -> Picture:
    with closing(VideoFile(path)) as file:
        return list(pictures(file))[place]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("harm", ["noise", "zeros"])
def test_damage_costs_the_pictures_up_to_the_next_key_frame(tmp_path: Path, name: str, harm: str) -> None:
    path = write_film(tmp_path / name, **KINDS[name])  # type: ignore[arg-type]
    whole, _ = read_from(path)
    place = max(
        range(20, 27), key=lambda place: stored_at(path, place)[1] * (not at(path, place).is_key or name == "all.mkv")
    )
    start, size = stored_at(path, place)
    content = bytearray(path.read_bytes())
    half = slice(start + size // 2, start + size)
    content[half] = np.random.default_rng(0).bytes(size - size // 2) if harm == "noise" else bytes(size - size // 2)
    path.write_bytes(content)
    found, lost = read_from(path)
    assert_same(found, {number: whole[number] for number in found})
    gone = sorted(number for number in lost if number < 60)
    assert at(path, place).number in gone and "damaged" in lost[gone[0]]
    assert gone == list(range(gone[0], gone[-1] + 1)) and len(gone) <= 20 and gone[-1] < 36
    assert lost[60] == "the video ends after 60 frames"
    found_by_three, lost_by_three = read_from(path, threads=3)
    assert_same(found_by_three, found)
    assert lost_by_three == lost
    for cut in scan(path, 10).cuts[1:]:
        assert_same(read_from(path, cut)[0], {n: picture for n, picture in found.items() if n >= cut.number})
    assert read_timeline(path).frames == 60
    with closing(SeekableVideo(path)) as video:
        assert np.array_equal(video.read(50), whole[50])
        with pytest.raises(Unreadable, match="damaged"):
            video.read(gone[0])
        assert np.array_equal(video.read(3), whole[3])


def test_a_picture_that_is_missing_costs_those_made_from_it(tmp_path: Path) -> None:
    """The decoder of H.264 puts another picture in its place, without a word."""
    path = write_film(tmp_path / "whole.mkv", options={"x264-params": "keyint=15:min-keyint=15:bframes=0"})
    whole, _ = read_from(path)
    found, lost = read_from(copy_stream(path, tmp_path / "without.mkv", leave_out=(20,)))
    assert_same(found, {number: whole[number] for number in range(20)})
    # From the times, one is missing, or the rate varies. So no later number is known.
    assert lost == {20: "the video is damaged after 20 frames (one is lost)"}


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_what_no_picture_needs_may_be_broken(tmp_path: Path, ending: str) -> None:
    path = write_film(tmp_path / f"a{ending}", options=CLOSED)
    whole, _ = read_from(path)
    content = path.read_bytes()
    note = content.find(b"x264 - core") - 17  # its length and identifier are before the text
    broken = bytearray(content)
    broken[note] = 0xFE  # longer than the unit that holds it
    path.write_bytes(broken)
    found, lost = read_from(path)
    assert_same(found, whole)
    assert list(lost) == [60]


@pytest.mark.parametrize("name", ["closed.mkv", "plain.avi", "closed.ts", "closed.flv"])
def test_a_file_without_its_last_bytes_has_all_pictures_but_the_last_ones(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, **{"codec": "mpeg4"} if name == "plain.avi" else {"options": CLOSED})
    whole, _ = read_from(path)
    start, size = (path.stat().st_size - 188 * 6, 0) if name == "closed.ts" else stored_at(path, 58)
    path.write_bytes(path.read_bytes()[: start + size // 2])
    found, lost = read_from(path)
    assert 50 <= len(found) < 60 and list(found) == list(range(len(found)))
    if name == "closed.ts":  # this format does not say where a picture ends, and small ones end in what cannot be told
        del found[max(found)]
    assert_same(found, {number: whole[number] for number in found})
    assert f"after {max(lost)} frames" in lost[max(lost)]


class Failing(io.RawIOBase):
    """A file on a disk that fails once ``limit`` bytes were read."""

    def __init__(self, path: Path, error: OSError, limit: int) -> None:
        self.file, self.error, self.left, self.failure = path.open("rb"), error, limit, None

    def readinto(self, buffer: Any) -> int:
        if self.left <= 0:
            self.failure = self.error
            raise self.error
        count = self.file.readinto(memoryview(buffer)[: max(self.left, 1)])
        self.left -= count
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mpg", "a.flv", "a.wmv"])
def test_a_disk_that_fails_is_never_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    codecs = {".avi": "mpeg4", ".wmv": "wmv2", ".mpg": "mpeg2video"}
    path = write_film(tmp_path / name, codec=codecs.get(Path(name).suffix, "libx264"))
    size = path.stat().st_size
    monkeypatch.setattr(video_file, "READ_AT_ONCE", 1024)
    for share in (0.0, 0.3, 0.6, 0.9):
        broken = OSError(code, "fails")
        monkeypatch.setattr(video_file, "open_file", lambda p, e=None: Failing(p, broken, int(share * size)))  # noqa: B023
        for action in (lambda: read_from(path), lambda: scan(path, 10), lambda: SeekableVideo(path).read(50)):
            with pytest.raises(NotNowError, match="fails"):
                action()


def test_a_file_that_is_missing_is_the_inputs_fault_unless_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "gone.mp4"
    with pytest.raises(Unreadable, match="No such file"):
        Video(path)
    for action in (Video, read_timeline):
        with pytest.raises(NotNowError, match="changed since it was listed"):
            action(path, entry={"path": "gone.mp4", "bytes": 7, "modified": 7})
    assert isinstance(VideoFile(write_film(tmp_path / "a.mp4", frames=3)).source, SourceFile)
