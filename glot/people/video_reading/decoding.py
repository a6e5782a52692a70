"""A video and a cut in; the pictures from the cut on, decoded and numbered, out. None is painted over.

Where the decoder complains, or marks a picture, or a picture is missing, that picture and all later ones up to the next
key frame are lost, because they are made from it. ``_examine`` finds the place with one thread, so the same pictures
are lost with any number of threads. The numbers of the pictures after that follow from the times in the file.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import NamedTuple

import av

from glot.people.video_reading.video_file import VideoFile, reason_of
from glot.people.video_reading.video_packets import REORDERED, Cut, Picture, before_gap, pictures

PAINTED = "a part of it is missing"
ERRORS = (av.FFmpegError, ValueError, MemoryError)


class Decoding:
    """The pictures of a video from ``start`` on. ``damage`` is the reason why the last pictures were lost, or ""."""

    def __init__(self, file: VideoFile, start: Cut) -> None:
        self.file, self.start = file, start
        self.damage = ""

    def pictures(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, picture), in rising order. NotNowError if a disk or a store fails."""
        start: Cut | None = self.start
        last = self.start.number - 1
        while start is not None:
            run = _Run(self.file, start)
            try:
                for number, frame in run.pictures():
                    if number > last:
                        last = number
                        yield number, frame
                self.damage = self.file.broken
                return
            except _Complaint as complaint:
                found = _examine(run, last)
                if not found.damage and self.file.threads > 1:  # one thread can decode it
                    self.file.threads = 1
                    self.file.rewind()
                    start = found.start
                    continue
                self.damage = found.damage or str(complaint)
            for number, frame in _decode_first(self.file, found):
                if last < number and (found.stop is None or number < found.stop):
                    last = number
                    yield number, frame
            start = found.following
            if start is not None and start.number <= found.start.number:
                start = None  # never twice from the same key frame
            if start is not None:
                self.file.rewind()

    def close(self) -> None:
        self.file.close()


class _Complaint(Exception):
    """The decoder complains; the message is the reason."""


