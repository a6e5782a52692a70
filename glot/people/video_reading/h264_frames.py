"""The packets of an H.264 video in; which pictures are missing before them, and which hold half a picture, out.

The decoder paints over missing pictures without a mark, and gives one picture for two packets with one field each
(interlaced video of camcorders and television). The headers of the slices tell both. ITU-T H.264, 7.3.2.1.1, 7.3.3.
"""

from collections.abc import Iterator
from typing import NamedTuple

import av

SLICES, IDR, SPS = (1, 5), 5, 7  # types of units
WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles whose SPS is longer
HEADER = 32  # bytes in which the part of a slice's header that is needed here fits


class Found(NamedTuple):
    """What the header of a packet says."""

    is_lost: bool  # a picture that others refer to is missing before this one
    is_second_field: bool  # it completes the picture of the packet before


NOTHING = Found(False, False)


class H264Frames:
    """Looks at the packets in the order in which they are stored, from a key frame on.

    It says nothing about streams that may leave out pictures, and about those that it cannot parse.
    """

    def __init__(self, settings: bytes | None) -> None:
        self.length = 1 + (settings[4] & 3) if settings and settings[0] == 1 else 0  # bytes of a unit's length, in MP4
        self.settings: _Settings | None = None
        self.last: int | None = None  # frame_num of the last picture that others refer to
        self.field: tuple[int, int] | None = None  # frame_num and parity of a first field, whose second one may follow
        if settings:
            self._take_settings(_units_in_avcc(settings) if self.length else _units(settings, 0))

    def look(self, packet: av.Packet) -> Found:
        try:
            for unit in _units(bytes(packet), self.length):
                kind = unit[0] & 31
                if kind == SPS:
                    self._take_settings(iter([unit]))
                elif kind in SLICES:
                    return self._slice(unit)
        except (IndexError, ValueError):
            pass
        self.last = self.field = None
        return NOTHING

    def _take_settings(self, units: Iterator[bytes]) -> None:
        try:
            for unit in units:
                if unit[0] & 31 == SPS:
                    self.settings = _read_settings(unit)
        except (IndexError, ValueError):
            self.settings = None

    def _slice(self, unit: bytes) -> Found:
        if self.settings is None:
            return NOTHING
        bits = _Bits(unit[1:HEADER])
        for _ in range(3):  # first macroblock, type, picture parameter set
            bits.golomb()
        if self.settings.planes:
            bits.read(2)
        number, field = bits.read(self.settings.bits), None
        if self.settings.interlaced and bits.read(1):
            field = bits.read(1)
        is_second = field is not None and self.field == (number, 1 - field)
        self.field = None if field is None or is_second else (number, field)
        is_idr, most = unit[0] & 31 == IDR, 1 << self.settings.bits
        # 0 and 1 also come after a picture that resets the numbers.
        known = is_idr or self.last is None or is_second or number <= 1 or self.settings.gaps
        is_lost = not known and number not in (self.last, (self.last + 1) % most)  # type: ignore[operator]
        if unit[0] >> 5 & 3:  # others refer to it
            self.last = number
        return Found(is_lost, is_second)


class _Settings(NamedTuple):
    bits: int  # of frame_num
    planes: bool  # colours are coded apart
    interlaced: bool  # a packet may hold one field
    gaps: bool  # pictures may be left out


def _read_settings(unit: bytes) -> _Settings:
    """From a sequence parameter set."""
    bits = _Bits(unit[1:])
    profile, _, _ = bits.read(8), bits.read(16), bits.golomb()
    planes = False
    if profile in WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.read(1))
        bits.golomb(), bits.golomb(), bits.read(1)  # depths, and whether lossless
        if bits.read(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling(bits, 16 if number < 6 else 64)
    length, order = bits.golomb() + 4, bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1), bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # number of pictures that are kept
    gaps = bool(bits.read(1))
    bits.golomb(), bits.golomb()  # size
    return _Settings(length, planes, not bits.read(1), gaps)


def _skip_scaling(bits: "_Bits", count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _units(content: bytes, length: int) -> Iterator[bytes]:
    """The units of a packet: behind their ``length`` in so many bytes, or (0) behind start codes."""
    if length:
        place = 0
        while place + length < len(content):
            size = int.from_bytes(content[place : place + length], "big")
            yield content[place + length : place + length + size]
            place += length + size
        return
    place = content.find(b"\0\0\1")
    while place >= 0:
        following = content.find(b"\0\0\1", place + 3)
        yield content[place + 3 : following if following >= 0 else len(content)]
        place = following


def _units_in_avcc(settings: bytes) -> Iterator[bytes]:
    """The sequence parameter sets in the header of an MP4 or a Matroska."""
    place = 6
    for _ in range(settings[5] & 31):
        size = int.from_bytes(settings[place : place + 2], "big")
        yield settings[place + 2 : place + 2 + size]
        place += 2 + size


class _Bits:
    def __init__(self, content: bytes) -> None:
        content = content.replace(b"\0\0\3", b"\0\0")  # bytes put in so that no start code appears
        self.value, self.left = int.from_bytes(content, "big"), 8 * len(content)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the header ends")
        return self.value >> self.left & ((1 << count) - 1)

    def golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)
