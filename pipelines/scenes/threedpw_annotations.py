"""Posed people, their 2D detections and the camera in, the record of a 3DPW sequence file out."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pipelines.motions.motion_clip import MotionClip, resample
from pipelines.scenes.camera_paths import CameraPath
from pipelines.scenes.posed_person import PosedPerson


def misalign(rng: np.random.Generator, world_to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera matrices (N, 4, 4), some of them wrong in a third of the sequences, and ``valid`` (N,), 0 where wrong.

    3DPW also has frames in which the camera's pose is wrong.
    """
    frames = len(world_to_camera)
    poses, valid = world_to_camera.copy(), np.ones(frames, dtype=np.int64)
    if rng.random() < 0.35:
        length = int(rng.integers(5, 16))
        start = int(rng.integers(0, frames - length))
        wrong = np.eye(4)
        wrong[:3, :3] = Rotation.from_rotvec(rng.uniform(0.1, 0.35) * _random_direction(rng)).as_matrix()
        wrong[:3, 3] = rng.uniform(0.2, 0.6) * _random_direction(rng)
        poses[start : start + length] = wrong @ poses[start : start + length]
        valid[start : start + length] = 0
    return poses, valid


def _random_direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def sequence_record(
    rng: np.random.Generator, name: str, people: list[PosedPerson], camera: CameraPath, poses2d: np.ndarray
) -> dict[str, Any]:
    """The dictionary of a 3DPW sequence file, with every key of the real files; textures and clothes are left empty.

    ``poses2d`` (P, N, 3, 18): x, y px and confidence of each person in each frame.
    """
    cam_poses, valid = misalign(rng, camera.world_to_camera)
    frames = len(cam_poses)
    at_60_hz = [  # the rate of 3DPW's IMUs
        resample(MotionClip(p.poses, p.trans, 30.0), times=np.arange(2 * frames - 1) / 60) for p in people
    ]
    return {
        "sequence": name,
        "betas": [p.betas.astype(np.float64) for p in people],
        "betas_clothed": [p.betas.astype(np.float64) for p in people],
        "poses": [p.poses.reshape(frames, 72).astype(np.float64) for p in people],
        "trans": [p.trans.astype(np.float64) for p in people],
        "poses_60Hz": [clip.poses.reshape(-1, 72).astype(np.float64) for clip in at_60_hz],
        "trans_60Hz": [clip.trans.astype(np.float64) for clip in at_60_hz],
        "poses2d": list(poses2d),
        "jointPositions": [p.smpl_joints.reshape(frames, 72).astype(np.float64) for p in people],
        "img_frame_ids": np.arange(frames) * 2,
        "cam_poses": cam_poses.astype(np.float64),
        "campose_valid": [valid.copy() for _ in people],
        "cam_intrinsics": camera.intrinsics.astype(np.float64),
        "texture_maps": [[] for _ in people],
        "v_template_clothed": [[] for _ in people],
        "genders": [str(rng.choice(["m", "f"])) for _ in people],
    }
