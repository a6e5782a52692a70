"""Video files in; upright pictures and timelines out. Damage is reported; no picture is guessed.

Failures of a disk or a store are no damage: everything here raises NotNowError for them, besides what is named below.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from glot.people.video_reading.decoding import Decoding
from glot.people.video_reading.video_file import VIDEOS, Unreadable, VideoFile, video_frame
from glot.people.video_reading.video_packets import START, Cut
from glot.people.video_reading.video_scan import Scan, Timeline, estimated_frames, read_timeline, scan, upright

# What other rooms need to read videos; the other modules are parts of it.
__all__ = [
    "VIDEOS", "Cut", "Scan", "Timeline", "Unreadable", "Video", "Videos", "estimated_frames", "read_timeline", "scan",
    "upright", "video_frame",
]  # fmt: skip


class Video:
    """An open video, read forwards; few decoded pictures are in memory.

    ``start`` is one of the cuts that ``scan`` found: only pictures from there on are read, and they have the bytes and
    the numbers that reading from the beginning gives. ``entry`` says what the file was when it was listed
    (``glot.people.files.open_file``). ``frames`` is the number of pictures that the header gives, or 0;
    ``width`` and ``height`` are those in the header, not turned.

    A damaged picture, and those made from it, up to the next key frame, are Unreadable; the pictures after that have
    their right numbers. Raises Unreadable if the file cannot be opened.
    """

    def __init__(
        self, path: Path, *, threads: int = 1, start: Cut | None = None, entry: Mapping[str, Any] | None = None
    ) -> None:
        start, file = start or START, VideoFile(path, threads=threads, entry=entry)
        self.decoding = Decoding(file, start)
        self.frames, self.width, self.height = file.frames, file.stream.width, file.stream.height
        self.first = start.number
        self.number = self.first - 1
        self.shown: av.VideoFrame | None = None  # the picture ``number``
        self.ahead: tuple[int, av.VideoFrame] | None = None  # one that was decoded while looking for a lost one
        self.ended = ""  # the reason why there are no more pictures
        self.pictures: Iterator[tuple[int, av.VideoFrame]] = self.decoding.pictures()

    def read(self, number: int) -> NDArray[np.uint8]:
        """Picture ``number`` (0-based), not before the last one read, upright: (H, W, 3) BGR. Raises Unreadable."""
        assert number >= self.number
        while self.number < number and not self.ended:
            if self.ahead is None:
                self.ahead = next(self.pictures, None)
            if self.ahead is None:
                self._end()
            elif self.ahead[0] > number:
                break
            else:
                self.number, self.shown = self.ahead
                self.ahead = None
        if self.number < number and self.ahead is not None:
            first, last = self.number + 1, self.ahead[0] - 1
            which = f"frames {first} to {last} are" if last > first else f"frame {first} is"
            raise Unreadable(f"{which} damaged ({self.decoding.damage or 'the decoder gives no picture'})")
        if self.number < number or self.shown is None:
            raise Unreadable(self.ended)
        return upright(self.shown)

    def _end(self) -> None:
        damage = self.decoding.damage
        what = "is damaged" if damage else "ends"
        self.ended = f"the video {what} after {self.number + 1} frames" + (f" ({damage})" if damage else "")

    def close(self) -> None:
        self.decoding.close()


class Videos:
    """Reads "walk.avi#12" below ``root``, with one video open at a time.

    ``starts`` = {video: the cut from which its pictures are read}; others are read from their beginning. ``entries`` =
    {video: its size and time when it was listed}: ChangedError, which is a NotNowError, if it is another file now.
    """

    def __init__(
        self,
        root: Path,
        *,
        threads: int = 1,
        starts: Mapping[str, Cut] | None = None,
        entries: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.root, self.threads, self.starts, self.entries = root, threads, starts or {}, entries or {}
        self.name = ""
        self.video: Video | None = None
        self.reason = ""

    def read(self, name: str, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) BGR, upright. Raises Unreadable. The video is opened again for a picture before the last one."""
        if name != self.name or (self.video and number < max(self.video.number, self.video.first)):
            self.close()
            self.name, self.reason = name, ""
            start = self.starts.get(name)
            if start is not None and start.number > number:
                start = None
            try:
                self.video = Video(self.root / name, threads=self.threads, start=start, entry=self.entries.get(name))
            except Unreadable as error:
                self.reason = str(error)
        if self.video is None:
            raise Unreadable(self.reason)
        return self.video.read(number)

    def close(self) -> None:
        if self.video:
            self.video.close()
        self.name, self.video = "", None
