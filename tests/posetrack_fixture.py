"""Writes a tiny PoseTrack 2018: one JSON a video with images, annotations and categories, and its JPEGs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120
NAMES = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# px from the middle of the hips; x right, y down. Ears are never labelled.
OFFSETS = {
    "nose": (0, -34), "head_bottom": (0, -28), "head_top": (0, -42), "left_shoulder": (9, -26),
    "right_shoulder": (-9, -26), "left_elbow": (13, -14), "right_elbow": (-13, -14), "left_wrist": (14, -2),
    "right_wrist": (-14, -2), "left_hip": (5, 0), "right_hip": (-5, 0), "left_knee": (6, 20), "right_knee": (-6, 20),
    "left_ankle": (6, 40), "right_ankle": (-6, 40),
}  # fmt: skip


def keypoints(track: int, frame: int, *, names: Sequence[str] = NAMES) -> list[float]:
    """51 numbers; the left wrist is there but marked as hidden."""
    x, y = 50.0 + 50 * track + frame, 60.0 + 0.5 * frame
    values: list[float] = []
    for name in names:
        if name in OFFSETS:
            values += [x + OFFSETS[name][0], y + OFFSETS[name][1], 0 if name == "left_wrist" else 1]
        else:
            values += [0, 0, 0]
    return values


def video(
    name: str,
    *,
    folder: str = "train",
    frames: int = 30,
    labelled: Sequence[int] | None = None,
    tracks: Sequence[int] = (0, 1),
    names: Sequence[str] = NAMES,
) -> dict[str, Any]:
    """The content of a video's file. Ids are TSSSSSSFFFF: source, sequence, frame."""
    labelled = range(4, frames - 2) if labelled is None else labelled
    first = 10_000_000_000 + int(name[:6]) * 10_000
    images = [
        {
            "has_no_densepose": True,
            "is_labeled": frame in labelled,
            "file_name": f"images/{folder}/{name}/{frame:06d}.jpg",
            "nframes": frames,
            "frame_id": first + frame,
            "vid_id": name[:6],
            "id": first + frame,
        }
        for frame in range(frames)
    ]
    annotations = [
        {
            "bbox_head": [45 + 50 * track + frame, 18, 10, 16],
            "keypoints": keypoints(track, frame, names=names),
            "track_id": track,
            "image_id": first + frame,
            "bbox": [30.0 + 50 * track + frame, 10.0, 40.0, 100.0],
            "scores": [],
            "category_id": 1,
            "id": (first + frame) * 100 + track,
        }
        for frame in labelled
        for track in tracks
    ]
    skeleton = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13]]
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": [*names], "skeleton": skeleton}
    return {"images": images, "annotations": annotations, "categories": [category]}


def write_video(
    root: Path, name: str = "000001_bonn_train", *, folder: str = "train", data: Any = None, **options: Any
) -> Path:
    """Adds a video to a dataset below ``root``; returns its file."""
    data = video(name, folder=folder, **options) if data is None else data
    file = root / "posetrack_data" / "annotations" / folder / f"{name}.json"
    images = root / "images" / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True)
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    for frame in range(options.get("frames", 30)):
        coarse = np.random.default_rng(frame).integers(0, 255, (10, 12, 3), np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(images / f"{frame:06d}.jpg"), picture)
    return file


def write_dataset(root: Path) -> None:
    """Two videos in each split with two tracks of 24 labelled frames each."""
    for folder, names in (
        ("train", ("000001_bonn_train", "000002_mpii_train")),
        ("val", ("000003_bonn_val", "000004_mpii_val")),
    ):
        for name in names:
            write_video(root, name, folder=folder)
