"""Missing pictures of H.264 are noticed by the numbers in its headers; whole videos have none."""

from contextlib import closing
from pathlib import Path

import pytest

from glot.people.video_reading.video_file import VideoFile
from glot.people.video_reading.video_packets import pictures
from tests.fixtures.video import copy_stream, write_film
from tests.glot.people.test_video_cuts import OPEN, PYRAMID, SLICES


@pytest.mark.parametrize("ending", [".mp4", ".ts", ".mkv"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"profile": "baseline"}, OPEN, PYRAMID, SLICES])
def test_a_missing_picture_is_noticed_and_a_whole_video_misses_none(
    tmp_path: Path, options: dict[str, str], ending: str
) -> None:
    path = write_film(tmp_path / f"a{ending}", options=options)
    with closing(VideoFile(path)) as file:
        assert not any(picture.lost_before for picture in pictures(file))
    if "x264-params" in options:
        return
    with closing(VideoFile(copy_stream(path, tmp_path / f"b{ending}", leave_out=(15,)))) as file:
        assert [place for place, picture in enumerate(pictures(file)) if picture.lost_before] == [15]
