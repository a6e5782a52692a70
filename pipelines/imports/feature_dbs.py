"""Feature files of VIBE, TCMR and GLoT in (*_db.pt and insta_train_db.h5), their tracks out.

A file is a dict of arrays with one row for each frame: vid_name, frame_id, img_name, features, joints2D, joints3D,
pose, shape, bbox, valid. The dataset determines which arrays a file has, and their joint order. N rows.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from pipelines.imports.feature_columns import NAMES, NUMBERS, Column
from pipelines.imports.layouts import Layout

TEXT_ROWS = 16_384  # rows of names that are read at once: with 4 bytes per character, a path has about 400 bytes


class TrackRows(NamedTuple):
    """One track: the rows [start, stop) of the file."""

    track_id: str
    start: int
    stop: int


@dataclass
class Database:
    """An open file. InputError where its arrays do not fit the layout of the dataset's files.

    ``counts`` grows while rows are read: the numbers of things that were corrected or are missing, by kind.
    """

    name: str  # name of the file, for messages
    dataset: str
    columns: dict[str, Column]
    layout: Layout
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.columns = {name: self.columns[name] for name in (*NAMES, *NUMBERS) if name in self.columns}
        self._check_columns()
        self.order2d = self._order("joints2D", self.layout.joints2d)
        self.order3d = self._order("joints3D", self.layout.joints3d)
        self._check_widths()
        self.feature_size = self.columns["features"].shape[1]
        is_half = self.layout.halves and self.columns["features"].dtype == np.float16
        self.feature_dtype = "float16" if is_half else "float32"  # of the set
        self.frame_index = self._frame_index()

    def _check_columns(self) -> None:
        if missing := [name for name in self.layout.needs if name not in self.columns]:
            names = ", ".join(missing)
            raise InputError(f"{self.name}: no {names} in it, so it is not a feature file of {self.dataset}")
        self.rows = self.columns["features"].shape[0] if self.columns["features"].shape else 0
        for name, column in self.columns.items():
            if column.shape[:1] != (self.rows,):
                raise InputError(f"{self.name}: {name} has shape {column.shape}, but features has {self.rows} rows")
            if name in NUMBERS and column.dtype.kind not in "biuf":
                raise InputError(f"{self.name}: {name} holds {column.dtype}, not numbers")
        if not self.rows:
            raise InputError(f"{self.name}: no rows in it")

    def _check_widths(self) -> None:
        for name, width in (("features", self.layout.feature_size), ("pose", 72), ("shape", 10), ("bbox", 4)):
            shape = self.columns[name].shape[1:] if name in self.columns else (width,)
            if len(shape) != 1 or not shape[0] or shape[0] != (width or shape[0]):
                raise InputError(f"{self.name}: {name} has shape {shape} per row, expected {(width or 2048,)}")

    def tracks(self) -> list[TrackRows]:
        """The tracks in the order of the file. A track is consecutive rows of one name with ascending frames."""
        goes_back = np.diff(self.frame_index, prepend=self.frame_index[:1]) <= 0
        edges: list[int] = []
        names: list[str] = []
        last: Any = None
        for start, chunk in self._text("vid_name"):
            changed = np.empty(len(chunk), bool)
            changed[0] = last is None or chunk[0] != last
            changed[1:] = chunk[1:] != chunk[:-1]
            back = goes_back[start : start + len(chunk)] & ~changed
            self.counts["tracks_cut_where_time_goes_back"] += int(back.sum())
            for row in np.flatnonzero(changed | back):
                name = decoded(chunk[row])
                names.append(name if self.layout.whole_names else _short(name))
                edges.append(start + int(row))
            last = chunk[-1]
        edges.append(self.rows)
        used: Counter[str] = Counter()
        found = []
        for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True):
            used[name] += 1
            # A name that comes again later begins another track here. The published code adds such rows to the first.
            found.append(TrackRows(name if used[name] == 1 else f"{name}~{used[name]}", start, stop))
        self.counts["tracks_of_a_name_used_before"] += sum(count - 1 for count in used.values())
        return found

    def _order(self, name: str, orders: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        """The joint order of a column: the entry of ``orders`` with as many joints as the column; () without one."""
        if name not in self.columns:
            return ()
        shape = self.columns[name].shape[1:]
        wanted = {len(order): order for order in orders}
        if len(shape) != 2 or shape[1] != 3 or shape[0] not in wanted:
            expected = " or ".join(f"({count}, 3)" for count in wanted)
            raise InputError(f"{self.name}: {name} has shape {shape} per row, {self.dataset} has {expected}")
        return wanted[shape[0]]

    def _text(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields (first row, names) for one piece of the column after the other; names are strings or bytes."""
        for start in range(0, self.rows, TEXT_ROWS):
            yield start, self.columns[name].rows(start, min(start + TEXT_ROWS, self.rows))

    def _frame_index(self) -> NDArray[np.int32]:
        """(N,) 0-based: from frame_id, else from the names of the pictures, else the numbers of the rows."""
        source = next((name for name in ("frame_id", "img_name") if name in self.columns), None)
        self.has_frames = source is not None
        if source is None:
            return np.arange(self.rows, dtype=np.int32)
        frames = np.empty(self.rows, np.int64)
        if self.columns[source].dtype.kind in "iu":
            frames[:] = self.columns[source].rows(0, self.rows)
        else:
            for start, chunk in self._text(source):
                for row, value in enumerate(chunk, start):
                    digits = re.search(r"(\d+)(\.\w+)?$", decoded(value))
                    if digits is None or len(digits[1]) > 9:
                        raise InputError(
                            f"{self.name}: {source} of row {row} is {decoded(value)!r}, not the number of a frame"
                        )
                    frames[row] = int(digits[1]) - self.layout.first_frame
        if len(bad := np.flatnonzero((frames < 0) | (frames > 2**31 - 1))):
            raise InputError(f"{self.name}: frame {frames[bad[0]]} in row {bad[0]}, which no video has")
        return frames.astype(np.int32)


def decoded(value: Any) -> str:
    """A name of the file, which may be bytes, as a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(name: str) -> str:
    """The name of a track, without the folders of the machine on which the file was made, and without ".mat"."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".mat") or name or "unnamed"
