"""Writes a tiny Penn Action in its genuine layout: MATLAB v5 label files with all their variables, and JPEGs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import savemat

WIDTH, HEIGHT = 80, 64
# Where the 13 joints are in a standing person of unit height that faces us (so the right side is on the left).
SHAPE = np.array(
    [
        [0, -0.5], [0.12, -0.3], [-0.12, -0.3], [0.17, -0.15], [-0.17, -0.15], [0.2, 0], [-0.2, 0], [0.08, 0],
        [-0.08, 0], [0.08, 0.25], [-0.08, 0.25], [0.08, 0.5], [-0.08, 0.5],
    ]
)  # fmt: skip


def labels(frames: int = 12, *, train: int = 1, seed: int = 0) -> dict[str, Any]:
    """The content of a label file: somebody who drifts; the last two joints are hidden in frame 4 and are far off."""
    rng = np.random.default_rng(seed)
    points = np.array([40.0, 32.0]) + 40 * SHAPE + rng.normal(0, 0.5, (frames, 13, 2))
    points[..., 0] += np.linspace(0, 8, frames)[:, None]
    visibility = np.ones((frames, 13), np.uint8)
    if frames > 4:
        visibility[4, 11:] = 0
        points[4, 11:] = [200.0, 300.0]
    low, high = points.min(1), points.max(1)
    return {
        "action": "baseball_pitch",
        "pose": "back",
        "x": points[..., 0],
        "y": points[..., 1],
        "visibility": visibility,
        "train": np.array([[train]], np.int16),
        "bbox": np.column_stack([low, high]),
        "dimensions": np.array([[HEIGHT, WIDTH, frames]], np.uint16),
        "nframes": np.array([[frames]], np.uint8 if frames < 256 else np.uint16),  # the smallest type, as MATLAB saves
    }


def write_labels(root: Path, name: str, content: dict[str, Any]) -> Path:
    path = root / "labels" / f"{name}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content, do_compression=True)
    return path


def write_video(root: Path, name: str, *, frames: int = 12, train: int = 1, seed: int = 0) -> Path:
    """Adds one video to a dataset below ``root``; returns its label file."""
    images = root / "frames" / name
    images.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for frame in range(frames):
        picture = cv2.resize(rng.integers(0, 255, (8, 10, 3), np.uint8), (WIDTH, HEIGHT))
        cv2.imwrite(str(images / f"{frame + 1:06d}.jpg"), picture)
    return write_labels(root, name, labels(frames, train=train, seed=seed))


def write_dataset(root: Path) -> None:
    """Two videos each of train and test, of 22 frames; the test's flag is written in both ways that there are."""
    for name, train in (("0001", 1), ("0002", -1), ("0003", 1), ("0004", 0)):
        write_video(root, name, frames=22, train=train, seed=int(name))
