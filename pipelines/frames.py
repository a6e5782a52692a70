"""Clips in, crops out: every picture is read and decoded once for all its people, ahead of whoever works on them."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from glot.crop import CROP_SIZE, crop_image
from glot.errors import InputError
from pipelines.clips import Clip
from pipelines.decoders.insta_variety import MARK, read_record_picture

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # of a JPEG file, of its picture data, of the file
# A video is read as what its name says. Left to guess, FFmpeg would also follow a playlist to other files and hosts.
VIDEOS = {".avi": "avi", ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska"}
REORDERED = 32  # pictures; codecs store one at most 16 places from where it is shown
NOMINAL_FPS = 30.0  # of a video that does not say


Alter = Callable[[NDArray[np.uint8], Clip, int], NDArray[np.uint8]]


class Unreadable(Exception):
    """A picture that cannot be had; the message is the reason."""


class Frame(NamedTuple):
    """One picture with the crops of its people; ``reason`` is empty, or says why there are none."""

    image: str
    people: list[tuple[int, int]]  # (clip, row in it)
    crops: list[NDArray[np.uint8]]  # (size, size, 3) RGB, one for each of people
    reason: str = ""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) BGR. Raises Unreadable; a JPEG cut short is one, although OpenCV would return it half grey."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    return decode_picture(content)


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """A picture file's content -> (H, W, 3) BGR; raises Unreadable as ``read_picture`` does."""
    # Inside picture data neither marker can occur by chance; an embedded thumbnail has both, before the main picture's.
    if content.startswith(START) and content.rfind(END) <= content.rfind(SCAN):
        raise Unreadable("truncated JPEG")
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:
        picture = None
    if picture is None:
        raise Unreadable("not a readable picture" if content else "empty file")
    return picture  # type: ignore[return-value]


def video_frame(image: str) -> tuple[str, int] | None:
    """("walk.avi", 12) of "walk.avi#12", the picture that video shows after 12 others; None for a picture's path."""
    name, _, number = image.rpartition("#")
    return (name, int(number)) if number.isdecimal() and Path(name).suffix.lower() in VIDEOS else None


class Timeline(NamedTuple):
    """What a video shows, and when."""

    frames: int  # pictures in the file
    fps: float  # mean
    even: bool  # whether pictures follow each other in even steps
    width: int  # as shown, px
    height: int


def read_timeline(path: Path) -> Timeline:
    """Walks through a whole video; only its first picture is decoded. Raises Unreadable."""
    video = Video(path)
    try:
        height, width = video.read(0).shape[:2]
    finally:
        video.close()
    steps: list[float] = []  # shortest and longest
    frames = 0
    with _opened(path) as container:
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
    """When the pictures are shown, in order; they are stored in the order in which they can be decoded."""
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
        pass  # the file is cut: reading its pictures says where
    yield from sorted(waiting)


def frames_said(path: Path) -> int:
    """How many pictures a video's header says, or its length suggests; 0 where it cannot be opened. Reads no more."""
    try:
        video = Video(path)
    except Unreadable:
        return 0
    with video.container as container:
        seconds = (container.duration or 0) / av.time_base
        return video.frames or round(seconds * float(video.stream.average_rate or NOMINAL_FPS))


def _opened(path: Path) -> "av.container.InputContainer":
    try:
        return av.open(str(path), format=VIDEOS[path.suffix.lower()])
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(f"not a readable video ({_said(error)})") from None


