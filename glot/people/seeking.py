"""A video in; any of its pictures out, in any order. Decoding begins at the key frame before the picture.

Pictures are numbered as by glot.people.video, which reads forwards only.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from glot.people.video import Unreadable, opened, upright

NEAR = 30  # up to this many pictures ahead, reading on is faster than seeking


class SeekableVideo:
    """An open video. One decoded picture and all pictures' times are in memory. Unreadable if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.container = opened(path)
        if not self.container.streams.video:
            self.container.close()
            raise Unreadable("no pictures in this video")
        self.stream = self.container.streams.video[0]
        self.times = self._times()
        self.fps = float(self.stream.average_rate or 0)
        self.number = -1  # number of the picture decoded last
        self.shown: av.VideoFrame | None = None
        self.pictures: Iterator[av.VideoFrame] = iter(())
        self.read(0)

    def __len__(self) -> int:
        return len(self.times)

    def read(self, number: int) -> NDArray[np.uint8]:
        """Picture ``number`` (0-based), upright: (H, W, 3) BGR. Raises Unreadable."""
        if not 0 <= number < len(self.times):
            raise Unreadable(f"the video has {len(self.times)} frames, from 0")
        if self.shown is None or not self.number <= number <= self.number + NEAR:
            self._jump(number)
        while self.shown is None or self.number < number:
            self._next(number)
        return upright(self.shown)

    def close(self) -> None:
        self.container.close()

    def _times(self) -> NDArray[np.int64]:
        """The time of each picture, in the stream's units. No picture is decoded."""
        found = []
        try:
            for packet in self.container.demux(self.stream):
                when = packet.pts if packet.pts is not None else packet.dts
                if packet.size and when is not None and not packet.is_discard:
                    found.append(when)
        except (av.FFmpegError, ValueError):
            pass  # the file is cut; the pictures before the cut can be shown
        return np.sort(np.array(found, np.int64))

    def _jump(self, number: int) -> None:
        self.shown = None
        try:
            self.container.seek(int(self.times[number]), stream=self.stream, backward=True)
            self.pictures = self.container.decode(self.stream)
        except (av.FFmpegError, ValueError) as error:
            raise Unreadable(f"frame {number} cannot be found ({error})") from None

    def _next(self, number: int) -> None:
        try:
            self.shown = next(self.pictures)
        except (StopIteration, av.FFmpegError, ValueError) as error:
            self.shown = None
            raise Unreadable(f"frame {number} cannot be decoded ({error or 'the video ends before it'})") from None
        when = self.shown.pts if self.shown.pts is not None else self.shown.dts
        # The number follows from the time: after a jump, the number of the key frame is not known.
        self.number = self.number + 1 if when is None else int(np.searchsorted(self.times, when, side="right")) - 1
