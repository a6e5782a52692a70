"""Video files in; upright pictures and timelines out. Damage is reported; no picture is guessed."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

# A video is read in the format of its suffix. If FFmpeg guessed it, a playlist could lead to other files and hosts.
VIDEOS = {".avi": "avi", ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska"}
REORDERED = 32  # pictures; codecs store a picture at most 16 places away from its place in time
NOMINAL_FPS = 30.0  # assumed for a video that does not give its frame rate


class Unreadable(Exception):
    """A picture or a video that cannot be read; the message is the reason."""


def video_frame(image: str) -> tuple[str, int] | None:
    """("walk.avi", 12) for "walk.avi#12", picture 12 (from 0) of the video. None for the path of a picture."""
    name, _, number = image.rpartition("#")
    return (name, int(number)) if number.isdecimal() and Path(name).suffix.lower() in VIDEOS else None


class Timeline(NamedTuple):
    """The pictures of a video and their rate."""

    frames: int  # pictures in the file
    fps: float  # mean frame rate
    even: bool  # whether the frame rate is constant
    width: int  # px, upright
    height: int  # px, upright


def read_timeline(path: Path) -> Timeline:
    """Reads through a whole video and decodes only its first picture. Raises Unreadable."""
    video = Video(path)
    try:
        height, width = video.read(0).shape[:2]
    finally:
        video.close()
    steps: list[float] = []  # the shortest and the longest time between two pictures, s
    frames = 0
    with opened(path) as container:
        stream = container.streams.video[0]
        unit = float(stream.time_base or 0)
        last = None
        for when in _times(container):
            frames += 1
            if last is not None:
                step = unit * (when - last)
                steps = [min([*steps[:1], step]), max([*steps[1:], step])]
            last = when
        rate = stream.average_rate or stream.guessed_rate
    # Times are whole units, so even steps may differ by one.
    even = not steps or steps[1] - steps[0] <= max(1.5 * unit, 0.02 * steps[1])
    return Timeline(max(frames, 1), float(rate) if rate else NOMINAL_FPS, even, width, height)


def _times(container: "av.container.InputContainer") -> Iterator[int]:
    """The times of the pictures, in rising order. (Files store pictures in the order in which they can be decoded.)"""
    waiting: list[int] = []
    try:
        for packet in container.demux(container.streams.video[0]):
            when = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 or when is None:
                continue
            if len(waiting) < REORDERED:
                heapq.heappush(waiting, when)
            else:
                yield heapq.heappushpop(waiting, when)
    except (av.FFmpegError, ValueError):
        pass  # the file is cut; reading its pictures shows where
    yield from sorted(waiting)


def estimated_frames(path: Path) -> int:
    """The number of pictures by a video's header, or by its length; 0 if it cannot be opened. Nothing else is read."""
    try:
        video = Video(path)
    except Unreadable:
        return 0
    with video.container as container:
        seconds = (container.duration or 0) / av.time_base
        return video.frames or round(seconds * float(video.stream.average_rate or NOMINAL_FPS))