class Video:
    """An open video, read forwards: one decoded picture is in memory. ``frames`` is what its header says, 0: nothing.

    Pictures are numbered by counting them, which fails silently when one is lost. So the first damage ends the video:
    what follows is Unreadable rather than perhaps its neighbour. Raises Unreadable where the file cannot be opened.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.container = _opened(path)
        if not self.container.streams.video:
            self.close()
            raise Unreadable("no pictures in this video")
        self.stream = self.container.streams.video[0]
        self.frames, self.width, self.height = self.stream.frames, self.stream.width, self.stream.height
        self.stream.codec_context.options = {"err_detect": "explode"}  # rather than painting broken parts over
        self.stream.codec_context.thread_count = threads
        if threads > 1:
            self.stream.thread_type = "AUTO"
        # With B-frames, pictures are stored in another order than shown.
        self.reordered = bool(self.stream.codec_context.has_b_frames)
        self.number = -1
        self.shown: av.VideoFrame | None = None  # the latest picture decoded, of that number
        self.ended = ""  # the reason why there are no more
        self.pictures = self._decode()

    def read(self, number: int) -> NDArray[np.uint8]:
        """Picture ``number`` (0-based), not before the one read last, upright: (H, W, 3) BGR. Raises Unreadable."""
        assert number >= self.number
        while self.number < number and not self.ended:
            try:
                shown = next(self.pictures)
                if shown.is_corrupt:  # broken parts painted over
                    raise Unreadable("the next one is broken")
                self.shown = shown
                self.number += 1
            except StopIteration:
                self.ended = f"the video ends after {self.number + 1} frames"
            except Unreadable as error:
                self.ended = f"the video is damaged after {self.number + 1} frames ({error})"
            except (av.FFmpegError, ValueError, MemoryError) as error:
                self.ended = f"the video is damaged after {self.number + 1} frames ({_said(error)})"
        if self.number < number or self.shown is None:
            raise Unreadable(self.ended)
        picture: NDArray[np.uint8] = self.shown.to_ndarray(format="bgr24")  # type: ignore[assignment]
        # Phones film sideways and say so: a quarter turn counterclockwise for every 90 degrees.
        turns = round(getattr(self.shown, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def close(self) -> None:
        self.container.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        # The index of an AVI tells where each picture starts: a lost one shows. (PyAV before 17 does not have it.)
        index = getattr(self.stream, "index_entries", ()) if self.container.format.name == "avi" else ()
        for packets, packet in enumerate(self.container.demux(self.stream)):
            if packet.size == 0 and packet.pos is None:  # the last: tells the decoder to give what it holds back
                if self.reordered and packets < self.frames:
                    return  # cut short: among the pictures held back some are missing
                yield from packet.decode()
                return
            lost, start = False, (packet.pos or 0) - 8  # of the chunk, with its name and size
            if packets < len(index) and index[packets].pos != start:
                lost = any(index[i].pos == start for i in range(packets + 1, len(index)))
                index = ()  # an index of other places says nothing
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
        """(H, W, 3) BGR. Raises Unreadable. Going back opens the video again."""
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


def read_crops(
    root: Path,
    clips: Sequence[Clip],
    *,
    size: int = CROP_SIZE,
    alter: Alter | None = None,
    threads: int = 1,
    ahead: int = 16,
) -> Iterator[Frame]:
    """Frames in time order, of videos one video after the other, with crops of ``size`` px; up to ``ahead`` pictures
    are read and cropped in the background while one is worked on.

    ``alter(crop, clip, row)`` returns what to put in the place of a crop; it runs in the reading threads.
    """
    pending: deque[Future[Frame]] = deque()
    videos = Videos(root, threads=threads)
    # A video is read forwards, so by one thread; its decoder has the others.
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool, ThreadPoolExecutor(1, "read-video") as single:
        try:
            for image, people in _in_order(clips):
                to = single if video_frame(image) else pool
                pending.append(to.submit(_frame, root, videos, clips, image, people, size, alter))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            single.shutdown(wait=True, cancel_futures=True)
            videos.close()


def _in_order(clips: Sequence[Clip]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Pictures with their people, (clip, row) each: clips are in time order, so they are merged, and none is listed."""

    def rows(number: int, clip: Clip) -> Iterator[tuple[tuple[str, int, str], int, int]]:
        for row, image in enumerate(clip.image):
            yield (*(video_frame(image) or ("", int(clip.frame_index[row]))), image), number, row

    merged = heapq.merge(*(rows(number, clip) for number, clip in enumerate(clips)))
    for (_, _, image), group in itertools.groupby(merged, key=lambda item: item[0]):
        yield image, [(number, row) for _, number, row in group]


def _frame(
    root: Path,
    videos: Videos,
    clips: Sequence[Clip],
    image: str,
    people: list[tuple[int, int]],
    size: int,
    alter: Alter | None,
) -> Frame:
    try:
        if MARK in image:
            picture = decode_picture(read_record_picture(root, image))
        elif part := video_frame(image):
            picture = videos.read(*part)
        else:
            picture = read_picture(root / image)
    except (Unreadable, InputError) as error:
        return Frame(image, people, [], str(error))
    crops = []
    for number, row in people:
        clip = clips[number]
        crop = crop_image(picture, clip.bbox[row], clip.feature_scale or clip.crop_scale, size=size)
        crops.append(alter(crop, clip, row) if alter else crop)
    return Frame(image, people, crops)


def _said(error: Exception) -> str:
    """FFmpeg's words without the number and the path around them."""
    return getattr(error, "strerror", None) or type(error).__name__
