"""Writes a tiny Human3.6M in the parsed JSON release's genuine layout, with fits that agree with the motion capture."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from glot.body import Body, load_body
from glot.joints import SPIN49

SIZE = 96  # px of a picture
ACTIONS = {2: "Directions", 3: "Discussion", 4: "Eating"}
# The release's order, by its own names, and what SPIN's 49 call them.
RELEASE = {
    "Pelvis": "hip", "R_Hip": "rhip", "R_Knee": "rknee", "R_Ankle": "rankle", "L_Hip": "lhip", "L_Knee": "lknee",
    "L_Ankle": "lankle", "Torso": "Spine (H36M)", "Neck": "neck", "Nose": "Head (H36M)", "Head_top": "headtop",
    "L_Shoulder": "lshoulder", "L_Elbow": "lelbow", "L_Wrist": "lwrist", "R_Shoulder": "rshoulder",
    "R_Elbow": "relbow", "R_Wrist": "rwrist",
}  # fmt: skip


def camera(number: int) -> dict[str, Any]:
    """A camera 5 m away that looks at the middle of the room; X_camera = R X + t, mm, and t = -R C."""
    angle = np.radians(25 + 90 * number)
    centre = np.array([5000 * np.cos(angle), 5000 * np.sin(angle), 1600.0])
    forward = np.array([0, 0, 1000.0]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return {
        "R": rotation.tolist(), "t": (-rotation @ centre).tolist(), "f": [110.0, 112.0], "c": [48.5, 47.0],
        "centre": centre.tolist(),
    }  # fmt: skip


def motion(frames: int, *, seed: int, body: Body) -> tuple[np.ndarray, dict[str, dict[str, list]]]:
    """Motion capture (N, 17, 3) mm, world frame (z up), and NeuralAnnot's entries of somebody who turns and walks."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)[:, None, None]
    pose = rng.normal(0, 0.15, (24, 3)) + time * rng.normal(0, 0.3, (24, 3))
    turns = Rotation.from_euler("zx", [[40 * seed + 3 * i, 90] for i in range(frames)], degrees=True)
    pose[:, 0] = turns.as_rotvec()
    betas = np.repeat(rng.normal(0, 0.3, (1, 10)), frames, 0)
    trans = np.column_stack([np.linspace(-0.2, 0.3, frames), np.full(frames, 0.1), np.full(frames, 0.95)])
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    with torch.no_grad():
        joints = body.joints(torch.from_numpy(rotmats).float(), torch.from_numpy(betas).float()).numpy()
    world = (joints[:, [SPIN49.index(name) for name in RELEASE.values()]] + trans[:, None]) * 1000
    fits = {
        str(i): {"pose": pose[i].ravel().tolist(), "shape": betas[i].tolist(), "trans": trans[i].tolist()}
        for i in range(frames)
    }
    return world.astype(np.float64), fits


def write_subject(
    root: Path, subject: int, folders: Sequence[tuple[int, int, int]] = ((2, 1, 1), (2, 1, 4)), *,
    frames: int = 44, without_fit: Sequence[int] = (7, 8, 11),
) -> None:  # fmt: skip
    """Adds a subject with these (action, subaction, camera) folders; some frames have no fit."""
    body = load_body()
    joint_3d: dict[str, Any] = {}
    smpl: dict[str, Any] = {}
    data: dict[str, list] = {"images": [], "annotations": []}
    for action, subaction, number in folders:
        name = f"s_{subject:02d}_act_{action:02d}_subact_{subaction:02d}_ca_{number:02d}"
        (root / "images" / name).mkdir(parents=True)
        world, fits = motion(frames, seed=subject + 10 * action + subaction, body=body)
        joint_3d.setdefault(str(action), {})[str(subaction)] = {str(i): world[i].tolist() for i in range(frames)}
        smpl.setdefault(str(action), {})[str(subaction)] = {
            frame: fit for frame, fit in fits.items() if int(frame) not in without_fit
        }
        rng = np.random.default_rng(number)
        for frame in range(frames):
            picture = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (SIZE, SIZE))
            file = f"{name}/{name}_{frame + 1:06d}.jpg"
            cv2.imwrite(str(root / "images" / file), picture)
            identity = len(data["images"])
            data["images"].append(
                {"id": identity, "file_name": file, "width": SIZE, "height": SIZE, "subject": subject,
                 "action_name": ACTIONS[action], "action_idx": action, "subaction_idx": subaction, "cam_idx": number,
                 "frame_idx": frame}
            )  # fmt: skip
            data["annotations"].append(
                {"id": identity, "image_id": identity, "keypoints_vis": [True] * 17, "bbox": [20.0, 10.0, 50.0, 70.0]}
            )
    cameras = {str(i): {key: value for key, value in camera(i).items() if key != "centre"} for i in range(1, 5)}
    for kind, content in (
        ("data", data), ("camera", cameras), ("joint_3d", joint_3d), ("SMPL_NeuralAnnot", smpl),
    ):  # fmt: skip
        annotations(root, subject, kind).parent.mkdir(parents=True, exist_ok=True)
        annotations(root, subject, kind).write_text(json.dumps(content))


def annotations(root: Path, subject: int, kind: str) -> Path:
    return root / "annotations" / f"Human36M_subject{subject}_{kind}.json"


def edit(root: Path, kind: str, change: Callable[[Any], Any], *, subject: int = 1) -> None:
    """Rewrites one of a subject's files; ``change`` alters its content in place, or returns another."""
    path = annotations(root, subject, kind)
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps(content))


def write_dataset(root: Path) -> None:
    """Train, test and test_front with two sequences each, of 22 rows; in training some fits are missing."""
    write_subject(root, 1)
    write_subject(root, 9, [(2, 1, 1), (2, 1, 4)], without_fit=())
    write_subject(root, 11, [(2, 1, 4)], without_fit=())
