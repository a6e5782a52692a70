"""Units in, the files of a plan out, and back: NNNN.parquet for each generation, NNNN.boxes.parquet for its boxes.

The boxes of people are apart, in small row groups, so that a worker reads those of its units, and nobody else reads
them. The file of the units is written last, and whole: a generation without it does not exist.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glot.location import for_arrow, is_remote, move_in, open_parquet, temporary_of
from glot.people.frame_boxes import FrameBoxes
from glot.retries import retried
from pipelines.decoders.clips import Unit
from pipelines.sets.settings import RECORDS, write_file, written

FOLDER = "plan"  # in RECORDS
UNITS_IN_GROUP = 1000  # in a row group of units
UNITS_WITH_BOXES = 100  # in a row group of boxes, unless they have
MOST_BOXES = 200_000  # or more: 8 MB
UNITS_AT_ONCE = 10_000  # units that are Python objects while a plan is written
NOTE = b"note"  # key of the metadata of a file

# Names of files are bytes. Some are no text.
UNITS = pa.schema(
    [
        ("name", pa.string()),
        ("annotation", pa.binary()),
        ("images", pa.binary()),
        ("frames", pa.int64()),
        ("sources", pa.string()),  # JSON
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("facts", pa.string()),  # JSON
        ("gone", pa.bool_()),  # whether the source went: such a row has a name only
        ("group", pa.int32()),  # row group of its boxes, null where it has none
        ("place", pa.int32()),  # its row in that row group
    ]
)
PERSON = pa.struct([("person", pa.binary()), ("frames", pa.list_(pa.int64())), ("bbox", pa.list_(pa.float64()))])
BOXES = pa.schema([("people", pa.list_(PERSON))])


def units_path(folder: Path, generation: int) -> Path:
    """The file of the units of a generation; ``folder`` is the set's."""
    return folder / RECORDS / FOLDER / f"{generation:04d}.parquet"


def boxes_path(folder: Path, generation: int) -> Path:
    return folder / RECORDS / FOLDER / f"{generation:04d}.boxes.parquet"


class PlanWriter:
    """Collects the units of a generation. Boxes are written as they come and never held."""

    def __init__(self, boxes: Path) -> None:
        self.boxes_file = boxes
        self.writer: pq.ParquetWriter | None = None
        self.rows: list[tuple[Any, ...]] = []
        self.tables: list[pa.Table] = []
        self.orders: list[tuple[int, int]] = []
        self.people: list[list[dict[str, Any]]] = []  # boxes of the units in the row group that grows
        self.waiting = self.groups = 0  # boxes in it; its number

    def add(self, unit: Unit, order: int) -> None:
        """Adds a unit; rows will be in the order of ``order``, the number of its source, and of its start."""
        place = None
        if unit.boxes is not None:
            place = self.groups, len(self.people)
            self.people.append([_person(person, boxes) for person, boxes in unit.boxes.items()])
            self.waiting += sum(len(boxes.frames) for boxes in unit.boxes.values())
        names = unit.name, to_bytes(unit.annotation), to_bytes(unit.images)
        texts = json.dumps(unit.sources), json.dumps(unit.facts)
        values = (*names, unit.frames, texts[0], unit.start, unit.stop, texts[1], False, *(place or (None, None)))
        self._row((order, unit.start), values)
        if len(self.people) >= UNITS_WITH_BOXES or self.waiting >= MOST_BOXES:
            self._write_boxes()

    def add_gone(self, name: str) -> None:
        """Notes that a source went."""
        self._row((-1, len(self.orders)), (name, b"", b"", 0, "[]", 0, None, "{}", True, None, None))

    def table(self, note: Mapping[str, Any]) -> pa.Table:
        """All rows, in order. ``note`` is kept with them."""
        self._pack()
        if self.people:
            self._write_boxes()
        rows = pa.concat_tables([UNITS.empty_table(), *self.tables])
        if len(rows):
            numbers = np.array(self.orders, np.int64)
            rows = rows.take(np.lexsort((numbers[:, 1], numbers[:, 0])))
        return rows.replace_schema_metadata({NOTE: json.dumps(note).encode()})

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _row(self, order: tuple[int, int], values: tuple[Any, ...]) -> None:
        self.orders.append(order)
        self.rows.append(values)
        if len(self.rows) >= UNITS_AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        columns = zip(*self.rows, strict=True)
        if self.rows:
            arrays = [pa.array(values, field.type) for values, field in zip(columns, UNITS, strict=True)]
            self.tables.append(pa.table(arrays, schema=UNITS))
        self.rows = []

    def _write_boxes(self) -> None:
        if self.writer is None:
            self.writer = pq.ParquetWriter(for_arrow(self.boxes_file), BOXES, compression="zstd", use_dictionary=False)
        self.writer.write_table(pa.table({"people": pa.array(self.people, BOXES.field("people").type)}, schema=BOXES))
        self.people, self.waiting = [], 0
        self.groups += 1


