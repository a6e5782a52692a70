"""Motions of all people of a video in; one .pkl file, as the demos of VIBE, TCMR and GLoT write it, out."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glot.human.body import Body
from glot.location import write_whole
from glot.motion.motion_files import axis_angle
from glot.motion.person_motion import Motion, vertices

BLOCK = 256  # frames whose bodies are posed together


def write_peers_pkl(path: Path, motions: Sequence[Motion], body: Body, *, with_vertices: bool = False) -> None:
    """Writes one file of all people, with the keys of VIBE's, TCMR's and GLoT's demos, for scripts that joblib.load it.

    {person: {pred_cam (N, 3), orig_cam (N, 4), verts (N, V, 3) or None, pose (N, 72), betas (N, 10), joints3d (N, 49,
    3) in SPIN's order, joints2d None, bboxes (N, 4), frame_ids (N,)}}. As in those demos, verts and joints3d are
    relative to the body's origin, and the width and height of bboxes are those of the crop. Vertices take 80 KB a
    frame, in memory as in the file.
    """
    people: dict[int | str, dict[str, Any]] = {}
    for motion in motions:
        joints, meshes = _posed(motion, body, with_vertices=with_vertices)
        key = int(motion.person) if motion.person.isdecimal() else motion.person
        people[key] = {
            "pred_cam": motion.cam,
            "orig_cam": motion.full_image_cam,
            "verts": meshes,
            "pose": axis_angle(motion).reshape(-1, 72),
            "betas": motion.betas,
            "joints3d": joints,
            "joints2d": None,  # in those demos, a 2D pose tracker's detections; None without a tracker
            "bboxes": np.concatenate((motion.bbox[:, :2], motion.bbox[:, 2:] * motion.crop_scale[:, None]), axis=1),
            "frame_ids": motion.frames,
        }
    write_whole(path, pickle.dumps(people, protocol=4))


def _posed(
    motion: Motion, body: Body, *, with_vertices: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """SPIN's joints (N, 49, 3) and, if wanted, the vertices (N, V, 3): m, from the body's origin."""
    joints, meshes = [], []
    for start in range(0, len(motion), BLOCK):
        rows = slice(start, start + BLOCK)
        with torch.no_grad():
            rotmats, betas = torch.from_numpy(motion.rotmats[rows]), torch.from_numpy(motion.betas[rows])
            joints.append(body.joints(rotmats, betas).numpy())
        if with_vertices:
            meshes.append(vertices(motion, body, rows) - motion.transl[rows, None])
    return np.concatenate(joints), np.concatenate(meshes) if with_vertices else None
