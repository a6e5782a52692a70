"""A pickle file in, its content out as glot.human.safe_pickle gives it, but long bytes stay in the file.

Python's own unpickler in C reads all bytes into memory. Its unpickler in Python, which joblib uses too, asks a method
for each kind of value, so the methods for bytes are replaced here.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from glot.errors import InputError
from glot.human.safe_pickle import PlainClasses, StandIn, load_stream

LONG = 1 << 14  # bytes from which they stay in the file


class Sealed(StandIn):
    """A stand-in whose attributes a pickle cannot set: it gets its data from the arguments of a call alone."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for an object that has none")


class Span(Sealed):
    """Bytes that were left in the file."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset, self.size = offset, size

    def value(self, resolve: Any) -> Any:
        """None: bytes that nothing takes are not read."""
        return None


def load_sparing(file: BinaryIO, *, source: Path, classes: Mapping[tuple[str, str], Any]) -> Any:
    """Reads one pickle from an unbuffered file as ``load_stream`` does. ``classes`` may get a Span instead of bytes."""
    return load_stream(file, source=source, classes=classes, unpickler=_Sparing)


class _Sparing(PlainClasses, pickle._Unpickler):
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    _unframer: Any
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Any, *, encoding: str, source: Path, classes: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file, encoding=encoding)
        self.file, self.source, self.classes = file, source, classes
        self.end = source.stat().st_size

    def load_bytes(self, width: int) -> None:
        """Bytes whose length is given in ``width`` bytes."""
        size = int.from_bytes(self.read(width), "little")
        if size < LONG or self._unframer.current_frame is not None:  # frames are read as a whole; theirs are short
            self.append(self.read(size))
            return
        offset = self.file.tell()
        if offset + size > self.end:
            raise InputError(
                f"{self.source}: incomplete, an array ends at byte {offset + size} and the file at {self.end}; fetch "
                "it again"
            )
        self.file.seek(offset + size)
        self.append(Span(offset, size))


_Sparing.dispatch[pickle.BINBYTES[0]] = lambda reader: reader.load_bytes(4)
_Sparing.dispatch[pickle.BINBYTES8[0]] = lambda reader: reader.load_bytes(8)