def upright(shown: av.VideoFrame) -> NDArray[np.uint8]:
    """A decoded picture, turned upright: (H, W, 3) BGR."""
    picture: NDArray[np.uint8] = shown.to_ndarray(format="bgr24")  # type: ignore[assignment]
    # Phones film sideways and store the rotation: a quarter turn counterclockwise for every 90 degrees.
    turns = round(getattr(shown, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def opened(path: Path) -> "av.container.InputContainer":
    """The file, opened in the format of its suffix. Raises Unreadable."""
    try:
        return av.open(str(path), format=VIDEOS[path.suffix.lower()])
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(f"not a readable video ({_reason(error)})") from None


class Video:
    """An open video, read forwards; one decoded picture is in memory.

    ``frames`` is the number of pictures that the header gives, or 0. Pictures are numbered by counting them; when one
    is lost, the later numbers would be wrong. So the first damage ends the video: all pictures after it are Unreadable,
    even if they can be decoded. Raises Unreadable if the file cannot be opened.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.container = opened(path)
        if not self.container.streams.video:
            self.close()
            raise Unreadable("no pictures in this video")
        self.stream = self.container.streams.video[0]
        self.frames, self.width, self.height = self.stream.frames, self.stream.width, self.stream.height
        self.stream.codec_context.options = {"err_detect": "explode"}  # an error, instead of painting over broken parts
        self.stream.codec_context.thread_count = threads
        if threads > 1:
            self.stream.thread_type = "AUTO"
        # With B-frames, pictures are stored in another order than they are shown in.
        self.reordered = bool(self.stream.codec_context.has_b_frames)
        self.number = -1
        self.shown: av.VideoFrame | None = None  # the picture decoded last; its number is ``number``
        self.ended = ""  # the reason why there are no more pictures
        self.pictures = self._decode()

    def read(self, number: int) -> NDArray[np.uint8]:
        """Picture ``number`` (0-based), not before the last one read, upright: (H, W, 3) BGR. Raises Unreadable."""
        assert number >= self.number
        while self.number < number and not self.ended:
            try:
                shown = next(self.pictures)
                if shown.is_corrupt:  # its broken parts were painted over
                    raise Unreadable("the next one is broken")
                self.shown = shown
                self.number += 1
            except StopIteration:
                self.ended = f"the video ends after {self.number + 1} frames"
            except Unreadable as error:
                self.ended = f"the video is damaged after {self.number + 1} frames ({error})"
            except (av.FFmpegError, ValueError, MemoryError) as error:
                self.ended = f"the video is damaged after {self.number + 1} frames ({_reason(error)})"
        if self.number < number or self.shown is None:
            raise Unreadable(self.ended)
        return upright(self.shown)

    def close(self) -> None:
        self.container.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        # The index of an AVI gives the place of each picture, so a lost picture is noticed. (PyAV gives the index from
        # 17 on.)
        index = getattr(self.stream, "index_entries", ()) if self.container.format.name == "avi" else ()
        for packets, packet in enumerate(self.container.demux(self.stream)):
            # The last packet is empty: the decoder then gives the pictures that it holds back.
            if packet.size == 0 and packet.pos is None:
                if self.reordered and packets < self.frames:
                    return  # the file is cut: some of the pictures held back are missing
                yield from packet.decode()
                return
            lost, start = False, (packet.pos or 0) - 8  # start of the chunk, whose name and size take 8 bytes
            if packets < len(index) and index[packets].pos != start:
                lost = any(index[i].pos == start for i in range(packets + 1, len(index)))
                index = ()  # the index describes other places, so it cannot be used
            if packet.is_corrupt or lost:
                if not self.reordered:
                    yield from self.stream.decode(None)
                raise Unreadable("one is lost" if lost else "the file is cut")
            yield from packet.decode()


class Videos:
    """Reads "walk.avi#12" below ``root``, with one video open at a time."""

    def __init__(self, root: Path, *, threads: int = 1) -> None:
        self.root, self.threads = root, threads
        self.name = ""
        self.video: Video | None = None
        self.reason = ""

    def read(self, name: str, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) BGR, upright. Raises Unreadable. The video is opened again for a picture before the last one."""
        if name != self.name or (self.video and number < self.video.number):
            self.close()
            self.name, self.reason = name, ""
            try:
                self.video = Video(self.root / name, threads=self.threads)
            except Unreadable as error:
                self.reason = str(error)
        if self.video is None:
            raise Unreadable(self.reason)
        return self.video.read(number)

    def close(self) -> None:
        if self.video:
            self.video.close()
        self.name, self.video = "", None


def _reason(error: Exception) -> str:
    """FFmpeg's message without its error number and path."""
    return getattr(error, "strerror", None) or type(error).__name__
