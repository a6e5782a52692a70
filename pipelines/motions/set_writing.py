"""Motion capture files in, a set of real motions out: one Parquet file (glot.features.motion_sets)."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glot.errors import InputError
from glot.features.motion_sets import FILE, METADATA, SCHEMA, MotionFacts
from glot.features.schema import column
from glot.location import for_arrow, is_remote, move_in, temporary_of
from pipelines.motions.mocap import each_motion
from pipelines.motions.motion_clip import MotionClip
from pipelines.motions.set_spec import MakeMotionSetSpec

ROWS = 1 << 15  # of a row group


def make_motion_set(spec: MakeMotionSetSpec) -> MotionFacts:
    """Writes the motions of ``spec`` to its folder; the same motions give the same file.

    Motions that are too short and files that cannot be read are left out and named in the file. InputError where
    nothing is left, or the file cannot be written.
    """
    target = spec.folder / FILE
    # A file for an object store is written on this machine first.
    place = Path(tempfile.gettempdir()) / FILE if is_remote(target) else target
    unfinished = temporary_of(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        facts = _write(spec, unfinished)
        move_in(unfinished, target)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--out {spec.folder}: cannot be written ({error}); choose another place") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return facts


def _write(spec: MakeMotionSetSpec, file: Path) -> MotionFacts:
    skipped: list[dict[str, str]] = []
    digest, motions, frames = hashlib.sha256(), 0, 0
    with pq.ParquetWriter(for_arrow(file), SCHEMA, compression="zstd") as writer:
        for name, clip in _taken(spec, skipped):
            digest.update(f"{name} {len(clip)}\n".encode() + clip.poses.tobytes())
            motions, frames = motions + 1, frames + len(clip)
            for start in range(0, len(clip), ROWS):
                writer.write_table(_table(name, clip, start))
        if not motions:
            first = f"; the first: {skipped[0]['what']}, {skipped[0]['reason']}" if skipped else ""
            raise InputError(f"--motions {spec.motions}: no motion of {spec.shortest} frames or more in it{first}")
        facts = MotionFacts(digest.hexdigest()[:16], motions, frames, skipped)
        writer.add_key_value_metadata({METADATA.decode(): facts.to_json().decode()})
    return facts


def _taken(spec: MakeMotionSetSpec, skipped: list[dict[str, str]]) -> Iterator[tuple[str, MotionClip]]:
    """The motions that are taken; ``skipped`` gets the others."""
    for name, found in each_motion(spec.motions, hands=True):
        if isinstance(found, InputError):
            skipped.append({"what": name, "reason": str(found)})
        elif len(found) < spec.shortest:
            skipped.append({"what": name, "reason": f"{len(found)} frames are too short"})
        else:
            yield name, found


def _table(name: str, clip: MotionClip, start: int) -> pa.Table:
    poses = np.ascontiguousarray(clip.poses[start : start + ROWS], np.float32)
    values: dict[str, Any] = {
        "motion_id": [name] * len(poses),
        "frame_index": np.arange(start, start + len(poses), dtype=np.int32),
        "fps": np.full(len(poses), clip.fps, np.float32),
        "pose": poses,
    }
    return pa.table([column(values[item.name], item.type) for item in SCHEMA], schema=SCHEMA)
