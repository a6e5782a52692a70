"""A video file in; its pictures out, from the first to the last, as many times as they are needed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.people.video import Timeline, Unreadable, Video, estimated_frames, read_timeline

WHOLE = 0.95  # a video counts as whole if this share of the frames that its header gives can be read


class Footage:
    """A video that is read several times from its start. InputError if no picture of it can be read.

    Once ``pictures`` has come to its end, ``frames`` is the number of pictures that could be read, and ``damage`` the
    reason why no more could be read ("" if the video is whole).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"{path}: there is no such video")
        try:
            self.timeline: Timeline = read_timeline(path)
        except Unreadable as error:
            raise InputError(f"{path}: {error}") from None
        self.frames, self.damage = 0, ""

    def pictures(self, what: str) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) BGR, upright, one after the other as far as they can be decoded; ``what`` labels the progress."""
        yield from cli.progress(self._pictures(), total=self.timeline.frames, what=what)

    def _pictures(self) -> Iterator[NDArray[np.uint8]]:
        count = 0
        with closing(Video(self.path)) as video:
            while True:
                try:
                    picture = video.read(count)
                except Unreadable as error:
                    self.frames = count
                    expected = max(self.timeline.frames, estimated_frames(self.path))
                    if "damaged" in str(error):
                        self.damage = str(error)
                    elif count < WHOLE * expected - 1:  # headers are not exact
                        self.damage = f"the video is cut: {count} of about {expected} frames could be read"
                    return
                yield picture
                count += 1
