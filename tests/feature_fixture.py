"""Writes a tiny feature set in the real format; its features are a noisy linear map of the pose: learnable."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.spatial.transform import Rotation

from glot.schema import Manifest, schema, write_manifest

CROP_SCALE = 1.2
IMAGE_SIZE = (640, 480)


def write_feature_set(
    folder: Path,
    *,
    tracks: list[int],
    feature_size: int = 32,
    seed: int = 0,
    backbone_hash: str = "fixture-backbone",
    body: Any = None,
    dataset: str = "3dpw",
    split: str = "train",
    gap: int = 0,
    invalid: float = 0.0,
    parts: int = 2,
) -> Manifest:
    """Writes ``len(tracks)`` tracks of so many rows each into ``folder`` and returns the manifest.

    Sets of any ``seed`` share the function from pose to features, so one can be trained and another tested on.
    ``body`` (glot.body.Body) gives joints3d and keypoints2d that fit the pose; without one they are smooth stand-ins.
    ``gap``: frames missing in the middle of every track; ``invalid``: fraction of rows whose ``valid`` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tables = [
        _track(f"clip{number:02d}_0", rows, feature_size, rng, body, dataset, split, gap, invalid)
        for number, rows in enumerate(tracks)
    ]
    entries = []
    parts = min(parts, len(tables))
    for number in range(parts):
        mine = tables[number * len(tables) // parts : (number + 1) * len(tables) // parts]
        path = folder / f"part-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema(feature_size), use_dictionary=False, compression="none") as writer:
            for table in mine:
                writer.write_table(table)  # a row group ends where its track ends
        rows = sum(table.num_rows for table in mine)
        entries.append({"name": path.name, "rows": rows, "tracks": len(mine), "bytes": path.stat().st_size})
    manifest = Manifest(
        dataset=dataset,
        split=split,
        rows=sum(tracks),
        tracks=len(tracks),
        backbone={"name": "fixture", "weights": "none", "hash": backbone_hash, "feature_size": feature_size},
        crop={"scale": CROP_SCALE, "size": 224},
        body={"name": "open", "hash": getattr(body, "file_hash", "none"), "open": getattr(body, "is_open", True)},
        parts=entries,
        code_version=f"fixture, seed {seed}",
    )
    write_manifest(folder, manifest)
    return manifest


def write_training_sets(root: Path, body: Any) -> Path:
    """A training and a validation set of "3dpw" below ``root``, as large as tests of training need them."""
    write_feature_set(root / "3dpw" / "train", tracks=[60] * 6, body=body, seed=1)
    write_feature_set(root / "3dpw" / "validation", tracks=[30, 20], body=body, seed=2, split="validation")
    return root


def smooth_poses(frame_index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Axis-angle poses (N, 24, 3), at these frames (N,) of 25 a second, of somebody upright who turns and waves."""
    time = frame_index[:, None, None] / 25
    speed, phase = rng.uniform(1, 3, (1, 24, 3)), rng.uniform(0, 2 * np.pi, (1, 24, 3))
    pose = rng.uniform(0.05, 0.3, (1, 24, 3)) * np.sin(speed * time + phase)
    turn = Rotation.from_euler("y", rng.uniform(-0.8, 0.8) + 0.5 * np.sin(time[:, 0] + phase[0, 0, 0]))
    upright = Rotation.from_euler("x", np.pi)  # the body's y is up, the camera's is down
    pose[:, 0] = (upright * turn).as_rotvec()
    return pose.astype(np.float32)


def features_of(
    pose: np.ndarray, feature_size: int, *, noise: float = 0.01, rng: np.random.Generator | None = None
) -> np.ndarray:
    """The fixture's backbone: a fixed linear map of the 24 rotation matrices, plus noise: (rows, feature_size)."""
    matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(len(pose), 216)
    weights = np.random.default_rng(99).normal(size=(216, feature_size)) / np.sqrt(24)
    out = matrices @ weights
    if rng is not None:
        out = out + noise * rng.normal(size=out.shape)
    return out.astype(np.float32)


def _track(
    name: str,
    rows: int,
    feature_size: int,
    rng: np.random.Generator,
    body: Any,
    dataset: str,
    split: str,
    gap: int,
    invalid: float,
) -> pa.Table:
    betas = np.repeat(rng.normal(0, 0.5, (1, 10)), rows, axis=0).astype(np.float32)
    frame_index = np.arange(rows) + np.where(np.arange(rows) >= rows // 2, gap, 0)
    pose = smooth_poses(frame_index, rng)
    joints3d = _joints(pose, betas, body)
    # A weak-perspective camera: 1 m is 150 px, and the person walks slowly to the right.
    centre = np.stack([260 + 40 * np.sin(frame_index / 40), np.full(rows, 240.0)], axis=1)
    keypoints = np.concatenate([joints3d[..., :2] * 150 + centre[:, None], np.ones((rows, 49, 1))], axis=-1)
    low, high = keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)
    side = np.repeat((high - low).max(axis=1)[:, None], 2, axis=1)
    bbox = np.concatenate([(low + high) / 2, side], axis=1)
    valid = rng.random(rows) >= invalid
    columns = {
        "dataset": [dataset] * rows,
        "split": [split] * rows,
        "track_id": [name] * rows,
        "frame_index": frame_index.astype(np.int32),
        "image": [f"imageFiles/{name[:-2]}/image_{frame:05d}.jpg" for frame in frame_index],
        "fps": np.full(rows, 30, np.float32),
        "bbox": bbox,
        "crop_scale": np.full(rows, CROP_SCALE, np.float32),
        "feature": features_of(pose, feature_size, rng=rng),
        "keypoints2d": keypoints,
        "joints3d": joints3d,
        "joints3d_valid": np.ones((rows, 49), bool),
        "pose": pose,
        "betas": betas,
        "has_3d": np.ones(rows, bool),
        "has_smpl": np.ones(rows, bool),
        "valid": valid,
        "gender": ["neutral"] * rows,
    }
    fields = schema(feature_size)
    return pa.table([_array(columns[field.name], field.type) for field in fields], schema=fields)


def _joints(pose: np.ndarray, betas: np.ndarray, body: Any) -> np.ndarray:
    matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(len(pose), 24, 3, 3)
    if body is not None:
        with torch.no_grad():
            joints = body.joints(torch.as_tensor(matrices, dtype=torch.float32), torch.as_tensor(betas))
        return joints.numpy()
    template = np.random.default_rng(98).normal(0, 0.4, (49, 3))
    return (np.einsum("nij,kj->nki", matrices[:, 0], template) + 0.05 * pose.mean(axis=1, keepdims=True)).astype(
        np.float32
    )


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values, type=kind)
    shape, leaf = [], kind
    while pa.types.is_fixed_size_list(leaf):
        shape.append(leaf.list_size)
        leaf = leaf.value_type
    array = pa.array(np.asarray(values).reshape(-1).astype(leaf.to_pandas_dtype()), type=leaf)
    for size in reversed(shape):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array
