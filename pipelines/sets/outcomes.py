"""What became of each unit. A run appends outcomes as they come; when it has finished, they are merged into one file.

The newest outcome of a unit counts, except that no later failure replaces the outcome of a unit that is done.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glot.errors import InputError
from glot.location import is_remote
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.settings import RECORDS, list_set, read_file, remove_files, write_file

MERGED = "outcomes.parquet"  # in RECORDS
FOLDER = "outcomes"  # in RECORDS: the outcomes of runs that have not finished

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("fragment", pa.string()),  # null: the unit has no row
        ("rows", pa.int64()),
        ("tracks", pa.int64()),
        ("bytes", pa.int64()),
        ("counts", pa.string()),  # JSON
        ("skipped", pa.string()),  # JSON
        ("frames", pa.int64()),
        ("code", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit: it is done, or its source is damaged, or it failed and is tried again in the next run."""

    id: str  # generation of the plan/key of the unit, e.g. 0000/walk_01@0002000
    kind: str  # done, damaged or failed
    fragment: dict[str, Any] | None = None  # {name, rows, tracks, bytes}; None: the unit has no row
    counts: dict[str, int] = field(default_factory=dict)  # what the decoder counted
    skipped: list[dict[str, Any]] = field(default_factory=list)  # {what, reason, frames}
    frames: int = 0  # pictures of the unit
    code: str = ""  # version of the code that did the unit

    @property
    def rows(self) -> int:
        return self.fragment["rows"] if self.fragment else 0


NAMES = tuple(entry.name for entry in fields(Outcome))


class OutcomeLog:
    """Appends the outcomes of a run. What ``append`` was given is kept whatever happens to this process afterwards."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder / RECORDS / FOLDER, run
        # A process that was killed may have left half a line, so each process begins files of its own.
        before = [name for name in list_set(self.folder) if name.startswith(f"{run}-")]
        self.number = 1 + max((int(Path(name).stem.rpartition("-")[2]) for name in before), default=-1)
        self.file: Any = None

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Writes a batch: lines at the end of the file on a disk, a new object in a store."""
        if not outcomes:
            return
        now = time.time()
        lines = b"".join(_line(outcome, now) for outcome in outcomes)
        if is_remote(self.folder):
            write_file(self._path(), lines)
            self.number += 1
            return
        if self.file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = self._path().open("ab")
        try:
            self.file.write(lines)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError:  # half a line may be there, so the next batch begins another file
            self.close()
            self.number += 1
            raise

    def close(self) -> None:
        """Ends the file; the next batch continues it."""
        file, self.file = self.file, None
        if file is not None:
            with suppress(OSError):  # on a full disk; ``append`` has raised it
                file.close()

    def _path(self) -> Path:
        return self.folder / f"{self.run}-{self.number:05d}.jsonl"


def _line(outcome: Outcome, now: float) -> bytes:
    values = {name: getattr(outcome, name) for name in NAMES}
    return f"{json.dumps({**values, 'time': now})}\n".encode()


def read_outcomes(folder: Path, files: Mapping[str, int] | None = None) -> dict[str, Outcome]:
    """The outcomes of all units, by id. ``files`` is ``list_set(folder)``, which is called where it is not given."""
    files = list_set(folder) if files is None else files
    outcomes = _read_merged(folder / RECORDS / MERGED) if f"{RECORDS}/{MERGED}" in files else {}
    for _, outcome in log_entries(folder, files):
        before = outcomes.get(outcome.id)
        if before is None or before.kind != DONE or outcome.kind == DONE:
            outcomes[outcome.id] = outcome
    return outcomes


def merge(folder: Path, outcomes: Mapping[str, Outcome], files: Mapping[str, int] | None = None) -> None:
    """Writes all outcomes into one file, then removes the files of single runs. ``files`` as in ``read_outcomes``."""
    logs = _logs(list_set(folder) if files is None else files)
    write_file(folder / RECORDS / MERGED, _merged(outcomes.values()))
    remove_files(folder, logs)


