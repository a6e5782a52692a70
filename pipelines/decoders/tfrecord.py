"""TFRecord files in, one record at a time out, with checksums checked; tf.train messages parsed without TensorFlow.

A record is: length (uint64), masked CRC-32C of it, the payload, masked CRC-32C of the payload; little-endian. A payload
is a tf.train.Example: named lists of bytes, floats or integers. ``Span`` addresses a value inside a buffer.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
LARGEST_RECORD = 1 << 29  # bytes; a track of 500 pictures has some 10 MB
LANE = 1024  # bytes that one lane of the vectorised checksum walks


class Entry(NamedTuple):
    """A record, or why there is none. ``last`` is true for a fault that hides whatever follows it in the file."""

    number: int
    offset: int  # of the payload in the file
    size: int  # of the payload
    payload: bytes = b""
    fault: str = ""
    last: bool = False


class Span(NamedTuple):
    """Where a value lies in its buffer: [start, stop)."""

    start: int
    stop: int


class Malformed(Exception):
    """Bytes that are no such message; the text is the reason."""


def entries(file: BinaryIO, size: int) -> Iterator[Entry]:
    """The records' places without their payloads: headers only, 12 bytes read for each. ``size`` of the file, bytes."""
    position = number = 0
    while position < size:
        file.seek(position)
        head = file.read(HEADER.size)
        start = position + HEADER.size
        if len(head) < HEADER.size:
            yield Entry(number, start, 0, fault=f"file cut in the head of record {number}", last=True)
            return
        length, checksum = HEADER.unpack(head)
        if masked_crc(head[:8]) != checksum:
            # Where the next record begins is what the length would have said.
            yield Entry(number, start, 0, fault="wrong checksum of the length", last=True)
            return
        if start + length + FOOTER.size > size:
            reason = f"file cut: record {number} has {size - start} of {length + FOOTER.size} bytes"
            yield Entry(number, start, 0, fault=reason, last=True)
            return
        fault = f"record of {length} bytes, more than any track has" if length > LARGEST_RECORD else ""
        yield Entry(number, start, length, fault=fault)
        position, number = start + length + FOOTER.size, number + 1


def read_records(path: Path) -> Iterator[Entry]:
    """Every record of a file with its payload, one in memory at a time. A damaged one comes with ``fault`` and without
    payload; the walk goes on behind it wherever the file still says where that is."""
    with path.open("rb") as file:
        for entry in entries(file, path.stat().st_size):
            if entry.fault:
                yield entry
                continue
            file.seek(entry.offset)
            payload = file.read(entry.size)
            tail = file.read(FOOTER.size)
            if len(payload) < entry.size or len(tail) < FOOTER.size:
                yield entry._replace(fault="file cut while it was read", last=True)
                return
            fault = "" if masked_crc(payload) == FOOTER.unpack(tail)[0] else "wrong checksum"
            yield entry._replace(payload=b"" if fault else payload, fault=fault)


