"""A remote file in; any part of it out, fetched by ranges that grow while the file is read on."""

from typing import Any

FIRST = 512 << 10  # bytes fetched after a jump; the next range is twice as long
MOST = 8 << 20  # bytes of the longest range
KEPT = 256 << 10  # bytes behind the reader that stay, because containers step back a little
SKIPPED = 256 << 10  # a step ahead of up to so many bytes is reading on, not a jump
RUNS = 3  # places at which a file is read in turn, for example pictures and sound that lie apart


class _Run:
    """A place of the file at which reading goes on: the bytes there, and how many come next."""

    def __init__(self) -> None:
        self.start, self.data, self.length = 0, b"", FIRST

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class Ranges:
    """Reads ``file``, a file of fsspec without a cache of its own. At most RUNS * (MOST + KEPT) bytes are in memory.

    A seek costs nothing; a read raises what ``file`` raises, and can be repeated.
    """

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.size = file, size
        self.place = 0
        self.runs: list[_Run] = []  # the one read last comes first

    @property
    def pinned(self) -> bool:
        """Whether each request names the version that was opened, so that another one gives an error (s3fs does)."""
        return "IfMatch" in (getattr(self.file, "read_kw", None) or {})

    def seek(self, offset: int) -> int:
        self.place = offset
        return offset

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer as far as the file goes; the number of bytes."""
        count = max(0, min(len(buffer), self.size - self.place))
        filled = 0
        while filled < count:
            run = self._run_at(self.place)
            piece = memoryview(run.data)[self.place - run.start :][: count - filled]
            buffer[filled : filled + len(piece)] = piece
            filled, self.place = filled + len(piece), self.place + len(piece)
        return filled

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), with one request."""
        self.file.seek(start)
        found: bytes = self.file.read(stop - start)
        if len(found) != stop - start:
            raise ConnectionError(f"{len(found)} bytes came instead of {stop - start}")
        return found

    def close(self) -> None:
        self.runs = []
        self.file.close()

    def _run_at(self, place: int) -> _Run:
        run = next((run for run in self.runs if run.start <= place < run.end), None)
        if run is None:
            run = next((run for run in self.runs if run.end <= place <= run.end + SKIPPED), None) or _Run()
            data = self.fetch(place, min(place + run.length, self.size))
            kept = run.data[-KEPT:] if place == run.end else b""
            run.start, run.data = place - len(kept), kept + data
            run.length = min(2 * run.length, MOST)
        self.runs = [run, *(other for other in self.runs if other is not run)][:RUNS]
        return run
