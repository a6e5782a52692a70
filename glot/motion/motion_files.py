"""A Motion to files and back: .npz, and .parquet with one row a frame.

Both formats hold the same values, under the same names. For each frame: frame, seen, score; SMPL's pose (24, 3)
axis-angle rad and betas (10); cam (s, tx, ty of the crop), full_image_cam (sx, sy, tx, ty of the picture); transl (3)
and joints3d (24, 3) m, camera frame; keypoints2d (24, 2) px; bbox (centre x, centre y, width, height) px; crop_scale.
Once for a file: person, fps, width, height, focal (px).
"""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import column
from glot.human.rotation import axis_angle_to_rotmat, rotmat_to_axis_angle
from glot.location import for_arrow, open_parquet, temporary_of
from glot.motion.person_motion import Motion, joined

COLUMNS = pa.schema(
    [
        ("frame", pa.int64()),
        ("seen", pa.bool_()),
        ("score", pa.float32()),
        ("pose", pa.list_(pa.list_(pa.float32(), 3), 24)),
        ("betas", pa.list_(pa.float32(), 10)),
        ("cam", pa.list_(pa.float32(), 3)),
        ("full_image_cam", pa.list_(pa.float32(), 4)),
        ("transl", pa.list_(pa.float32(), 3)),
        ("joints3d", pa.list_(pa.list_(pa.float32(), 3), 24)),
        ("keypoints2d", pa.list_(pa.list_(pa.float32(), 2), 24)),
        ("bbox", pa.list_(pa.float32(), 4)),
        ("crop_scale", pa.float32()),
    ]
)
# Values that are the same for all frames.
ONCE = {"person": str, "fps": float, "width": int, "height": int, "focal": float}
ROW_GROUP = 512  # frames converted and written at a time


def write_motion(pieces: Iterable[Motion], *paths: Path) -> None:
    """Writes one person's motion, given in consecutive pieces, to files whose suffix is .npz or .parquet.

    .npz: plain arrays, which numpy reads with allow_pickle=False. .parquet: one row a frame; values that are the same
    for all frames are in the schema's metadata, as text. One piece is in memory at a time. A file appears under its
    name when it is complete.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(WRITERS[path.suffix](path)) for path in paths]
        for piece in pieces:
            for start in range(0, len(piece), ROW_GROUP):
                rows = piece.rows(slice(start, start + ROW_GROUP))
                arrays = _arrays(rows)
                for writer in writers:
                    writer.add(rows, arrays)


class _Writer:
    """A file that gets its name when the ``with`` block ends without an exception."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, temporary_of(path)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.end(complete=kind is None)
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)

    def add(self, rows: Motion, arrays: dict[str, NDArray]) -> None:
        raise NotImplementedError

    def end(self, *, complete: bool) -> None:
        raise NotImplementedError


class _Npz(_Writer):
    """Each array of the archive is one run of bytes, so the pieces of each array wait in a temporary file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.columns: dict[str, IO[bytes]] = {}
        self.kinds: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self.count = 0
        self.once: dict[str, NDArray] = {}

    def add(self, rows: Motion, arrays: dict[str, NDArray]) -> None:
        self.count += len(rows)
        self.once = {name: np.array(getattr(rows, name)) for name in ONCE}
        for name, values in arrays.items():
            if name not in self.columns:
                self.columns[name] = tempfile.TemporaryFile(prefix="glot-npz-")  # noqa: SIM115 (see end)
                self.kinds[name] = np.lib.format.dtype_to_descr(values.dtype), values.shape[1:]
            self.columns[name].write(np.ascontiguousarray(values).tobytes())

    def end(self, *, complete: bool) -> None:
        try:
            if complete:
                with zipfile.ZipFile(self.temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name, column in self.columns.items():
                        kind, shape = self.kinds[name]
                        header = {"descr": kind, "fortran_order": False, "shape": (self.count, *shape)}
                        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                            np.lib.format.write_array_header_1_0(file, header)
                            column.seek(0)
                            shutil.copyfileobj(column, file)
                    for name, value in self.once.items():
                        with archive.open(f"{name}.npy", "w") as file:
                            np.lib.format.write_array(file, value, allow_pickle=False)
        finally:
            for column in self.columns.values():
                column.close()


class _Parquet(_Writer):
    """Each piece is one row group."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writer: pq.ParquetWriter | None = None

    def add(self, rows: Motion, arrays: dict[str, NDArray]) -> None:
        if self.writer is None:
            once = {name: str(getattr(rows, name)) for name in ONCE}
            self.writer = pq.ParquetWriter(for_arrow(self.temporary), COLUMNS.with_metadata(once))
        schema = self.writer.schema
        self.writer.write_table(pa.table([column(arrays[each.name], each.type) for each in schema], schema=schema))

    def end(self, *, complete: bool) -> None:
        if self.writer is not None:
            self.writer.close()


