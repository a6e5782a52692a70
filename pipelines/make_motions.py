"""One-off: DeepMimic clips inside the pybullet wheel (zlib licence) in, pipelines/assets/motions.npz out: SMPL joints.

A frame of a clip: seconds it lasts, root position, then rotations relative to the parent as w, x, y, z quaternions or,
for knees and elbows, one angle about z. Its character faces +x with its right side at +z; its arms hang down at rest.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.spatial.transform import Rotation, Slerp

from glot import cli
from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS
from pipelines.motions.mocap import FPS

FOLDER = "pybullet_data/data/motions/"
# Order of a frame after the duration and the root position; True marks one angle about z instead of a quaternion.
JOINTS = (
    ("root", False), ("chest", False), ("neck", False), ("right_hip", False), ("right_knee", True),
    ("right_ankle", False), ("right_shoulder", False), ("right_elbow", True), ("left_hip", False), ("left_knee", True),
    ("left_ankle", False), ("left_shoulder", False), ("left_elbow", True),
)  # fmt: skip
# DeepMimic's forward +x, up +y, right +z are SMPL's +z, +y, -x: a turn of -90 degrees about y.
TO_SMPL = Rotation.from_euler("y", -90, degrees=True)
# What takes a T-pose arm to the hanging arm that DeepMimic calls rest.
LOWER_ARM = {"left": Rotation.from_euler("z", -90, degrees=True), "right": Rotation.from_euler("z", 90, degrees=True)}


def convert(clip: dict) -> tuple[np.ndarray, np.ndarray]:
    """One parsed clip -> poses (N, 72), trans (N, 3) of the root at 30 fps; this root is the middle of the hips."""
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
    smpl = {"pelvis": local["root"], "neck": _part(local["neck"], 0.5), "head": _part(local["neck"], 0.5)}
    for spine in ("spine1", "spine2", "spine3"):  # one chest joint there, three here
        smpl[spine] = _part(local["chest"], 1 / 3)
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


def _part(turn: Rotation, share: float) -> Rotation:
    return Rotation.from_rotvec(turn.as_rotvec() * share)


def main(
    wheel: Annotated[Path, typer.Option(help="pybullet-*.whl as downloaded from PyPI; it is read, not installed")],
    out: Annotated[Path, typer.Option(help="the npz to write")] = Path("pipelines/assets/motions.npz"),
) -> None:
    """Converts the humanoid motion clips of a pybullet wheel to SMPL's joints: only to rebuild the shipped file.

    Example: `pip download --no-deps pybullet==3.2.7` then `python pipelines/make_motions.py --wheel pybullet-*.whl`
    """
    if not wheel.is_file():
        raise InputError(f"{wheel}: no such file; get it with `pip download --no-deps pybullet==3.2.7`")
    arrays = {}
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(FOLDER) and n.endswith(".txt") and "laikago" not in n]
        for name in sorted(names):
            clip = Path(name).stem.removeprefix("humanoid3d_").removeprefix("0")
            clip = f"walk_{clip}".replace("walk_walk", "walk") if "/walker/" in name else clip
            poses, trans = convert(json.loads(archive.read(name)))
            arrays[f"{clip}/poses"], arrays[f"{clip}/trans"] = poses.astype(np.float16), trans.astype(np.float16)
            print(f"{clip}: {len(poses)} frames")
    if not arrays:
        raise InputError(f"{wheel}: holds no {FOLDER}humanoid3d_*.txt; is it a pybullet wheel?")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    partial = out.with_suffix(".partial")
    partial.write_bytes(buffer.getvalue())
    partial.rename(out)
    print(f"{out}: {len(arrays) // 2} clips, {out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    cli.run(main)