class _Run:
    """Decoding from a cut to the first complaint."""

    def __init__(self, file: VideoFile, start: Cut) -> None:
        self.file, self.start = file, start
        self.keys = deque([start])  # cuts from which the next picture can be decoded
        self.fed = -1  # highest number of a picture that was given to the decoder
        self.owed: dict[int, int] = {}  # number -> place in the file; given to the decoder, but not yet decoded
        self.held: deque[tuple[int, int, av.VideoFrame]] = deque()  # number, place, picture

    def pictures(self) -> Iterator[tuple[int, av.VideoFrame]]:
        last = self.start.number - 1
        for number, frame in self._in_order():
            if self.file.threads > 1 and number != last + 1:  # decoders of several threads may swallow an error
                raise _Complaint("a picture did not come out")
            last = number
            while len(self.keys) > 1 and self.keys[1].number <= last + 1:
                self.keys.popleft()
            yield number, frame

    def _in_order(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Pictures of which no picture that they refer to can still turn out to be damaged."""
        count = self.start.number
        for place, picture in enumerate(_and_end(self.file, pictures(self.file, self.start))):
            if picture is not None:
                self._note(picture, place)
            for frame in _fed(self.file, picture):
                stored = _number(frame)
                number = count if self.file.untimed else stored
                count += 1
                found = self.owed.pop(stored, None)
                if frame.is_corrupt:
                    raise _Complaint(PAINTED)
                if found is None and not self.file.untimed:
                    continue  # the second half of an interlaced picture, or one that is not to be shown
                self.held.append((number, place if found is None else found, frame))
            while self.held and (picture is None or self._is_settled(self.held[0][1])):
                yield self.held[0][0], self.held.popleft()[2]
        for number, _, frame in self.held:
            yield number, frame

    def _is_settled(self, place: int) -> bool:
        """Whether the decoder has given all pictures before ``place``. (Some packets never become a picture.)"""
        oldest = next(iter(self.owed.values()), place)
        return not self.file.reordered or oldest >= place or len(self.held) > REORDERED

    def _note(self, picture: Picture, place: int) -> None:
        if picture.number < 0:
            return
        self.fed = max(self.fed, picture.number)
        self.owed[picture.number] = place
        if len(self.owed) > 4 * REORDERED:
            del self.owed[next(iter(self.owed))]
        if picture.is_key and place and not self.file.untimed:
            self.keys.append(Cut(picture.number, picture.time))


class _Examined(NamedTuple):
    start: Cut
    good: int  # so many packets from ``start`` on can be decoded
    damage: str  # the reason why not more
    following: Cut | None  # the next key frame, where its number is known
    stop: int | None  # the first picture whose number is not known


def _examine(run: _Run, last: int) -> _Examined:
    """Decodes again with one thread, from a key frame before picture ``last`` + 1 to the one after the damage."""
    start, owed, times = run.keys[0], dict[int, int](), array("q")
    place, joined, damage = 0, False, _Damage(0, "", -1)
    key, following = start, None
    with closing(run.file.again()) as file:
        for place, picture in enumerate(_and_end(file, pictures(file, start))):
            if picture is not None and picture.number >= 0:
                if following is not None and picture.number > following.number:
                    break
                if picture.is_key and place and not file.untimed:
                    key = Cut(picture.number, picture.time)
                    if following is None and (damage.reason or picture.number > run.fed):
                        following = key
                if picture.joined and not joined:
                    joined, times = True, array("q")  # nothing is missing between two recordings
                times.append(picture.time)  # also of those that are shown before the key frame
            if not damage.reason and following is None:
                damage = _try(file, picture, place, owed)
                if damage.reason and 0 <= damage.number < key.number:  # later pictures do not need this one
                    following = key
        # The damage may have cost whole packets, which nobody counted. Then no later number is known.
        known = [time for time in times if following is None or time <= following.time]
        certain = None if file.indexed or not damage.reason else before_gap(known)
    if certain is not None:
        return _Examined(start, damage.place, damage.reason, None, start.number + certain)
    return _Examined(start, damage.place, damage.reason, following, None)


class _Damage(NamedTuple):
    place: int  # the number of good packets
    reason: str  # "" if nothing is damaged
    number: int  # of the damaged picture


def _try(file: VideoFile, picture: Picture | None, place: int, owed: dict[int, int]) -> _Damage:
    """Gives one picture to the decoder; ``owed`` = {number: place} of those that it was given before."""
    number = -1 if picture is None else picture.number
    owed[number] = place
    if len(owed) > 4 * REORDERED:
        del owed[next(iter(owed))]
    try:
        found = _worst(_fed(file, picture), owed, place)
    except _Complaint as complaint:
        found = _Damage(place, str(complaint), number)
    if not found.reason:
        return _Damage(place + 1, "", number)
    with suppress(*ERRORS):  # one that was stored before may come out after this one
        found = min(found, _worst(file.stream.decode(None), owed, place))
    return found


def _worst(frames: list[av.VideoFrame], owed: dict[int, int], place: int) -> _Damage:
    """The first damaged one of ``frames`` in the order in which they are stored."""
    damaged = [_number(frame) for frame in frames if frame.is_corrupt]
    return min(
        (_Damage(owed.get(number, place), PAINTED, number) for number in damaged), default=_Damage(place + 1, "", -1)
    )


def _decode_first(first: VideoFile, found: _Examined) -> Iterator[tuple[int, av.VideoFrame]]:
    """The pictures in the good packets."""
    if not found.good:
        return
    count = found.start.number
    with closing(first.again()) as file:
        for picture in _and_end(file, islice(pictures(file, found.start), found.good)):
            try:
                frames = _fed(file, picture)
            except _Complaint:
                return
            for frame in frames:
                if frame.is_corrupt:
                    return
                yield count if file.untimed else _number(frame), frame
                count += 1


def _and_end(file: VideoFile, found: Iterator[Picture]) -> Iterator[Picture | None]:
    """``found`` and None, for which the decoder gives what it holds back.

    Without times those pictures are numbered by counting. So they are left out if some between them may be missing.
    """
    count = 0
    for picture in found:
        count += 1
        yield picture
    if not file.untimed or count >= file.stream.frames:
        yield None


def _fed(file: VideoFile, picture: Picture | None) -> list[av.VideoFrame]:
    """What the decoder gives for a picture; with None, what it holds back. The times of frames are their numbers."""
    try:
        if picture is None:
            return file.stream.decode(None)
        if picture.packet is None or picture.lost_before:
            raise _Complaint("one is lost")
        if picture.packet.is_corrupt:
            raise _Complaint("the file is cut")
        picture.packet.pts = picture.number
        return file.stream.decode(picture.packet)
    except ERRORS as error:
        raise _Complaint(reason_of(error)) from None


def _number(frame: av.VideoFrame) -> int:
    """What was given to the decoder as the time of a picture: its number."""
    return -1 if frame.pts is None else frame.pts