WRITERS: dict[str, type[_Writer]] = {".npz": _Npz, ".parquet": _Parquet}


def read_motion(path: Path) -> Motion:
    """The Motion that ``write_motion`` wrote. InputError if it did not write ``path``."""
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path}: is no motion file; give an .npz or a .parquet file of glot.predict")
    try:
        return _motion(readers[path.suffix](path))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except KeyError as error:
        raise InputError(f"{path}: has no {error}, so it is no motion file of glot.predict") from None
    except Exception as error:  # numpy, zipfile and pyarrow raise many kinds of exceptions
        raise InputError(f"{path}: is not a complete motion file ({error}); write it again") from None


class StoredMotion:
    """A person's motion in a .parquet file that ``write_motion`` wrote. One row group is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(for_arrow(path))
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._number, self._piece = -1, cast(Motion, None)
        self.frames: NDArray[np.int64] = self._file.read(["frame"])["frame"].to_numpy()

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, start: int, stop: int) -> Motion:
        """Rows [start, stop), at least one. Fast where rows are read in order."""
        pieces = []
        while start < stop:
            number = int(np.searchsorted(self._starts, start, side="right")) - 1
            if number != self._number:
                self._number, self._piece = number, _motion(_arrays_of(self._file.read_row_group(number)))
            first, end = self._starts[number : number + 2]
            pieces.append(self._piece.rows(slice(start - first, min(stop, end) - first)))
            start = int(end)
        return joined(pieces) if len(pieces) > 1 else pieces[0]

    def close(self) -> None:
        self._file.close()


def _motion(values: dict[str, Any]) -> Motion:
    return Motion(
        frames=values["frame"],
        seen=values["seen"],
        scores=values["score"],
        rotmats=_by_blocks(axis_angle_to_rotmat, values["pose"]),
        **{name: values[name] for name in ("betas", "cam", "transl", "joints3d", "keypoints2d")},
        **{name: values[name] for name in ("bbox", "crop_scale")},
        **{name: kind(values[name]) for name, kind in ONCE.items()},
    )


def _arrays(motion: Motion) -> dict[str, NDArray]:
    names = {"frame": "frames", "score": "scores"}
    out = {each: getattr(motion, names.get(each, each)) for each in COLUMNS.names if each != "pose"}
    return out | {"pose": axis_angle(motion)}


def axis_angle(motion: Motion) -> NDArray[np.float32]:
    """The poses of a motion: (N, 24, 3) rad."""
    return _by_blocks(rotmat_to_axis_angle, motion.rotmats)


def _by_blocks(convert: Callable[[torch.Tensor], torch.Tensor], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Converts rotations in double precision, block by block: an hour of them at once takes gigabytes."""
    blocks = [
        convert(torch.from_numpy(values[start : start + ROW_GROUP]).double()).float().numpy()
        for start in range(0, len(values), ROW_GROUP)
    ]
    return np.concatenate(blocks)


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_parquet(path: Path) -> dict[str, Any]:
    with open_parquet(path) as file:
        return _arrays_of(file.read())


def _arrays_of(table: pa.Table) -> dict[str, Any]:
    """Column -> array, writable; and the values of the metadata, as text."""
    values: dict[str, Any] = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    for name in table.column_names:
        kind, cells = table.schema.field(name).type, table[name].combine_chunks()
        shape = [table.num_rows]
        while pa.types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
            kind, cells = kind.value_type, cells.flatten()
        values[name] = cells.to_numpy(zero_copy_only=False).reshape(shape).copy()
    return values
