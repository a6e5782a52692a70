"""Plain data in, a Python-2 pickle of protocol 2 out, like 3DPW's files: text and buffers as byte strings.

Python 3's pickle writes protocol 2 with other opcodes (unicode strings, ``_codecs.encode``), which would not test a
reader of 3DPW. So the opcodes are written here. As 3DPW's own files, these files load with ``encoding="latin1"`` and
fail with pickle's default ASCII.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from glot.location import write_whole

DTYPES = {
    "f8": ("f8", "<"),
    "f4": ("f4", "<"),
    "i8": ("i8", "<"),
    "i4": ("i4", "<"),
    "b1": ("b1", "|"),
    "u1": ("u1", "|"),
}


def dump(data: Any, path: Path) -> None:
    """Writes ``data`` (dict, list, tuple, str, bytes, numbers, bool, None, arrays) to ``path``, whole or not at all."""
    write_whole(path, dumps(data))


def dumps(data: Any) -> bytes:
    """The pickle as bytes. Raises TypeError for anything that is not such data."""
    out = bytearray(b"\x80\x02")
    _Writer(out).save(data)
    out += b"."
    return bytes(out)


class _Writer:
    """One pickle. ``memo`` counts the memoised objects, as cPickle does; none of them is ever read again."""

    def __init__(self, out: bytearray) -> None:
        self.out, self.memo = out, 0

    def put(self) -> None:
        self.out += b"q" + bytes([self.memo]) if self.memo < 256 else b"r" + struct.pack("<I", self.memo)
        self.memo += 1

    def string(self, text: bytes) -> None:
        self.out += b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))
        self.out += text
        self.put()

    def integer(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.out += b"M" + struct.pack("<H", value)
        elif -(2**31) <= value < 2**31:
            self.out += b"J" + struct.pack("<i", value)
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out += b"\x8a" + bytes([len(raw)]) + raw

    def name(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode("ascii")
        self.put()

    def tuple_(self, items: tuple) -> None:
        if not items:
            self.out += b")"
            return
        if len(items) > 3:
            self.out += b"("
        for item in items:
            self.save(item)
        self.out += {1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(items), b"t")
        self.put()

    def save(self, data: Any) -> None:
        if data is None:
            self.out += b"N"
        elif isinstance(data, bool | np.bool_):
            self.out += b"\x88" if data else b"\x89"
        elif isinstance(data, int | np.integer):
            self.integer(int(data))
        elif isinstance(data, float | np.floating):
            self.out += b"G" + struct.pack(">d", float(data))
        elif isinstance(data, str):
            self.string(data.encode("latin1"))
        elif isinstance(data, bytes):
            self.string(data)
        elif isinstance(data, tuple):
            self.tuple_(data)
        elif isinstance(data, list):
            self.out += b"]"
            self.put()
            if data:
                self.out += b"("
                for item in data:
                    self.save(item)
                self.out += b"e"
        elif isinstance(data, dict):
            self.out += b"}"
            self.put()
            if data:
                self.out += b"("
                for key, value in data.items():
                    self.save(key)
                    self.save(value)
                self.out += b"u"
        elif isinstance(data, np.ndarray):
            self.array(data)
        else:
            raise TypeError(f"{type(data).__name__} is not plain data and cannot be written to this file")

    def array(self, data: np.ndarray) -> None:
        kind = data.dtype.str[1:]
        if kind not in DTYPES:
            raise TypeError(f"arrays of {data.dtype} cannot be written; convert to one of {sorted(DTYPES)}")
        name, order = DTYPES[kind]
        self.name("numpy.core.multiarray", "_reconstruct")
        self.name("numpy", "ndarray")
        self.tuple_((0,))
        self.string(b"b")
        self.out += b"\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"("
        self.integer(1)
        self.tuple_(data.shape)
        self.name("numpy", "dtype")
        self.tuple_((name, 0, 1))
        self.out += b"R"
        self.put()
        self.out += b"("
        for part in (3, order, None, None, None, -1, -1, 0):
            self.save(part)
        self.out += b"t"
        self.put()
        self.out += b"b\x89"  # the dtype is built; False: not Fortran order
        self.string(np.ascontiguousarray(data, dtype=order + kind).tobytes())
        self.out += b"t"
        self.put()
        self.out += b"b"
