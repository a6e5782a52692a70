"""Writes tiny files of ready-made features as TCMR, VIBE and GLoT have them: joblib dumps of a dict of arrays."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from glot.joints import SPIN49

# What stands for the joints that Human3.6M and MPI-INF-3DHP do not have: minus the pelvis they were all moved by.
MINUS_PELVIS = np.array([0.177, 0.321, -5.204])
KNOWN = [25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 41, 43]


def database(
    dataset: str, split: str = "train", *, tracks: tuple[int, ...] = (24, 20), seed: int = 0
) -> dict[str, Any]:
    """What a file of that dataset holds, in its types: {name: (N, ...)}."""
    rng = np.random.default_rng(seed)
    rows = sum(tracks)
    numbers = np.concatenate([np.arange(n) for n in tracks])
    which = np.repeat(np.arange(len(tracks)), tracks)

    def text(pattern: str, first: int = 0, step: int = 1) -> NDArray[np.str_]:
        return np.array([pattern.format(track=t, frame=first + step * i) for t, i in zip(which, numbers, strict=True)])

    def joints2d(count: int, dtype: type) -> NDArray[Any]:
        points = rng.uniform(0, 200, (rows, count, 3))
        points[..., 2] = rng.random((rows, count)) < 0.8
        points[points[..., 2] == 0] = 0
        return points.astype(dtype)

    def mocap(dtype: type) -> NDArray[Any]:
        joints = np.tile(MINUS_PELVIS, (rows, 49, 1))
        joints[:, KNOWN] = rng.normal(0, 0.4, (rows, len(KNOWN), 3))
        joints[:, SPIN49.index("hip")] = 0
        return joints.astype(dtype)

    box = np.column_stack([rng.uniform(50, 150, (rows, 2)), np.repeat(rng.uniform(80, 120, (rows, 1)), 2, 1)])
    common: dict[str, Any] = {"bbox": box, "features": rng.normal(0, 1, (rows, 2048)).astype(np.float32)}
    smpl = {
        "pose": rng.normal(0, 0.3, (rows, 72)).astype(np.float32),
        "shape": rng.normal(0, 0.5, (rows, 10)).astype(np.float32),
    }
    if dataset == "3dpw":
        count = 49 if split == "train" else 14
        return {
            "vid_name": text("walk_0{track}_0"),
            "frame_id": numbers.astype(np.int64),
            "img_name": text("data/3dpw/imageFiles/walk_0{track}/image_{frame:05d}.jpg"),
            "joints2D": joints2d(14, np.float64),
            # The translation of the world is in them: metres away from the origin.
            "joints3D": (rng.normal(0, 0.4, (rows, count, 3)) + [0.3, 1.0, 4.0]).astype(np.float32),
            "valid": (rng.random(rows) < 0.9).astype(np.int64),
            **smpl,
            **common,
        }
    if dataset == "human36m":
        folder = "data/h36m/images/s_01_act_02_subact_0{track}_ca_01"
        return {
            "vid_name": text(folder + "_S1"),
            "frame_id": 2 * numbers,
            "img_name": text(folder + "/x_{frame:06d}.jpg", 1, 2),
            "joints2D": joints2d(49, np.float32),
            "joints3D": mocap(np.float32),
            **smpl,
            **common,
        }
    if dataset == "mpi_inf_3dhp" and split == "train":
        return {
            "vid_name": text("subj1_seq2_vid0_seg{track}"),
            "frame_id": text("{frame:06d}", 1),
            "img_name": text("data/mpii_3d/S1/Seq2/video_0/{frame:06d}.jpg", 1),
            "joints2D": joints2d(49, np.float64),
            "joints3D": mocap(np.float64),
            **common,
        }
    if dataset == "mpi_inf_3dhp":
        return {
            "vid_name": text("subj{track}_seg0"),
            "frame_id": text("img_{frame:06d}", 1),
            "img_name": text("data/mpii_3d/mpi_inf_3dhp_test_set/TS{track}/imageSequence/img_{frame:06d}.jpg", 1),
            "joints2D": joints2d(49, np.float64),
            "joints3D": mocap(np.float64),
            "valid_i": (rng.random((rows, 1)) < 0.8).astype(np.uint8),
            **common,
        }
    if dataset == "penn_action":
        return {
            "vid_name": text("data/penn_action/labels/000{track}.mat"),
            "img_name": text("data/penn_action/frames/000{track}/{frame:06d}.jpg", 1),
            "joints2D": joints2d(14, np.float64),
            **common,
        }
    assert dataset == "posetrack", dataset
    return {
        "vid_name": text("data/posetrack/posetrack_data/annotations/train/00000{track}_bonn_train.json_0"),
        "img_name": text("data/posetrack/images/train/00000{track}_bonn_train/{frame:06d}.jpg", 30),
        "joints2D": joints2d(49, np.float64),
        **common,
    }


def write_db(path: Path, dataset: str, split: str = "train", **options: Any) -> dict[str, Any]:
    """A file of ``database``'s content; returns it."""
    content = database(dataset, split, **options)
    joblib.dump(content, path)
    return content
