"""Which units are in which part of a set: packed.parquet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from glot.errors import InputError
from pipelines.sets.settings import RECORDS, read_file, write_file

PACKED = "packed.parquet"  # in RECORDS
COLUMNS = pa.schema([("part", pa.string()), ("unit", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64())])
NOTE = b"glot"  # key in the file's schema: {publish, parts}


class PackedUnit(NamedTuple):
    """The rows of a unit in a part."""

    id: str
    rows: int
    bytes: int  # of the fragment that they came from: a unit that is done again has another one


@dataclass(frozen=True)
class Packed:
    """The parts of a set."""

    publish: int = -1  # number of the last publishing that wrote a part; it is in the names of its parts
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # name: {name, rows, tracks, bytes, split}
    units: dict[str, list[PackedUnit]] = field(default_factory=dict)  # by the name of the part

    @classmethod
    def of(cls, publish: int, parts: Sequence[Mapping[str, Any]]) -> "Packed":
        """From descriptions of parts as ``pack_part`` returns them."""
        facts = {part["name"]: {name: part[name] for name in part if name != "units"} for part in parts}
        return cls(publish, facts, {part["name"]: [PackedUnit(*unit) for unit in part["units"]] for part in parts})

    def without(self, names: set[str]) -> "Packed":
        """All parts but those."""
        kept = [name for name in self.parts if name not in names]
        return Packed(self.publish, {n: self.parts[n] for n in kept}, {n: self.units[n] for n in kept})

    def places(self) -> dict[str, tuple[str, PackedUnit]]:
        """The name of the part that each unit is in, and the unit, by the unit's id."""
        return {unit.id: (name, unit) for name, units in self.units.items() for unit in units}

    def lost(self, files: Mapping[str, int]) -> set[str]:
        """The names of parts that are not in ``files`` (see ``list_set``), or have another size."""
        return {name for name, part in self.parts.items() if files.get(name) != part["bytes"]}


def write_packed(folder: Path, packed: Packed) -> None:
    """Writes packed.parquet in one step."""
    rows = [(name, *unit) for name, units in packed.units.items() for unit in units]
    note = {"publish": packed.publish, "parts": list(packed.parts.values())}
    schema = COLUMNS.with_metadata({NOTE: json.dumps(note)})
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=schema), sink, compression="zstd")
    write_file(folder / RECORDS / PACKED, sink.getvalue().to_pybytes())


def read_packed(folder: Path, files: Mapping[str, int]) -> Packed:
    """The parts of a set; none where nothing is packed yet. ``files``: see ``list_set``."""
    path = folder / RECORDS / PACKED
    if f"{RECORDS}/{PACKED}" not in files:
        return Packed()
    try:
        table = pq.read_table(pa.BufferReader(read_file(path)))
        note = json.loads((table.schema.metadata or {})[NOTE])
        columns = [table[name].to_pylist() for name in COLUMNS.names]
    except FileNotFoundError:
        return Packed()
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); remove {folder} and extract again") from None
    units: dict[str, list[PackedUnit]] = {part["name"]: [] for part in note["parts"]}
    for name, *unit in zip(*columns, strict=True):
        units[name].append(PackedUnit(*unit))
    return Packed(note["publish"], {part["name"]: part for part in note["parts"]}, units)
