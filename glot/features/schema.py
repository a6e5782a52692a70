"""The data contract between pipelines/ and glot/: a feature set is a folder of Parquet parts with a manifest.json.

``features/<dataset>/<split>/part-*.parquet`` hold one row per frame of one person track. The rows of a track are
contiguous and in time order within a part; since version 2 they may go on in later parts, with later frames. The
manifest says what is in the set, what made it, and what was skipped.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from glot.errors import InputError, NotNowError, is_passing
from glot.location import Entry, file_exists, list_folder, open_parquet, read_whole, write_json

SCHEMA_VERSION = 2  # of new sets: tracks go on in later parts, and features may be float16
READABLE = (1, SCHEMA_VERSION)
KEYPOINTS = 49  # SPIN's order, glot.human.joints.SPIN49
MANIFEST = "manifest.json"
DTYPES = {"float32": pa.float32(), "float16": pa.float16()}  # of the features
# The columns of a first guess, in sets whose backbone gives one, and their shapes: axis-angle in rad in the camera
# frame, betas, and the weak-perspective camera (s, tx, ty) of the crop.
GUESS = {"guess_pose": (24, 3), "guess_betas": (10,), "guess_cam": (3,)}
GUESS_SIZE = sum(prod(shape) for shape in GUESS.values())


def guess_columns(values: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    """(N, GUESS_SIZE) -> the columns GUESS of a first guess."""
    starts = np.cumsum([prod(shape) for shape in GUESS.values()])[:-1]
    parts = np.split(values, starts, axis=1)
    return {name: part.reshape(-1, *GUESS[name]) for name, part in zip(GUESS, parts, strict=True)}


def schema(feature_size: int = 2048, dtype: str = "float32", *, with_guess: bool = False) -> pa.Schema:
    """Arrow schema of a row, with features of ``dtype`` (DTYPES); ``with_guess`` also has the columns GUESS.

    Plain (nested) fixed-size lists: pyarrow, DuckDB and Polars keep their shapes.
    """

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
            ("feature", pa.list_(DTYPES[dtype], feature_size)),
            ("keypoints2d", pa.list_(vector(3), KEYPOINTS)),  # x, y px of the image, confidence
            ("joints3d", pa.list_(vector(3), KEYPOINTS)),  # m, camera frame, relative to the source's own origin
            ("joints3d_valid", pa.list_(pa.bool_(), KEYPOINTS)),
            ("pose", pa.list_(vector(3), 24)),  # axis-angle, rad, camera frame
            ("betas", vector(10)),
            ("has_3d", pa.bool_()),
            ("has_smpl", pa.bool_()),
            ("valid", pa.bool_()),  # False where the source marks the frame as unreliable (3DPW: campose_valid)
            ("gender", pa.string()),
            *((name, reduce(pa.list_, reversed(shape), pa.float32())) for name, shape in GUESS.items() if with_guess),
        ]
    )


def backbone_words(backbone: Mapping[str, Any]) -> str:
    """What tells a backbone of a manifest from another, for messages."""
    rule = f", crop rule {backbone['crop_rule']}" if "crop_rule" in backbone else ""
    return f"{backbone.get('name')}, {backbone.get('weights')}{rule}, hash {backbone.get('hash')}"


@dataclass(frozen=True)
class Manifest:
    """What a feature set holds and what it was made with.

    ``backbone`` = {name, weights, hash, feature_size}, dtype where the features are not float32, and guess_size where
    there is a first guess; ``crop`` = the crop rule; ``body`` = {name, hash, open}; ``sources`` = [{path, bytes}];
    ``skipped`` = [{what, reason, frames}]. A part's ``tracks`` are those with rows in it, so a track that goes on in
    another part counts in both.
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
        text = json.dumps(vars(self), sort_keys=True)  # dataclasses.asdict takes a second for 100,000 sources
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def feature_dtype(self) -> str:
        """The type of the stored features, a key of DTYPES."""
        return str(self.backbone.get("dtype", "float32"))

    @property
    def has_guess(self) -> bool:
        """Whether the set also has the columns of a first guess (GUESS)."""
        return bool(self.backbone.get("guess_size"))

    @property
    def row_schema(self) -> pa.Schema:
        """The Arrow schema of the set's parts."""
        return schema(self.backbone["feature_size"], self.feature_dtype, with_guess=self.has_guess)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest in one step. It comes last: a folder without one is not a feature set."""
    write_json(folder / MANIFEST, vars(manifest), sort_keys=True)


def is_feature_set(folder: Path) -> bool:
    """Whether there is a finished feature set in ``folder``. NotNowError where that cannot be known now."""
    try:
        return file_exists(folder / MANIFEST)
    except OSError as error:
        raise _not_now(folder / MANIFEST, error) from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the feature set in ``folder``.

    InputError where there is none, or of a schema version that this code does not know. NotNowError where it cannot
    be read now.
    """
    path = folder / MANIFEST
    try:
        content = read_whole(path)
    except OSError as error:
        if is_passing(error):
            raise _not_now(path, error) from error
        if not folder.is_dir():
            raise InputError(
                f"{folder}: there is no such feature folder; make it with pipelines/extract_features.py"
            ) from None
        raise InputError(
            f"{folder}: no {MANIFEST} in it, so no finished feature set; run pipelines/extract_features.py again"
        ) from None
    try:
        values = json.loads(content)
        version = values["schema_version"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{path}: not a manifest of this project; extract the features again") from None
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise InputError(
            f"{path}: schema version {version}, this code reads {known}; update this code, or extract the features "
            "again"
        )
    try:
        manifest = Manifest(**values)
    except TypeError as error:
        raise InputError(f"{path}: not a manifest of this project ({error}); extract the features again") from None
    if manifest.feature_dtype not in DTYPES:
        raise InputError(f"{path}: features of type {manifest.feature_dtype}, this code reads {', '.join(DTYPES)}")
    return manifest


class Part(NamedTuple):
    """A file of a feature set."""

    path: Path
    bytes: int
    stamp: int | str  # changes when the file is written again, see glot.location.Entry


def list_parts(folder: Path) -> dict[str, Entry]:
    """The files part-*.parquet in ``folder``. NotNowError where the folder cannot be read now."""
    try:
        return list_folder(folder, "part-*.parquet")
    except OSError as error:
        raise _not_now(folder, error) from error


def parts(folder: Path, manifest: Manifest, listed: Mapping[str, Entry] | None = None) -> list[Part]:
    """The parts that the manifest lists; InputError where one is missing or has another size.

    Other files in the folder are ignored. ``listed`` is ``list_parts(folder)`` where it is known already. An object
    store is asked once for each 1,000 files in the folder.
    """
    listed = list_parts(folder) if listed is None else listed
    found = []
    for part in manifest.parts:
        entry = listed.get(part["name"])
        if entry is None or entry.bytes != part["bytes"]:
            raise InputError(
                f"{folder / part['name']}: missing or not of the size in the manifest; extract the features again"
            )
        found.append(Part(folder / part["name"], *entry))
    return found


@contextmanager
def open_part(part: Part, expected: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A part of a feature set, which the caller only reads.

    InputError where it is not readable as Parquet or its columns are not those of ``expected``. NotNowError where the
    disk or the store does not answer.
    """
    path = part.path
    try:
        with open_parquet(path, size=part.bytes) as file:
            if not file.schema_arrow.remove_metadata().equals(expected):
                raise InputError(f"{path}: its columns are not those of the manifest's schema version; extract again")
            yield file
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not readable as Parquet ({error}); extract the features again") from None
    except OSError as error:
        # Arrow reports damage inside a file as an OSError, too, but without a number.
        if error.errno is None or not is_passing(error):
            raise InputError(f"{path}: not readable as Parquet ({error}); extract the features again") from None
        raise _not_now(path, error) from error


def read_table(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a feature set, part after part, in RAM, with their schema checked.

    A track that goes on in another part is not together in the table. For training use glot.features.store.
    """
    manifest = read_manifest(folder)
    tables = []
    for part in parts(folder, manifest):
        with open_part(part, manifest.row_schema) as file:
            tables.append(file.read(columns=columns))
    if tables:
        return pa.concat_tables(tables)
    return pa.schema([manifest.row_schema.field(name) for name in columns or manifest.row_schema.names]).empty_table()


def _not_now(path: Path, error: OSError) -> NotNowError:
    return NotNowError(f"{path}: cannot be read now ({error}); try again later")


def column(values: ArrayLike, kind: pa.DataType) -> pa.Array:
    """values (N, a, b, ...) as an Arrow column of type ``kind``: N nested fixed-size lists of the type's scalars.

    A ``kind`` that is no fixed-size list, such as a plain number or a string, takes values (N,). InputError for numbers
    that are too large for float16.
    """
    scalar = kind
    while pa.types.is_fixed_size_list(scalar):
        scalar = scalar.value_type
    if scalar == kind:
        return pa.array(values, type=kind)
    array = np.asarray(values)
    with np.errstate(over="ignore"):
        flat = np.ravel(array).astype(scalar.to_pandas_dtype(), copy=False)
    if pa.types.is_float16(scalar) and (lost := np.isinf(flat) & np.isfinite(np.ravel(array))).any():
        raise InputError(f"{np.abs(np.ravel(array)[lost]).max():g} does not fit into float16; use float32")
    out = pa.array(flat, type=scalar)
    for size in reversed(array.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out
