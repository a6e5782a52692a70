"""Sets of real motions, which a motion discriminator and a motion VAE learn from: the file, and its local copy.

FEATURES/NAME/motion/motions.parquet has a row for each frame; the rows of a motion are together and in order. Its
metadata says what is in it and what was left out. N frames of all motions.
"""

import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glot.errors import InputError, NotNowError, is_passing
from glot.features.copy_cache import (
    HeldCopy,
    begun,
    building_of,
    count_as_used,
    hold,
    index_of,
    put_in_place,
    room_for,
    write_index,
)
from glot.file_lock import turn
from glot.home import features_folder
from glot.location import cache_folder, open_parquet

FILE, FOLDER = "motions.parquet", "motion"
OPEN_MOTIONS = "open_motions"  # the set of the motions that come with the project
VERSION = 1  # of the file
LAYOUT = 1  # version of the local copy; part of its folder's name
KIND = hashlib.sha256(b"motions").hexdigest()[:8]  # in that name, where a feature set has the stamps of its parts
METADATA = b"glot_motions"
SCHEMA = pa.schema(
    [
        ("motion_id", pa.string()),
        ("frame_index", pa.int32()),
        ("fps", pa.float32()),
        ("pose", pa.list_(pa.list_(pa.float32(), 3), 24)),  # axis-angle, rad; y up, the first joint is the root
    ]
)


@dataclass(frozen=True)
class MotionFacts:
    """What the metadata of the file says. ``key``: a hash of all motions; ``skipped``: what, and why."""

    key: str
    motions: int
    frames: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    version: int = VERSION

    def to_json(self) -> bytes:
        """The facts as the file's metadata."""
        return json.dumps(asdict(self)).encode()


class Motion(NamedTuple):
    """A motion: its name, and its rows [start, stop) of a set."""

    motion_id: str
    start: int
    stop: int


def motion_file(features: Path, name: str) -> Path:
    """The file of the motion set ``name`` in a folder of feature sets."""
    return features / name / FOLDER / FILE


def make_command(features: Path, name: str) -> str:
    """The command that makes a motion set."""
    made, folder = "python pipelines/make_motion_set.py", features / name / FOLDER
    if name != OPEN_MOTIONS:
        return f"{made} --motions /path/to/{name} --out {folder}"
    return made if features == features_folder() else f"{made} --out {folder}"


def read_facts(file: Path) -> MotionFacts:
    """What a motion set says of itself. InputError where it is missing, damaged, or of a newer version."""
    try:
        with open_parquet(file) as opened:
            schema, metadata = opened.schema_arrow, opened.metadata.metadata or {}
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such motion set") from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise NotNowError(f"{file}: cannot be read now ({error})") from error
        raise InputError(f"{file}: no readable Parquet file ({str(error).splitlines()[0]})") from None
    try:
        facts = MotionFacts(**json.loads(metadata[METADATA]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{file}: holds no motions of this project; make it again") from None
    if facts.version != VERSION or not schema.remove_metadata().equals(SCHEMA):
        raise InputError(f"{file}: motions of version {facts.version}, this program reads version {VERSION}")
    return facts


class MotionSet:
    """The motions of a set, as a read-only memory map of N rows.

    ``open`` builds a local copy, which is kept beside those of feature sets. It is not removed while the set lives.
    """

    pose: NDArray[np.float32]  # (N, 24, 3) axis-angle, rad

    def __init__(self, file: Path, facts: MotionFacts, copy: HeldCopy) -> None:
        self.file, self.facts, self._held = file, facts, copy
        self.pose = np.load(copy.folder / "pose.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
        self.motions = [Motion(*motion) for motion in index_of(copy.folder)["motions"]]

    @classmethod
    def open(cls, file: Path, *, cache: Path | None = None) -> "MotionSet":
        """The set in ``file``. InputError where it is missing or damaged, NotNowError where a disk or a store fails."""
        facts, cache = read_facts(file), Path(cache or cache_folder()).expanduser()
        target = cache / f"{facts.key}-{KIND}-{LAYOUT}"
        try:
            if (held := hold(target)) is None:
                cache.mkdir(parents=True, exist_ok=True)
                with turn(cache / f".{target.name}.lock"):
                    held = hold(target) or _built(file, facts, target)
            count_as_used(held.folder)
        except OSError as error:
            kind = NotNowError if is_passing(error) else InputError
            raise kind(f"{cache}: the local copy of {file} cannot be kept there ({error}); set GLOT_CACHE") from error
        return cls(file, facts, held)

    def windows(self, frames: int) -> NDArray[np.int64]:
        """First rows of the windows of ``frames`` rows of one motion, side by side; what is left over is not used."""
        starts = [np.arange(start, stop - frames + 1, frames) for _, start, stop in self.motions]
        return np.concatenate([np.empty(0, np.int64), *starts])

    def read(self, starts: NDArray[np.integer], frames: int) -> NDArray[np.float32]:
        """(B, frames, 24, 3): the poses of the windows that begin at ``starts`` (B,)."""
        out = np.empty((len(starts), frames, 24, 3), np.float32)
        for window, start in zip(out, starts.tolist(), strict=True):
            window[...] = self.pose[start : start + frames]
        return out


def _built(file: Path, facts: MotionFacts, target: Path) -> HeldCopy:
    """Copies the poses into a folder of another name, then gives it the name ``target``."""
    building = building_of(target)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, building, ignore_errors=True)
        with room_for(facts.frames * 288 + 128, building, what=f"the local copy of {file}"):
            held = begun(building)
            poses = np.lib.format.open_memmap(
                building / "pose.npy", mode="w+", dtype=np.float32, shape=(facts.frames, 24, 3)
            )
        motions = _copied(file, facts, poses)
        poses.flush()
        del poses
        index: dict[str, Any] = {
            "motions": motions,
            "bytes": {"pose.npy": (building / "pose.npy").stat().st_size},
            "set": f"{file.parent.parent.name}/{FOLDER}",
        }
        write_index(building, index)
        return put_in_place(held, target)


def _copied(file: Path, facts: MotionFacts, poses: NDArray[np.float32]) -> list[Motion]:
    """Fills ``poses`` with the rows of the file, a row group at a time; returns the motions."""
    motions: list[Motion] = []
    row = 0
    with open_parquet(file) as opened:
        for number in range(opened.num_row_groups):
            table = opened.read_row_group(number, columns=["motion_id", "pose"])
            values = table["pose"].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
            if row + len(table) > facts.frames or len(values) != 72 * len(table) or not np.isfinite(values).all():
                raise InputError(f"{file}: its rows are not what its metadata says; make it again")
            poses[row : row + len(table)] = values.reshape(-1, 24, 3)
            for name in table["motion_id"].to_pylist():
                if not motions or motions[-1].motion_id != name:
                    motions.append(Motion(name, row, row))
                row += 1
                motions[-1] = motions[-1]._replace(stop=row)
    if row != facts.frames or len(motions) != facts.motions:
        raise InputError(
            f"{file}: {row} frames of {len(motions)} motions are not what its metadata says; make it again"
        )
    return motions
