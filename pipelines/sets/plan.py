"""A folder of a feature set in; its plan out: the units that are to be in the set, in order, found once for all runs.

Each run that finds new, changed or gone sources appends a generation. The last generation of a source counts.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glot.errors import InputError
from pipelines.decoders.clips import Unit
from pipelines.decoders.source_entries import Before
from pipelines.decoders.unit_cuts import UNREAD
from pipelines.sets.plan_file import FOLDER, NOTE, UNITS, to_text, unit_of, units_path
from pipelines.sets.settings import RECORDS, list_set, read_file

FILE = re.compile(rf"{re.escape(RECORDS)}/{FOLDER}/(\d{{4,}})\.parquet")


class Plan:
    """The N live units of a set: those of the last generation of each source that has not gone.

    They are in order of generation, then of the sources' names as they were found, then of ``start``.
    """

    def __init__(self, table: pa.Table, files: Sequence[int], note: Mapping[str, Any]) -> None:
        self.table = table  # UNITS, and the columns generation and row (number of the row in that generation's file)
        self.files = files  # the generations
        self.note = note  # what was noted with the last one

    @classmethod
    def read(cls, folder: Path, files: Mapping[str, int] | None = None) -> "Plan":
        """The plan of the set in ``folder``; empty where there is none. One request for each generation.

        ``files`` is ``list_set(folder)``, which is called where it is not given. InputError where a file is damaged.
        """
        files = list_set(folder) if files is None else files
        return cls.of_generations(folder, sorted(int(found[1]) for name in files if (found := FILE.fullmatch(name))))

    @classmethod
    def of_generations(cls, folder: Path, numbers: Sequence[int]) -> "Plan":
        """The plan of these generations. They are read one after the other, whole, but without the boxes."""
        tables, note = [], {}
        for number in numbers:
            table = _read(units_path(folder, number))
            note = json.loads((table.schema.metadata or {}).get(NOTE, b"{}"))
            rows = pa.array(np.arange(len(table)))
            table = table.replace_schema_metadata(None).append_column("row", rows)
            tables.append(table.append_column("generation", pa.array(np.full(len(table), number, np.int32))))
        if not tables:
            columns = [*UNITS, pa.field("row", pa.int64()), pa.field("generation", pa.int32())]
            return cls(pa.schema(columns).empty_table(), [], {})
        return cls(_live(pa.concat_tables(tables)), numbers, note)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def generation(self) -> int:
        """The last generation; -1 before the first."""
        return self.files[-1] if self.files else -1

    @cached_property
    def ids(self) -> list[str]:
        """(N) unique in the set for ever, "0000/walk.mp4@0002000": the generation and the key of the unit."""
        columns = (
            self.generations.tolist(),
            self.names,
            self.starts.tolist(),
            self.table["stop"].is_null().to_pylist(),
        )
        return [
            f"{generation:04d}/{name}" if start == 0 and to_end else f"{generation:04d}/{name}@{start:07d}"
            for generation, name, start, to_end in zip(*columns, strict=True)
        ]

    @cached_property
    def names(self) -> list[str]:
        """(N) names of the units' sources."""
        return self.table["name"].to_pylist()

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        """(N,) pictures of each unit; 0 where it is not known."""
        return self.table["frames"].to_numpy()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return self.table["start"].to_numpy()

    @cached_property
    def generations(self) -> NDArray[np.int32]:
        """(N,) generation of each unit."""
        return self.table["generation"].to_numpy()

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(N,) row of each unit in its generation's file, for ``read_units``."""
        return self.table["row"].to_numpy()

    def units(self, numbers: Sequence[int] | NDArray[np.integer]) -> list[Unit]:
        """The units with these numbers in 0 ... N - 1, without their boxes (``read_units`` has them)."""
        return [unit_of(row) for row in self.table.take(pa.array(numbers, pa.int64())).to_pylist()]

    def unread(self) -> set[str]:
        """Names of the sources that could not be read when they were planned, and are whole units therefore."""
        marked = pc.match_substring(self.table["facts"], f'"{UNREAD}"')
        return set(self.table["name"].filter(marked).to_pylist())

    def sources(self) -> dict[str, str]:
        """{name: entries of the files, as JSON} of all sources."""
        first = self._first()
        return dict(zip(first["name"].to_pylist(), first["sources"].to_pylist(), strict=True))

    def before(self, suspects: Collection[str] = frozenset()) -> Before:
        """What the decoders are to know of earlier runs. ``suspects``: see there."""
        first = self._first()
        videos = [to_text(name) for name in first["images"].to_pylist()]
        entries: dict[str, Any] = {}
        hashes: dict[str, str] = {}
        for video, text in zip(videos, first["sources"].to_pylist(), strict=True):
            if '"files"' in text or '.tfrecord"' in text:
                entries |= {entry["path"]: entry for entry in json.loads(text)}
            elif '"hash"' in text:
                hashes[video] = json.loads(text)[-1].get("hash", "")
        return Before(entries, suspects, self.note.get("tracks"), hashes)

    def _first(self) -> pa.Table:
        """The first units of all sources."""
        return self.table.filter(pa.array(self.starts == 0))


def _live(table: pa.Table) -> pa.Table:
    """The rows of the last generation of each source, without those that went."""
    codes = pc.dictionary_encode(table["name"].combine_chunks()).indices.to_numpy()
    generations = table["generation"].to_numpy()
    last = np.full(codes.max(initial=-1) + 1, -1, np.int32)
    np.maximum.at(last, codes, generations)
    live = (generations == last[codes]) & ~table["gone"].to_numpy()
    return table.filter(pa.array(live))


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(read_file(path)))
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path}: not readable as Parquet ({error}); restore it or extract into another --out"
        ) from None
