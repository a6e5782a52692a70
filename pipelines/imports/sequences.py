"""Sequences that each have columns of their own in; columns over all of them out.

Still only the rows that are asked for are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from pipelines.imports.feature_columns import Column
from pipelines.imports.hmr2_layouts import FEATURES


class Tail:
    """A column without its first rows."""

    def __init__(self, column: Column, first: int) -> None:
        self.column, self.first = column, first
        self.shape, self.dtype = (max(column.shape[0] - first, 0), *column.shape[1:]), column.dtype

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        return self.column.rows(start + self.first, min(stop, self.shape[0]) + self.first)


class Repeated:
    """A column with the same value in each row."""

    def __init__(self, value: Any, count: int) -> None:
        self.value = np.asarray(value)
        self.shape, self.dtype = (count, *self.value.shape), self.value.dtype

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        count = max(min(stop, self.shape[0]) - start, 0)
        return np.broadcast_to(self.value, (count, *self.value.shape)).copy()


class Counting:
    """Whole numbers from ``first`` on."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.shape, self.dtype = first, (count,), np.dtype(np.int64)

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        return np.arange(start, min(stop, self.shape[0]), dtype=np.int64) + self.first


class Computed:
    """A column whose rows ``compute`` makes of the same rows of other columns; ``item`` is the shape of a row."""

    def __init__(
        self, columns: Sequence[Column], compute: Callable[..., NDArray[Any]], item: tuple[int, ...], dtype: Any = float
    ) -> None:
        self.columns, self.compute = columns, compute
        self.shape, self.dtype = (columns[0].shape[0], *item), np.dtype(dtype)

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        return self.compute(*(column.rows(start, stop) for column in self.columns))


class Joined:
    """Columns whose rows have one shape, one after the other."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.edges = np.concatenate([[0], np.cumsum([column.shape[0] for column in columns])])
        self.shape = (int(self.edges[-1]), *columns[0].shape[1:])
        self.dtype = reduce(np.promote_types, {column.dtype for column in columns})

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        stop = min(stop, self.shape[0])
        pieces = []
        number = int(np.searchsorted(self.edges, start, side="right")) - 1
        while number < len(self.columns) and (first := int(self.edges[number])) < stop:
            if self.columns[number].shape[0]:
                pieces.append(self.columns[number].rows(max(start - first, 0), stop - first))
            number += 1
        found: NDArray[Any] = np.concatenate(pieces or [np.empty((0, *self.shape[1:]))])
        return found.astype(self.dtype, copy=False)


@dataclass(frozen=True)
class Columns:
    """The columns of a source, and {what, reason, frames} of the sequences in it that cannot be used."""

    columns: dict[str, Column]
    skipped: list[dict[str, Any]]


# What stands in the rows of sequences that lack a column which others have. Poses of zeros are no poses.
_ABSENT: dict[str, Any] = {"valid": 1, "gender": "neutral", "joints3D": np.nan}
# The shapes of a row.
_ROWS: dict[str, tuple[int, ...]] = {
    "features": (FEATURES,), "bbox": (4,), "frame_id": (), "pose": (72,), "shape": (10,), "valid": (), "gender": (),
}  # fmt: skip


def join(sequences: Mapping[str, Mapping[str, Column]], skipped: list[dict[str, Any]], where: str) -> Columns:
    """One table of many sequences, {name: {column: rows}}; each has the columns features, bbox and frame_id.

    A sequence whose columns differ in their lengths, or have other shapes than usual, is skipped. InputError that
    starts with ``where`` if none is left.
    """
    skipped, good, shapes = list(skipped), dict[str, Mapping[str, Column]](), dict(_ROWS)
    for name, columns in sequences.items():
        if problem := _problem(columns, shapes):
            rows = columns["features"].shape[0]
            skipped.append({"what": name, "reason": problem, "frames": rows})
        else:
            good[name] = columns
            shapes |= {key: column.shape[1:] for key, column in columns.items()}
    if not good:
        first = f": {skipped[0]['what']}: {skipped[0]['reason']}" if skipped else ""
        raise InputError(f"{where}: none of its sequences can be used{first}")
    counts = {name: columns["features"].shape[0] for name, columns in good.items()}
    joined: dict[str, Column] = {"vid_name": Joined([Repeated(name, count) for name, count in counts.items()])}
    for key in dict.fromkeys(key for columns in good.values() for key in columns):
        absent = np.broadcast_to(_ABSENT.get(key, 0.0), shapes[key])
        joined[key] = Joined(
            [columns[key] if key in columns else Repeated(absent, counts[name]) for name, columns in good.items()]
        )
    return Columns(joined, skipped)


def _problem(columns: Mapping[str, Column], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with a sequence, or ""; ``shapes`` are those of the rows of earlier sequences."""
    features = columns["features"].shape
    if not features[0]:
        return "no frames in it"
    for name, column in columns.items():
        if column.shape[:1] != features[:1]:
            return f"{name} has shape {column.shape}, but features {features}"
        if column.shape[1:] != shapes.get(name, column.shape[1:]):
            return f"{name} has shape {column.shape[1:]} per frame, expected {shapes[name]}"
    return ""
