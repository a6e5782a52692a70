"""The data contract between pipelines/ and glot/: a feature set is a folder of Parquet parts with a manifest.json.

``features/<dataset>/<split>/part-*.parquet`` hold one row per frame of one person track. The rows of a track are
contiguous, in time order and in one part. The manifest says what is in the set, what made it, and what was skipped.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from glot.errors import InputError
from glot.location import open_parquet, write_json

SCHEMA_VERSION = 1
KEYPOINTS = 49  # SPIN's order, glot.human.joints.SPIN49
MANIFEST = "manifest.json"


def schema(feature_size: int = 2048) -> pa.Schema:
    """Arrow schema of a row. Plain (nested) fixed-size lists: pyarrow, DuckDB and Polars keep their shapes."""

    def vector(size: int) -> pa.DataType:
        return pa.list_(pa.float32(), size)

    return pa.schema(
        [
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("track_id", pa.string()),
            ("frame_index", pa.int32()),  # 0-based, at the rate of the source
            ("image", pa.string()),  # path below the root, or video#frame
            ("fps", pa.float32()),  # frames per second of the source, the frames that frame_index counts
            ("bbox", vector(4)),  # centre x, centre y, width, height: px, without the crop scale
            ("crop_scale", pa.float32()),  # the crop's side is crop_scale * width
            ("feature", vector(feature_size)),
            ("keypoints2d", pa.list_(vector(3), KEYPOINTS)),  # x, y px of the image, confidence
            ("joints3d", pa.list_(vector(3), KEYPOINTS)),  # m, camera frame, relative to the source's own origin
            ("joints3d_valid", pa.list_(pa.bool_(), KEYPOINTS)),
            ("pose", pa.list_(vector(3), 24)),  # axis-angle, rad, camera frame
            ("betas", vector(10)),
            ("has_3d", pa.bool_()),
            ("has_smpl", pa.bool_()),
            ("valid", pa.bool_()),  # False where the source marks the frame as unreliable (3DPW: campose_valid)
            ("gender", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Manifest:
    """What a feature set holds and what it was made with.

    ``backbone`` = {name, weights, hash, feature_size}; ``crop`` = the crop rule; ``body`` = {name, hash, open};
    ``sources`` = [{path, bytes}]; ``skipped`` = [{what, reason, frames}].
    """

    dataset: str
    split: str
    rows: int
    tracks: int
    backbone: dict[str, Any]
    crop: dict[str, Any]
    body: dict[str, Any]
    parts: list[dict[str, Any]]  # {name, rows, tracks, bytes}
    sources: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    code_version: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> str:
        """16 hex digits that change whenever the content of the set does; part of the names of local copies."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest in one step. It comes last: a folder without one is not a feature set."""
    write_json(folder / MANIFEST, asdict(manifest), sort_keys=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the feature set in ``folder``; InputError where there is none, or of another schema version."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such feature folder; make it with pipelines/extract_features.py")
    if not path.is_file():
        raise InputError(
            f"{folder}: no {MANIFEST} in it, so no finished feature set; run pipelines/extract_features.py again"
        )
    try:
        values = json.loads(path.read_text())
        version = values["schema_version"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{path}: not a manifest of this project; extract the features again") from None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {version}, this code reads {SCHEMA_VERSION}; extract the features again"
        )
    try:
        return Manifest(**values)
    except TypeError as error:
        raise InputError(f"{path}: not a manifest of this project ({error}); extract the features again") from None


def parts(folder: Path, manifest: Manifest) -> list[Path]:
    """The files of the parts that the manifest lists; InputError where one is missing or has another size.

    Other files in the folder are ignored.
    """
    found = []
    for part in manifest.parts:
        path = folder / part["name"]
        if not path.is_file() or path.stat().st_size != part["bytes"]:
            raise InputError(f"{path}: missing or not of the size in the manifest; extract the features again")
        found.append(path)
    return found


@contextmanager
def open_part(path: Path, expected: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A part of a feature set; InputError where it is not readable or its columns are not those of ``expected``."""
    try:
        with open_parquet(path) as file:
            if not file.schema_arrow.remove_metadata().equals(expected):
                raise InputError(f"{path}: its columns are not those of schema version {SCHEMA_VERSION}; extract again")
            yield file
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not readable as Parquet ({error}); extract the features again") from None


def read_table(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a feature set in order, in RAM, with their schema checked. For training use glot.features.store."""
    manifest = read_manifest(folder)
    expected = schema(manifest.backbone["feature_size"])
    tables = []
    for path in parts(folder, manifest):
        with open_part(path, expected) as file:
            tables.append(file.read(columns=columns))
    names = columns or expected.names
    return pa.concat_tables(tables) if tables else pa.schema([expected.field(n) for n in names]).empty_table()


def column(values: ArrayLike, kind: pa.DataType) -> pa.Array:
    """values (N, a, b, ...) as an Arrow column of type ``kind``: N nested fixed-size lists of the type's scalars.

    A ``kind`` that is no fixed-size list, such as a plain number or a string, takes values (N,).
    """
    scalar = kind
    while pa.types.is_fixed_size_list(scalar):
        scalar = scalar.value_type
    if scalar == kind:
        return pa.array(values, type=kind)
    array = np.asarray(values)
    out = pa.array(np.ravel(array).astype(scalar.to_pandas_dtype(), copy=False), type=scalar)
    for size in reversed(array.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out
