"""A Motion to files and back: .npz, .parquet (one row a frame); and to the .pkl of VIBE's, TCMR's and GLoT's demos.

Both formats hold the same names. frame, seen, score; pose (24, 3) axis-angle rad, betas (10): SMPL's; cam (s, tx, ty of
the crop), full_image_cam (sx, sy, tx, ty of the picture); transl (3), joints3d (24, 3): m, camera frame; keypoints2d
(24, 2) px; bbox (centre x, centre y, width, height) px, crop_scale; and once: person, fps, width, height, focal (px).
"""

import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from glot.body import Body
from glot.errors import InputError
from glot.location import open_parquet, write_whole
from glot.motion import Motion, vertices
from glot.rotation import axis_angle_to_rotmat, rotmat_to_axis_angle
from glot.schema import column

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
ONCE = {"person": str, "fps": float, "width": int, "height": int, "focal": float}
BLOCK = 256  # frames posed at a time
ROW_GROUP = 512  # frames converted and written at a time


def write_npz(path: Path, motion: Motion) -> None:
    """Plain arrays: numpy reads them with allow_pickle=False."""
    values: dict[str, Any] = _arrays(motion) | {name: np.array(getattr(motion, name)) for name in ONCE}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)
    write_whole(path, buffer.getvalue())


def write_parquet(path: Path, motion: Motion) -> None:
    """One row a frame; what is said once stands in the schema's metadata, as text."""
    schema = COLUMNS.with_metadata({name: str(getattr(motion, name)) for name in ONCE})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema) as writer:
        for start in range(0, len(motion), ROW_GROUP):
            arrays = _arrays(motion.rows(slice(start, start + ROW_GROUP)))
            writer.write_table(pa.table([column(arrays[each.name], each.type) for each in schema], schema=schema))
    write_whole(path, buffer.getvalue())


def read_motion(path: Path) -> Motion:
    """What ``write_npz`` or ``write_parquet`` wrote. InputError where ``path`` is no such file."""
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path}: a motion is an .npz or a .parquet file")
    try:
        values = readers[path.suffix](path)
        return Motion(
            frames=values["frame"],
            seen=values["seen"],
            scores=values["score"],
            rotmats=_by_blocks(axis_angle_to_rotmat, values["pose"]),
            **{name: values[name] for name in ("betas", "cam", "transl", "joints3d", "keypoints2d")},
            **{name: values[name] for name in ("bbox", "crop_scale")},
            **{name: kind(values[name]) for name, kind in ONCE.items()},
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except KeyError as error:
        raise InputError(f"{path}: has no {error}, so it is no motion of this project") from None
    except Exception as error:  # numpy, zipfile and pyarrow raise a dozen kinds for a cut or foreign file
        raise InputError(f"{path}: is not a whole motion file ({error}); write it again") from None


def write_peers_pkl(path: Path, motions: Sequence[Motion], body: Body, *, with_vertices: bool = False) -> None:
    """One file of all people, with the keys of VIBE's, TCMR's and GLoT's demos, for scripts that joblib.load it.

    {person: {pred_cam (N, 3), orig_cam (N, 4), verts (N, V, 3) or None, pose (N, 72), betas (N, 10), joints3d
    (N, 49, 3) in SPIN's order, joints2d None, bboxes (N, 4), frame_ids (N,)}}. As there, verts and joints3d are about
    the body's own origin, and the width and height of bboxes are those of the crop. Vertices take 80 KB a frame, in
    memory too.
    """
    people: dict[int | str, dict[str, Any]] = {}
    for motion in motions:
        joints, meshes = _posed(motion, body, with_vertices=with_vertices)
        key = int(motion.person) if motion.person.isdecimal() else motion.person
        people[key] = {
            "pred_cam": motion.cam,
            "orig_cam": motion.full_image_cam,
            "verts": meshes,
            "pose": _axis_angle(motion).reshape(-1, 72),
            "betas": motion.betas,
            "joints3d": joints,
            "joints2d": None,  # theirs are a 2D pose tracker's detections, and None without one
            "bboxes": np.concatenate((motion.bbox[:, :2], motion.bbox[:, 2:] * motion.crop_scale[:, None]), axis=1),
            "frame_ids": motion.frames,
        }
    write_whole(path, pickle.dumps(people, protocol=4))


def _arrays(motion: Motion) -> dict[str, NDArray]:
    names = {"frame": "frames", "score": "scores"}
    out = {each: getattr(motion, names.get(each, each)) for each in COLUMNS.names if each != "pose"}
    return out | {"pose": _axis_angle(motion)}


def _axis_angle(motion: Motion) -> NDArray[np.float32]:
    """(N, 24, 3) rad."""
    return _by_blocks(rotmat_to_axis_angle, motion.rotmats)


def _by_blocks(turn: Callable[[torch.Tensor], torch.Tensor], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``turn`` in double precision; an hour's rotations at once would take gigabytes on the way."""
    blocks = [
        turn(torch.from_numpy(values[start : start + ROW_GROUP]).double()).float().numpy()
        for start in range(0, len(values), ROW_GROUP)
    ]
    return np.concatenate(blocks)


def _posed(
    motion: Motion, body: Body, *, with_vertices: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """SPIN's joints (N, 49, 3) and, if wanted, the vertices (N, V, 3): m, about the body's own origin."""
    joints, meshes = [], []
    for start in range(0, len(motion), BLOCK):
        rows = slice(start, start + BLOCK)
        with torch.no_grad():
            rotmats, betas = torch.from_numpy(motion.rotmats[rows]), torch.from_numpy(motion.betas[rows])
            joints.append(body.joints(rotmats, betas).numpy())
        if with_vertices:
            meshes.append(vertices(motion, body, rows) - motion.transl[rows, None])
    return np.concatenate(joints), np.concatenate(meshes) if with_vertices else None


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_parquet(path: Path) -> dict[str, Any]:
    with open_parquet(path) as file:
        table = file.read()
    values: dict[str, Any] = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    for name in table.column_names:
        kind, cells = table.schema.field(name).type, table[name].combine_chunks()
        shape = [table.num_rows]
        while pa.types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
            kind, cells = kind.value_type, cells.flatten()
        values[name] = cells.to_numpy(zero_copy_only=False).reshape(shape).copy()  # writable
    return values
