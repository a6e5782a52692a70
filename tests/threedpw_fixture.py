"""Writes a tiny dataset in 3DPW's genuine layout: Python-2 pickles, JPEGs, two people, gaps, a moving camera."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pipelines.legacy_pickle import dump

WIDTH, HEIGHT = 96, 80
# Offsets of OpenPose's 18 joints from the middle of the hips, in tenths of the body's height (x right, y down).
SHAPE = np.array(
    [
        [0, -4.2], [0, -3.2], [-1, -3.1], [-1.4, -1.8], [-1.5, -0.5], [1, -3.1], [1.4, -1.8], [1.5, -0.5],
        [-0.6, 0], [-0.6, 2.2], [-0.6, 4.2], [0.6, 0], [0.6, 2.2], [0.6, 4.2], [-0.2, -4.4], [0.2, -4.4], [-0.4, -4.3],
        [0.4, -4.3],
    ]
)  # fmt: skip


def sequence(name: str, *, frames: int = 12, people: int = 2, seed: int = 0) -> dict[str, Any]:
    """The content of a sequence's pickle; person 0 is not there in frame 3 and hardly there in frame 5."""
    rng = np.random.default_rng(seed)
    poses2d, poses = [], []
    for person in range(people):
        points = np.array([30.0 + 30 * person, 40.0]) + 4.5 * SHAPE + rng.normal(0, 0.5, (frames, 18, 2))
        confidence = np.full((frames, 18, 1), 0.8)
        if person == 0 and frames > 5:
            confidence[3] = points[3] = 0
            confidence[5, :8] = 0.1
        poses2d.append(np.concatenate([points, confidence], -1).transpose(0, 2, 1).copy())  # (N, 3, 18)
        poses.append(rng.normal(0, 0.3, (frames, 72)))
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.from_euler("xy", [[180, 2 * i] for i in range(frames)], degrees=True).as_matrix()
    cameras[:, :3, 3] = [0, 1, 5]
    valid = np.ones((people, frames), np.uint8)
    valid[0, -2:] = 0
    return {
        "sequence": name,
        "betas": [rng.normal(0, 0.5, 10) for _ in range(people)],
        "poses": poses,
        "trans": [rng.normal(0, 1, (frames, 3)) for _ in range(people)],
        "genders": ["m", "f"][:people],
        "poses2d": poses2d,
        "img_frame_ids": np.arange(frames) * 2,
        "cam_poses": cameras,
        "campose_valid": [valid[person] for person in range(people)],
        "cam_intrinsics": np.array([[100.0, 0, 48], [0, 100.0, 40], [0, 0, 1]]),
    }


def write_sequence(
    root: Path, name: str, *, split: str = "test", frames: int = 12, people: int = 2, seed: int = 0
) -> Path:
    """Adds one sequence to a dataset below ``root``; returns its pickle."""
    pickle = root / "sequenceFiles" / split / f"{name}.pkl"
    images = root / "imageFiles" / name
    pickle.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True)
    dump(sequence(name, frames=frames, people=people, seed=seed), pickle)
    rng = np.random.default_rng(seed)
    for frame in range(frames):
        coarse = rng.integers(0, 255, (10, 12, 3), np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(images / f"image_{frame:05d}.jpg"), picture)
    return pickle
