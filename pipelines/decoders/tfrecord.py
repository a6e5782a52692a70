"""TFRecord files in, one record at a time out, with its checksums verified.

The format is read here without TensorFlow, which is large, and without a compiled package for checksums.

A record is a length (uint64), its masked CRC-32C, the payload, and the payload's masked CRC-32C, all little-endian. A
payload is a tf.train.Example, a protobuf message with named lists of bytes, floats or integers.
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
LARGEST_RECORD = 1 << 29  # bytes; a track of 500 pictures has about 10 MB
LANE = 1024  # bytes of one lane of the vectorised checksum


class Entry(NamedTuple):
    """A record, or the reason why it cannot be read."""

    number: int
    offset: int  # of the payload in the file, bytes
    size: int  # of the payload, bytes
    payload: bytes = b""
    fault: str = ""  # the reason why it cannot be read
    last: bool = False  # whether the rest of the file cannot be read either


class Span(NamedTuple):
    """The place of a value in its buffer: the bytes [start, stop)."""

    start: int
    stop: int


class Malformed(Exception):
    """The bytes are not a message of the expected kind; the exception's text is the reason."""


def entries(file: BinaryIO, size: int) -> Iterator[Entry]:
    """The places of all records in a file of ``size`` bytes. Only headers are read, 12 bytes each, and no payloads."""
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
            # Without the length, it is unknown where the next record begins.
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
    """All records of a file with their payloads, one in memory at a time.

    A damaged record has a ``fault`` and no payload. Reading continues with the next record, where its place is known.
    """
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
    """The checksum as TFRecord stores it: rotated by 15 bits, plus a constant, so that it also suits bytes that
    contain checksums."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of the data, at some hundred MB per second.

    The checksum is linear in the bits, so the checksum of the data can be computed from the checksums of its pieces.
    The data is cut into lanes of 1,024 bytes. numpy computes the checksums of all lanes side by side, two bytes per
    step. Then pairs of neighbouring lanes are combined until one checksum is left.
    """
    if len(data) < 2 * LANE:
        return _crc_bytes(data)
    lanes = -(-len(data) // LANE)
    padded = np.zeros(lanes * LANE, np.uint8)  # zeros in front do not change a checksum that starts at 0
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    first = len(padded) - len(data)
    padded[first : first + 4] ^= 0xFF  # the same as a checksum that starts with all bits 1
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
    """(256,) checksum after each value of one byte."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = ((table >> 1) ^ np.where(table & 1, 0x82F63B78, 0)).astype(np.uint32)
    return table


@lru_cache(maxsize=1)
def _two_byte_table() -> NDArray[np.uint32]:
    """(65536,) checksum after each value of two bytes."""
    one = _byte_table()
    half = one[np.arange(65536) & 0xFF] ^ (np.arange(65536, dtype=np.uint32) >> 8)
    return one[half & 0xFF] ^ (half >> 8)


def _crc_bytes(data: bytes) -> int:
    """CRC-32C of short data, byte by byte."""
    table = _plain_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _plain_table() -> list[int]:
    """The byte table as Python numbers, which are faster one by one."""
    return _byte_table().tolist()


@lru_cache(maxsize=32)
def _moves(level: int) -> NDArray[np.uint32]:
    """(4, 256): what a checksum becomes when ``LANE << level`` zero bytes follow, for each of its four bytes."""
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
    """The checksums after ``LANE << level`` more zero bytes."""
    tables = _moves(level)
    return tables[0][crc & 0xFF] ^ tables[1][crc >> 8 & 0xFF] ^ tables[2][crc >> 16 & 0xFF] ^ tables[3][crc >> 24]


# Protobuf. ``data`` is bytes or a mapped file: data[i] is an int, data[i:j] are bytes.


def fields(data: Any, span: Span) -> Iterator[tuple[int, int, Span]]:
    """(number, wire type, place of the value) of each field of a message, in order; Malformed if it is no message."""
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
            raise Malformed(f"wire type {wire}, which does not exist in such a message")
        if not number or position > stop:
            raise Malformed("a field that is longer than its message")
        yield number, wire, Span(start, position)


def example(data: Any, span: Span | None = None) -> dict[str, Span]:
    """{name: place} of the features of a tf.train.Example, which is all of ``data`` or the part at ``span``."""
    features: dict[str, Span] = {}
    for number, wire, message in fields(data, span or Span(0, len(data))):
        if number == 1 and wire == 2:
            features.update(_named(data, message))
    return features


def _named(data: Any, span: Span) -> dict[str, Span]:
    """{key: place of the value} of a message with one map<string, message> in field 1.

    If a key comes more than once, its last value counts, as protobuf defines.
    """
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
    """The places of the entries of a bytes feature."""
    return [item for number, wire, item in _list(data, feature, 1) if number == 1 and wire == 2]


def floats(data: Any, feature: Span) -> NDArray[np.float32]:
    """The values of a float feature, packed or not."""
    chunks = [bytes(data[item.start : item.stop]) for number, wire, item in _list(data, feature, 2) if number == 1]
    joined = b"".join(chunks)
    if len(joined) % 4:
        raise Malformed("a list of floats whose length is no multiple of four bytes")
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
    """The fields of the list in a feature. It has to be of the given kind: 1 bytes, 2 floats, 3 integers."""
    for number, wire, message in fields(data, feature):
        if wire != 2 or number not in (1, 2, 3):
            continue
        if number != kind:
            names = {1: "bytes", 2: "floats", 3: "integers"}
            raise Malformed(f"a list of {names[number]}, expected {names[kind]}")
        yield from fields(data, message)


def _varint(data: Any, position: int, stop: int) -> tuple[int, int]:
    """The number at ``position``, and the position after it."""
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
