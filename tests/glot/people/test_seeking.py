"""Pictures that are read in any order are the same as pictures that are read forwards."""

from pathlib import Path

import av
import numpy as np
import pytest

from glot.people.seeking import SeekableVideo
from glot.people.video import Unreadable, Video
from tests.fixtures.video import write_video


def every_picture(path: Path, count: int) -> list[np.ndarray]:
    video = Video(path)
    pictures = [video.read(number) for number in range(count)]
    video.close()
    return pictures


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("key_frames.mp4", {"codec": "libx264"}),  # B-frames, a key frame every 250
        ("often.avi", {"codec": "mpeg4"}),
        ("web.webm", {"codec": "libvpx-vp9"}),
        ("turned.mov", {"codec": "libx264", "turned": 90}),
        ("uneven.mkv", {"codec": "libx264", "ticks": [3 * i + (i % 3) for i in range(90)]}),
    ],
)
def test_pictures_in_any_order_are_the_same_as_read_forwards(tmp_path: Path, name: str, settings: dict) -> None:
    path = write_video(tmp_path / name, frames=90, **settings)
    expected = every_picture(path, 90)
    video = SeekableVideo(path)
    assert len(video) == 90
    for number in [0, 1, 40, 39, 89, 88, 3, 3, 50, 85, *np.random.default_rng(0).integers(0, 90, 20).tolist()]:
        np.testing.assert_array_equal(video.read(number), expected[number])
    with pytest.raises(Unreadable, match="has 90 frames"):
        video.read(90)
    assert video.read(5).shape == expected[5].shape
    video.close()


def test_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(Unreadable, match="not a readable video"):
        SeekableVideo(tmp_path / "text.mp4")
    with pytest.raises(Unreadable, match="No such file"):
        SeekableVideo(tmp_path / "nowhere.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(Unreadable, match="no pictures"):
        SeekableVideo(tmp_path / "sound.mp4")


def test_a_cut_video_gives_the_pictures_before_the_cut(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=90, codec="libx264")
    expected = every_picture(whole, 10)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    video = SeekableVideo(cut)
    assert 10 < len(video) < 90
    for number in (9, 3):
        np.testing.assert_array_equal(video.read(number), expected[number])