@contextmanager
def written_plan(folder: Path, generation: int, note: Mapping[str, Any]) -> Iterator[PlanWriter]:
    """A writer of a generation's plan, which appears in ``folder`` when the block ends without an error."""
    if not is_remote(folder):
        (folder / RECORDS / FOLDER).mkdir(parents=True, exist_ok=True)
    target = boxes_path(folder, generation)
    temporary = temporary_of(Path(tempfile.gettempdir()) / target.name if is_remote(folder) else target)
    writer = PlanWriter(temporary)
    try:
        yield writer
        table = writer.table(note)
        writer.close()
        if temporary.exists():
            written(target, lambda: move_in(temporary, target))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=UNITS_IN_GROUP)
        write_file(units_path(folder, generation), sink.getvalue().to_pybytes())
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def read_units(folder: Path, generation: int, rows: Sequence[int]) -> list[Unit]:
    """The units in these rows of a generation's file, with their boxes, in the order of ``rows``.

    Only the row groups that hold them are read. NotNowError where they cannot be read now.
    """
    path = units_path(folder, generation)
    return retried(lambda: _read_units(folder, generation, rows), path, remote=is_remote(folder))


def _read_units(folder: Path, generation: int, rows: Sequence[int]) -> list[Unit]:
    numbers = np.asarray(rows, np.int64)
    with open_parquet(units_path(folder, generation)) as file:
        groups, inverse = np.unique(numbers // UNITS_IN_GROUP, return_inverse=True)
        table = file.read_row_groups(groups.tolist())
    table = table.take(inverse * UNITS_IN_GROUP + numbers % UNITS_IN_GROUP)
    places = list(zip(table["group"].to_pylist(), table["place"].to_pylist(), strict=True))
    boxes = _read_boxes(boxes_path(folder, generation), places)
    return [unit_of(row, boxes.get(place)) for row, place in zip(table.to_pylist(), places, strict=True)]


def unit_of(row: Mapping[str, Any], boxes: Mapping[str, FrameBoxes] | None = None) -> Unit:
    """The unit of a row of UNITS."""
    return Unit(
        row["name"], to_text(row["annotation"]), to_text(row["images"]), row["frames"],
        tuple(json.loads(row["sources"])), row["start"], row["stop"], json.loads(row["facts"]), boxes,
    )  # fmt: skip


def to_bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def to_text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def _person(name: str, boxes: FrameBoxes) -> dict[str, Any]:
    return {"person": name.encode(errors="surrogatepass"), "frames": boxes.frames, "bbox": boxes.bbox.ravel()}


def _read_boxes(path: Path, places: Sequence[tuple[int | None, int | None]]) -> dict[Any, dict[str, FrameBoxes]]:
    """{(row group, row in it): {person: boxes}}."""
    groups = sorted({group for group, _ in places if group is not None})
    if not groups:
        return {}
    found: dict[Any, dict[str, FrameBoxes]] = {}
    with open_parquet(path) as file:
        for group in groups:
            people = file.read_row_group(group)["people"]
            for place in sorted({row for number, row in places if number == group and row is not None}):
                found[group, place] = {
                    person["person"].as_py().decode(errors="surrogatepass"): FrameBoxes(
                        np.asarray(person["frames"].values), np.asarray(person["bbox"].values).reshape(-1, 4)
                    )
                    for person in people[place]
                }
    return found
