"""The points of a run's curves, in a file of its folder: rank 0 appends them, the driver logs them into MLflow.

A line of the file: [step, ms since 1970, {name: value, ...}].
"""

import json
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

READ_BYTES = 1 << 20  # a reader holds no more of the file than this and a line
Point = tuple[str, float, int, int]  # name, value, ms since 1970, step


class PointWriter:
    """Appends points to a file. A killed process may have left a part of a line at its end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)  # what a full disk did not take is not written later
        weakref.finalize(self, self._file.close)
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a point of each curve at a step. When it returns, the death of this process loses none of them."""
        numbers = {name: float(value) for name, value in values.items()}
        line = json.dumps([step, int(time.time() * 1000), numbers], separators=(",", ":"))
        left = line.encode() + b"\n"
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class PointReader:
    """Reads a file of points from its beginning, also while it grows.

    A run that continues does some steps again: of several points with the same name and step, only the first is given.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        self._given: set[tuple[str, int]] = set()

    def read(self) -> list[Point]:
        """The next points; [] where there are no more now."""
        points: list[Point] = []
        while not points and (lines := self._lines()):
            for line in lines:
                points += self._points(line)
        return points

    def _lines(self) -> list[bytes]:
        """The next whole lines."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read(READ_BYTES)
            if content and b"\n" not in content:
                content += file.readline()
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.splitlines()

    def _points(self, line: bytes) -> list[Point]:
        try:
            step, when, values = json.loads(line)
        except ValueError:  # an empty line, or the part of one
            return []
        new = {name: value for name, value in values.items() if (name, step) not in self._given}
        self._given.update((name, step) for name in new)
        return [(name, value, when, step) for name, value in new.items()]