def masked_crc(data: bytes) -> int:
    """The checksum as TFRecord stores it: turned by 15 bits, plus a constant, so that checksums of checksums differ."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes; some hundred MB a second.

    The checksum is linear in its bits: that of a whole is made of those of its parts. So all lanes of 1,024 bytes are
    walked side by side with numpy, two bytes a step, and neighbours are joined by a table that moves a checksum along.
    """
    if len(data) < 2 * LANE:
        return _crc_bytes(data)
    lanes = -(-len(data) // LANE)
    padded = np.zeros(lanes * LANE, np.uint8)  # zeros in front do not change a checksum that starts at zero
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    first = len(padded) - len(data)
    padded[first : first + 4] ^= 0xFF  # what starting from all ones comes to
    steps = np.ascontiguousarray(padded.view("<u2").reshape(lanes, LANE // 2).T)  # (steps, lanes)
    table = _two_byte_table()
    crc = np.zeros(lanes, np.uint32)
    for words in steps:
        crc = table[(crc ^ words) & 0xFFFF] ^ (crc >> 16)
    level = 0
    while len(crc) > 1:
        if len(crc) % 2:
            crc = np.concatenate([np.zeros(1, np.uint32), crc])
        crc = _move(crc[0::2], level) ^ crc[1::2]
        level += 1
    return int(crc[0]) ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _byte_table() -> NDArray[np.uint32]:
    """(256,) what a byte in the lowest place becomes when it is shifted out."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = ((table >> 1) ^ np.where(table & 1, 0x82F63B78, 0)).astype(np.uint32)
    return table


@lru_cache(maxsize=1)
def _two_byte_table() -> NDArray[np.uint32]:
    one = _byte_table()
    half = one[np.arange(65536) & 0xFF] ^ (np.arange(65536, dtype=np.uint32) >> 8)
    return one[half & 0xFF] ^ (half >> 8)


def _crc_bytes(data: bytes) -> int:
    table = _plain_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _plain_table() -> list[int]:
    return _byte_table().tolist()


@lru_cache(maxsize=32)
def _moves(level: int) -> NDArray[np.uint32]:
    """(4, 256) tables of the map "LANE << level zero bytes follow", one for each byte of a checksum."""
    if level:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        columns = _move(_move(bits, level - 1), level - 1)
    else:
        columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for _ in range(LANE):
            columns = _byte_table()[columns & 0xFF] ^ (columns >> 8)
    values = np.arange(256)
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(32):
        tables[bit // 8] ^= np.where(values >> (bit % 8) & 1, columns[bit], np.uint32(0))
    return tables


def _move(crc: NDArray[np.uint32], level: int) -> NDArray[np.uint32]:
    tables = _moves(level)
    return tables[0][crc & 0xFF] ^ tables[1][crc >> 8 & 0xFF] ^ tables[2][crc >> 16 & 0xFF] ^ tables[3][crc >> 24]


# Protobuf. ``data`` is anything with data[i] an int and data[i:j] bytes: bytes, or a mapped file.


def fields(data: Any, span: Span) -> Iterator[tuple[int, int, Span]]:
    """(number, wire type, span of the value) of a message's fields, in order; Malformed where it is none."""
    position, stop = span
    while position < stop:
        key, position = _varint(data, position, stop)
        number, wire = key >> 3, key & 7
        if wire == 0:
            start = position
            _, position = _varint(data, position, stop)
        elif wire in (1, 5):
            start, position = position, position + (8 if wire == 1 else 4)
        elif wire == 2:
            length, start = _varint(data, position, stop)
            position = start + length
        else:
            raise Malformed(f"wire type {wire}, which no such message has")
        if not number or position > stop:
            raise Malformed("a field that ends behind its message")
        yield number, wire, Span(start, position)


def example(data: Any, span: Span | None = None) -> dict[str, Span]:
    """Features of a tf.train.Example by name (for a SequenceExample: those of its context)."""
    features: dict[str, Span] = {}
    for number, wire, message in fields(data, span or Span(0, len(data))):
        if number == 1 and wire == 2:
            features.update(_named(data, message))
    return features


def sequence_example(data: Any, span: Span | None = None) -> tuple[dict[str, Span], dict[str, list[Span]]]:
    """(context features by name, lists of features by name) of a tf.train.SequenceExample."""
    span = span or Span(0, len(data))
    lists: dict[str, list[Span]] = {}
    for number, wire, message in fields(data, span):
        if number == 2 and wire == 2:
            for name, value in _named(data, message).items():
                lists[name] = [item for n, w, item in fields(data, value) if n == 1 and w == 2]
    return example(data, span), lists


def _named(data: Any, span: Span) -> dict[str, Span]:
    """A message with one map<string, message> in field 1; of equal keys the last counts, as protobuf has it."""
    found: dict[str, Span] = {}
    for number, wire, item in fields(data, span):
        if number != 1 or wire != 2:
            continue
        name, value = "", Span(item.stop, item.stop)
        for part, part_wire, place in fields(data, item):
            if part == 1 and part_wire == 2:
                name = bytes(data[place.start : place.stop]).decode("utf-8", "replace")
            elif part == 2 and part_wire == 2:
                value = place
        found[name] = value
    return found


def bytes_spans(data: Any, feature: Span) -> list[Span]:
    """Where the entries of a bytes feature lie."""
    return [item for number, wire, item in _list(data, feature, 1) if number == 1 and wire == 2]


def floats(data: Any, feature: Span) -> NDArray[np.float32]:
    """The values of a float feature, packed or not."""
    chunks = [bytes(data[item.start : item.stop]) for number, wire, item in _list(data, feature, 2) if number == 1]
    joined = b"".join(chunks)
    if len(joined) % 4:
        raise Malformed("a list of floats whose bytes are no multiple of four")
    return np.frombuffer(joined, "<f4").astype(np.float32)


def integers(data: Any, feature: Span) -> NDArray[np.int64]:
    """The values of an int64 feature, packed or not."""
    values: list[int] = []
    for number, _, item in _list(data, feature, 3):
        position = item.start if number == 1 else item.stop
        while position < item.stop:
            value, position = _varint(data, position, item.stop)
            values.append(value - (1 << 64) if value >> 63 else value)
    return np.array(values, np.int64)


def _list(data: Any, feature: Span, kind: int) -> Iterator[tuple[int, int, Span]]:
    """Fields of the list inside a feature, which must be of that kind: 1 bytes, 2 floats, 3 integers."""
    for number, wire, message in fields(data, feature):
        if wire != 2 or number not in (1, 2, 3):
            continue
        if number != kind:
            names = {1: "bytes", 2: "floats", 3: "integers"}
            raise Malformed(f"a list of {names[number]} where {names[kind]} belong")
        yield from fields(data, message)


def _varint(data: Any, position: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= stop or shift > 63:
            raise Malformed("a number that does not end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
