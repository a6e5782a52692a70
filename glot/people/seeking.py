"""A video in; any of its pictures out, in any order. Decoding begins at the key frame before the picture.

Pictures are numbered as by glot.people.video, which reads forwards only.
"""

from array import array
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glot.people.video import Cut, Unreadable, Video
from glot.people.video_reading.video_file import VideoFile
from glot.people.video_reading.video_packets import pictures

NEAR = 30  # up to this many pictures ahead, reading on is faster than seeking


class SeekableVideo:
    """An open video. The places of its key frames are in memory. Unreadable if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        numbers, times, self.count = array("q"), array("q"), 0
        with closing(VideoFile(path)) as file:
            self.fps = float(file.stream.average_rate or 0)
            latest: int | None = None
            for picture in pictures(file):
                if picture.number < 0:
                    continue
                self.count += 1
                if (
                    picture.is_key
                    and not (picture.joined or file.untimed)
                    and (latest is None or latest < picture.time)
                ):
                    numbers.append(picture.number)
                    times.append(picture.time)
                latest = picture.time if latest is None else max(latest, picture.time)
        self.keys, self.times = np.array(numbers, np.int64), np.array(times, np.int64)
        self.video = Video(path)
        self.read(0)

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> NDArray[np.uint8]:
        """Picture ``number`` (0-based), upright: (H, W, 3) BGR. Raises Unreadable."""
        if not 0 <= number < self.count:
            raise Unreadable(f"the video has {self.count} frames, from 0")
        if self.video.number <= number <= self.video.number + NEAR:
            return self.video.read(number)
        before = int(np.searchsorted(self.keys, number, side="right")) - 1
        # Some key frames cannot be decoded without the pictures before them (``video_scan``).
        for key in range(before, max(before - 2, 0), -1):
            self._open(Cut(int(self.keys[key]), int(self.times[key])))
            try:
                return self.video.read(number)
            except Unreadable:
                continue
        self._open(None)
        return self.video.read(number)

    def close(self) -> None:
        self.video.close()

    def _open(self, start: Cut | None) -> None:
        self.video.close()
        self.video = Video(self.path, start=start)
