"""A video in; its timeline, and the places where it can be cut into ranges, out. Only few pictures are decoded."""

from array import array
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from glot.people.video_reading.decoding import ERRORS, Decoding
from glot.people.video_reading.video_file import Unreadable, VideoFile
from glot.people.video_reading.video_packets import REORDERED, START, Cut, Picture, before_gap, pictures

Entry = Mapping[str, Any]
NOMINAL_FPS = 30.0  # assumed for a video that does not give its frame rate
HEADER = 0.02  # the rate in the header is used if it is so close to that of the pictures' times


class Timeline(NamedTuple):
    """The pictures of a video and their rate."""

    frames: int  # pictures in the file
    fps: float  # mean frame rate
    even: bool  # whether the frame rate is constant
    width: int  # px, upright
    height: int  # px, upright


class Scan(NamedTuple):
    """The timeline of a video, and the first picture of each range."""

    timeline: Timeline
    cuts: tuple[Cut, ...]  # the first is picture 0


def scan(path: Path, every: int, entry: Entry | None = None) -> Scan:
    """Reads through a whole video once, and cuts it at key frames about ``every`` pictures apart. Raises Unreadable.

    Reading from a cut gives exactly the pictures that reading from the beginning gives (``Video``). A video whose key
    frames are farther apart has longer ranges, or one only. There are no cuts where numbers are not certain: in an AVI
    or WMV with B-frames, behind a place where times begin anew, and, in formats without an index, behind a gap in time.
    ``entry`` says what the file was when it was listed (``open_file``).
    """
    width, height = _size(path, entry)
    times, cuts = array("q"), [START]
    place, latest, gap = 0, None, False
    with closing(VideoFile(path, entry=entry)) as file:
        for picture in pictures(file):
            if picture.number < 0:
                continue
            if not times:
                cuts = [Cut(0, picture.time)]
            far = picture.number - cuts[-1].number >= every and not (picture.joined or file.untimed or gap)
            if far and picture.is_key and latest is not None and latest < picture.time and _stands_alone(file, picture):
                # Behind a gap, numbers are not certain if something is damaged there (``decoding``).
                gap = not file.indexed and before_gap(times[max(place - REORDERED, 0) :]) is not None
                if not gap:
                    cuts.append(Cut(picture.number, picture.time))
                    place = len(times)
            times.append(picture.time)
            latest = picture.time if latest is None else max(latest, picture.time)
        if len(cuts) > 1 and len(times) - cuts[-1].number < every // 2:
            cuts.pop()
        shown = np.sort(np.frombuffer(times, np.int64)) if times else np.zeros(0, np.int64)
        timeline = _timeline(file, shown, width, height)
    first = int(shown[0]) if len(shown) and not file.untimed else 0
    return Scan(timeline, (Cut(0, first), *cuts[1:]))


def read_timeline(path: Path, entry: Entry | None = None) -> Timeline:
    """Reads through a whole video and decodes only its first picture. Raises Unreadable."""
    return scan(path, 1 << 62, entry).timeline


def estimated_frames(path: Path, entry: Entry | None = None) -> int:
    """The number of pictures by a video's header, or by its length; 0 if it cannot be opened. Nothing else is read."""
    try:
        file = VideoFile(path, entry=entry)
    except Unreadable:
        return 0
    with closing(file):
        seconds = (file.container.duration or 0) / av.time_base
        return file.frames or round(seconds * float(file.stream.average_rate or NOMINAL_FPS))


def upright(shown: av.VideoFrame) -> NDArray[np.uint8]:
    """A decoded picture, turned upright: (H, W, 3) BGR."""
    picture: NDArray[np.uint8] = shown.to_ndarray(format="bgr24")  # type: ignore[assignment]
    # Phones film sideways and store the rotation: a quarter turn counterclockwise for every 90 degrees.
    turns = round(getattr(shown, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _size(path: Path, entry: Entry | None) -> tuple[int, int]:
    """Width and height of the first picture that can be decoded, upright. Unreadable if there is none."""
    with closing(Decoding(VideoFile(path, entry=entry), START)) as decoding:
        found = next(decoding.pictures(), None)
        if found is None:
            after = f"is damaged after 0 frames ({decoding.damage})" if decoding.damage else "ends after 0 frames"
            raise Unreadable(f"the video {after}")
        height, width = upright(found[1]).shape[:2]
        return width, height


def _timeline(file: VideoFile, times: NDArray[np.int64], width: int, height: int) -> Timeline:
    """``times`` (n,) of the pictures, in rising order and in units of the stream."""
    unit = float(file.stream.time_base or 0)
    steps = unit * np.diff(times)
    # Times are whole units, so even steps may differ by one.
    even = not len(steps) or bool(steps.max() - steps.min() <= max(1.5 * unit, 0.02 * steps.max()))
    span = float(steps.sum())
    counted = len(steps) / span if span > 0 else 0.0
    headers = [float(rate) for rate in (file.stream.average_rate, file.stream.guessed_rate) if rate]
    if file.untimed:  # times are places in the file
        even, counted = True, 0.0
    near = [rate for rate in headers if abs(rate - counted) <= HEADER * counted]
    fps = next(iter(near), counted) if counted else next(iter(headers), NOMINAL_FPS)
    return Timeline(max(len(times), 1), fps, even, width, height)


def _stands_alone(file: VideoFile, picture: Picture) -> bool:
    """Whether a key frame can be decoded without those before it.

    Some encoders mark pictures as key frames from which the picture builds up bit by bit (intra refresh).
    """
    packet = picture.packet
    if packet is None or packet.is_corrupt:
        return False
    packet.pts = picture.number
    try:
        shown = [*file.stream.decode(packet), *file.stream.decode(None)]
    except ERRORS:
        return False
    finally:
        file.decoder.flush_buffers()
    return any(frame.pts == picture.number and not frame.is_corrupt for frame in shown)
