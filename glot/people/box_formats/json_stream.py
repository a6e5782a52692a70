"""A JSON file of any size in, its members one after the other out; only the value that is read is in memory.

The standard library's decoder reads each value. Parsers that stream (ijson) refuse a file at the first NaN, which
Python writes, and at numbers beyond 64 bits; here, these are values that the caller can judge.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

BLOCK = 1 << 20  # bytes
LONGEST_TOKEN = 64  # characters; a number or a word that goes on in the next block is not longer
SPACE = " \t\n\r"


class Twice(str):
    """Stands for an object that has the same key twice; the text is that key."""


class JsonStream:
    """Reads a JSON text from its start. All numbers are floats, as json.loads makes them of numbers with a point.

    Bytes that are not UTF-8 become lone surrogates, so that they spoil only the text that they are in. ValueError or
    RecursionError where the file is not JSON; ``at`` is then the place.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.text, self.here = file, "", 0
        self.before = 0  # characters that were read and forgotten
        self.ended = False
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.scan = json.JSONDecoder(parse_int=float, object_pairs_hook=_unique).raw_decode

    @property
    def at(self) -> int:
        """The place in the file, in characters."""
        return self.before + self.here

    def peek(self) -> str:
        """The next character that is not white space; "" at the end of the file."""
        while True:
            while self.here < len(self.text):
                if (character := self.text[self.here]) not in SPACE:
                    return character
                self.here += 1
            if self.ended:
                return ""
            self._more(BLOCK)

    def take(self, wanted: str) -> None:
        """Passes the next character, which must be ``wanted``."""
        if (found := self.peek()) != wanted:
            raise ValueError(f"expected {wanted!r}, found {found!r}" if found else f"ends before {wanted!r}")
        self.here += 1

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next. The caller reads a key's value before it asks for the next key."""
        self.take("{")
        if self.peek() != "}":
            while True:
                if self.peek() != '"':
                    raise ValueError("expected the name of a member in double quotes")
                key = self.value()
                self.take(":")
                yield key
                if self.peek() == "}":
                    break
                self.take(",")
        self.take("}")

    def value(self) -> Any:
        """The value that comes next, whole. An object with a key twice is given as ``Twice``."""
        self.peek()
        while True:
            try:
                found, end = self.scan(self.text, self.here)
            except json.JSONDecodeError as error:
                unfinished = error.pos > len(self.text) - LONGEST_TOKEN or error.msg.startswith("Unterminated string")
                if self.ended or not unfinished:
                    self.here = error.pos
                    raise ValueError(error.msg) from None
            else:
                if self.ended or end < len(self.text) - LONGEST_TOKEN:
                    self.here = end
                    return found
            self._more(len(self.text) - self.here)  # at least twice as much, so that long values take linear time

    def end(self) -> None:
        """ValueError if anything but white space follows."""
        if self.peek():
            raise ValueError("something follows after the end of the object")

    def _more(self, least: int) -> None:
        """Reads at least ``least`` bytes more, if there are so many, and forgets what was passed."""
        blocks = []
        wanted = max(least, BLOCK)
        while wanted > 0 and (block := self.file.read(min(wanted, BLOCK))):
            blocks.append(self.decoder.decode(block))
            wanted -= len(block)
        if wanted > 0:
            self.ended = True
            blocks.append(self.decoder.decode(b"", final=True))
        self.before += self.here
        self.text, self.here = self.text[self.here :] + "".join(blocks), 0


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    return Twice(next(name for name in names if names.count(name) > 1))