def log_entries(folder: Path, files: Mapping[str, int]) -> list[tuple[float, Outcome]]:
    """When (seconds since 1970) each outcome of the runs that have not finished came, in that order."""
    logs = _logs(files)
    entries = [entry for name, text in _read_all(folder, logs) for entry in _read_lines(f"{folder}/{name}", text)]
    return sorted(entries, key=lambda entry: entry[0])


def _read_all(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The contents of files below ``folder``; many at once from a store. Files that are gone are passed over."""
    if is_remote(folder) and names:
        place: Any = folder
        paths = {f"{place.path.rstrip('/')}/{name}": name for name in names}
        # s3fs asks for the size of a file before it reads it in pieces at once.
        found = place.fs.cat(list(paths), on_error="return", max_concurrency=1)
        for path, content in found.items():
            if isinstance(content, bytes):
                yield paths[path], content
        names = [name for path, name in paths.items() if not isinstance(found.get(path), bytes)]
    for name in names:
        with suppress(FileNotFoundError):  # merged meanwhile by a run, while this one only looks
            yield name, read_file(folder / name)


def _logs(files: Iterable[str]) -> list[str]:
    return sorted(name for name in files if name.startswith(f"{RECORDS}/{FOLDER}/") and name.endswith(".jsonl"))


def _read_lines(path: str, text: bytes) -> list[tuple[float, Outcome]]:
    whole = text[: text.rfind(b"\n") + 1]  # a process was killed while it wrote the line after
    entries = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            values = json.loads(line)
            outcome = _slim(Outcome(**{name: values[name] for name in NAMES if name in values}))
            entries.append((float(values.get("time", 0)), outcome))
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}: line {number} is not readable; remove that line") from None
    return entries


def _slim(outcome: Outcome) -> Outcome:
    """The outcome with its repeated texts kept once in memory."""
    counts = {sys.intern(name): count for name, count in outcome.counts.items()}
    return Outcome(
        outcome.id,
        sys.intern(outcome.kind),
        outcome.fragment and {sys.intern(name): value for name, value in outcome.fragment.items()},
        counts,
        outcome.skipped,
        outcome.frames,
        sys.intern(outcome.code),
    )


def _merged(outcomes: Iterable[Outcome]) -> bytes:
    everything = sorted(outcomes, key=lambda outcome: outcome.id)
    none: dict[str, Any] = {}
    columns = [
        [outcome.id for outcome in everything],
        [outcome.kind for outcome in everything],
        *([(o.fragment or none).get(name) for o in everything] for name in ("name", "rows", "tracks", "bytes")),
        [json.dumps(outcome.counts) for outcome in everything],
        [json.dumps(outcome.skipped) for outcome in everything],
        [outcome.frames for outcome in everything],
        [outcome.code for outcome in everything],
    ]
    table = pa.table(
        [pa.array(values, column.type) for values, column in zip(columns, COLUMNS, strict=True)], schema=COLUMNS
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _read_merged(path: Path) -> dict[str, Outcome]:
    try:
        table = pq.read_table(pa.BufferReader(read_file(path)))
        columns = [table[name] for name in COLUMNS.names]
    except FileNotFoundError:
        return {}
    except (pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"{path}: not readable ({error}); remove {path.parent.parent} and extract again") from None
    outcomes = {}
    for start in range(0, len(table), 10_000):  # bounds the memory
        rows = zip(*(column.slice(start, 10_000).to_pylist() for column in columns), strict=True)
        for id, kind, name, count, tracks, size, counts, skipped, frames, code in rows:
            fragment = None if name is None else {"name": name, "rows": count, "tracks": tracks, "bytes": size}
            outcomes[id] = _slim(Outcome(id, kind, fragment, json.loads(counts), json.loads(skipped), frames, code))
    return outcomes
