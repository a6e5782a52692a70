"""The packets of a video in; its pictures with their numbers out. All readers of videos number pictures here.

Picture n is the n-th that is shown, from 0. Its number follows from the times in the packets, so it is known before
anything is decoded, and it stays right when other pictures are damaged. Packets that are never shown have no number:
those that an edit list discards (the part before the cut of a trimmed video, which only later pictures need), those
before the first key frame, and those that belong to a key frame which was cut off.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import av
import numpy as np

from glot.people.video_reading.h264_frames import H264Frames
from glot.people.video_reading.video_file import VideoFile

REORDERED = 32  # pictures; codecs store a picture at most 16 places away from its place in time
BACK = (0, 1, 10, 60)  # s before a cut at which its key frame is looked for
GAP = 1.5  # a time between two pictures, so many times as long as usual, may mean that one is missing
JUMP = 0.5  # s; times that fall by more begin anew, as in recordings that were joined together


class Cut(NamedTuple):
    """The first picture of a range of a video."""

    number: int  # of the picture, from 0
    time: int  # when it is shown, in units of the stream


START = Cut(0, 0)
VP8_SHOWN = 0x10  # bit of the first byte; VP8 stores pictures that are never shown, for others to refer to


class Picture(NamedTuple):
    """A picture before it is decoded."""

    packet: av.Packet | None  # None: lost, but the index of the file knows about it
    number: int  # -1: not shown, but others need it
    time: int  # when it is shown, in units of the stream; rises without end, also where times begin anew
    is_key: bool  # decoding can begin here
    joined: bool  # times began anew before it
    lost_before: bool  # a picture that it is made from is missing


class _Arrival(NamedTuple):
    packet: av.Packet | None
    time: int
    joined: bool
    shown: bool
    lost_before: bool
    order: tuple[int, int]  # time, and place in the file: unique


def pictures(file: VideoFile, start: Cut = START) -> Iterator[Picture]:
    """The pictures from ``start`` on, in the order in which they are decoded. ``file`` was just opened.

    Pictures that are stored after the first key frame, but shown before it, belong to the range before.
    """
    waiting: deque[_Arrival] = deque()
    times: list[tuple[int, int]] = []  # those of the last pictures, in rising order
    before = start.number  # number of pictures that are shown before times[0]
    for arrival in _arrivals(file, start):
        if arrival.shown:
            insort(times, arrival.order)
        waiting.append(arrival)
        if len(times) > 4 * REORDERED:
            before += 1
            del times[0]
        if len(waiting) > REORDERED:
            yield _numbered(waiting.popleft(), before, times)
    while waiting:
        yield _numbered(waiting.popleft(), before, times)


class _Timed(NamedTuple):
    packet: av.Packet | None  # None: lost
    time: int
    joined: bool


def before_gap(times: Sequence[int]) -> int | None:
    """How many pictures are shown before the first gap in ``times``, given in any order. None if there is no gap.

    A picture may be missing in a gap, but there are also gaps where the rate varies.
    """
    steps = np.diff(np.sort(np.asarray(times, np.int64)))
    if not len(steps) or steps.max() <= GAP * np.median(steps) + 1:
        return None
    return int((steps > GAP * np.median(steps) + 1).argmax()) + 1


def _numbered(arrival: _Arrival, before: int, times: list[tuple[int, int]]) -> Picture:
    place = bisect_left(times, arrival.order)
    known = place < len(times) and times[place] == arrival.order  # not if it comes far too late
    is_key = arrival.packet is not None and arrival.packet.is_keyframe
    return Picture(
        arrival.packet, before + place if known else -1, arrival.time, is_key, arrival.joined, arrival.lost_before
    )


def _arrivals(file: VideoFile, start: Cut) -> Iterator[_Arrival]:
    """What is stored from the first key frame on, with times."""
    first, lead = None, frozenset[int]()
    look = _look(file)
    for place, (packet, time, joined) in enumerate(_from_cut(file, start)):
        found = look(packet) if packet is not None else _Found(True, False)
        if first is None:
            first = time
            if not start.number and not file.untimed:
                lead = _shown_before(file, first)
        if found.is_hidden or (packet is not None and packet.is_discard):
            yield _Arrival(packet, time, joined, False, found.lost_before, (time, place))
        elif time >= first or time in lead:
            yield _Arrival(packet, time, joined, True, found.lost_before, (time, place))


class _Found(NamedTuple):
    lost_before: bool  # a picture is missing before this one
    is_hidden: bool  # it is never shown, or not by itself


def _look(file: VideoFile) -> Callable[[av.Packet], _Found]:
    """What looks into the packets for pictures that are missing, and for those that are not shown."""
    if file.decoder.name == "vp8":
        return lambda packet: _Found(False, not memoryview(packet)[0] & VP8_SHOWN)
    if file.decoder.name == "h264":
        frames = H264Frames(file.decoder.extradata)
        return lambda packet: _Found(*frames.look(packet))
    return lambda packet: _Found(False, False)


class _Clock:
    """Times that rise from the beginning to the end of a file."""

    def __init__(self, file: VideoFile) -> None:
        unit = float(file.stream.time_base or 0)
        self.jump = JUMP / unit if unit else 0
        self.stored: int | None = None  # of the packet before
        self.latest, self.offset, self.joined = 0, 0, False

    def time(self, packet: av.Packet | None) -> int:
        if packet is None:
            self.latest += 1
            return self.latest
        when = _time(packet)
        stored = packet.dts if packet.dts is not None else when
        if when is None or stored is None:
            return self.latest
        if self.stored is not None and stored < self.stored - self.jump:
            self.offset = self.latest + 1 - min(when, stored)
            self.joined = True
        self.stored = stored
        self.latest = max(self.latest, when + self.offset)
        return when + self.offset


def _time(packet: av.Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


def _from_cut(file: VideoFile, start: Cut) -> Iterator[_Timed]:
    """The packets from the key frame of a cut on, or from the first key frame of the file."""
    if start.number:
        unit = float(file.stream.time_base or 1)
        for seconds in BACK:
            if file.seek(start.time - round(seconds / unit)):
                packets = _timed(file)
                for item in packets:
                    if _is_key(item, start):
                        yield item
                        yield from packets
                        return
                    if item.packet is not None and item.packet.dts is not None and item.packet.dts > start.time:
                        break  # the format went to a place behind it
        file.rewind()
    found = False
    for item in _timed(file):
        found = found or _is_key(item, start)
        if found:
            yield item
    if not found and not start.number:  # no key frame is marked
        file.rewind()
        yield from _timed(file)


def _is_key(item: _Timed, start: Cut) -> bool:
    """Whether a range that begins at ``start`` begins with this packet."""
    return item.packet is not None and item.packet.is_keyframe and (not start.number or item.time == start.time)


def _timed(file: VideoFile) -> Iterator[_Timed]:
    """The packets from the current place on; those without a picture are left out."""
    clock = _Clock(file)
    for place, packet in enumerate(_placed(file)):
        # An AVI may have a place in its index without a picture: the one before is shown longer.
        if packet is None or packet.size:
            yield _Timed(packet, place if file.untimed else clock.time(packet), clock.joined)


def _shown_before(file: VideoFile, first: int) -> frozenset[int]:
    """Times of the pictures that are stored after the first key frame, shown before it, and can be decoded.

    Most cannot: they need the key frame before, which was cut off.
    """
    with closing(file.again()) as other:
        leading: list[av.Packet] = []
        for number, (packet, time, _) in enumerate(_from_cut(other, START)):
            if packet and (number == 0 or (time < first and not packet.is_discard)):
                leading.append(packet)
            if number == REORDERED:
                break
        shown: set[int] = set()
        if len(leading) > 1:
            for packet in [*leading, None]:
                with suppress(av.FFmpegError, ValueError):
                    shown |= {frame.pts for frame in other.stream.decode(packet) if not frame.is_corrupt and frame.pts}
        return frozenset(time for time in shown if time < first)


def _placed(file: VideoFile) -> Iterator[av.Packet | None]:
    """The packets of a file from its current place on, with None for each one that is lost in an AVI.

    The index of an AVI gives the place of each picture, and its number there is its time: what the reader of the format
    counts is wrong after a loss. (PyAV gives the index from 17 on.)
    """
    index = getattr(file.stream, "index_entries", ()) if file.container.format.name == "avi" else ()
    number = -1
    for packet in file.packets():
        start = (packet.pos or 0) - 8  # of the chunk, whose name and size take 8 bytes
        found = next((i for i in range(number + 1, len(index)) if index[i].pos == start), None)
        if found is None:
            index = ()  # there is none, or it describes other places, so it cannot be used
        else:
            packet.pts = packet.dts = found
            if number >= 0:
                yield from [None] * (found - number - 1)
            number = found
        yield packet
