"""A body, its shape, its colours and a motion in, a PosedPerson out: vertices and joints in the world, on the floor."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, minimum_filter1d
from scipy.spatial.transform import Rotation

from glot.human.body import Body
from glot.human.joints import SMPL_JOINTS
from pipelines.motions.motion_clip import PELVIS, MotionClip

BATCH = 32
HIPS = [SMPL_JOINTS.index(name) for name in ("left_hip", "right_hip")]
ANKLES = [SMPL_JOINTS.index(name) for name in ("left_ankle", "right_ankle")]
# Leg length in metres, hip to ankle, of the people whose motions are shipped. Strides are scaled by the ratio of the
# body's leg length to it.
CAPTURED_LEGS = 0.82
MISMATCH = 0.15  # metres; gaps below the feet much smaller than this are closed, much larger ones stay


@dataclass(frozen=True)
class PosedPerson:
    """One person over N frames. World frame, y up, the floor at y = 0, metres, radians.

    ``poses`` (N, 24, 3), ``trans`` (N, 3) as SMPL's transl (added after posing about SMPL's own origin),
    ``betas`` (10,), ``vertices`` (N, V, 3), ``smpl_joints`` (N, 24, 3), ``joints`` (N, 49, 3), ``colours`` (V, 3).
    """

    poses: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    vertices: np.ndarray
    smpl_joints: np.ndarray
    joints: np.ndarray
    colours: np.ndarray

    def moved(self, shift: np.ndarray) -> "PosedPerson":
        """The person moved by ``shift`` (3,), metres."""
        return PosedPerson(
            self.poses,
            self.trans + shift,
            self.betas,
            self.vertices + shift,
            self.smpl_joints + shift,
            self.joints + shift,
            self.colours,
        )


def random_betas(rng: np.random.Generator) -> np.ndarray:
    """(10,) standard normal, clipped to 2."""
    return np.clip(rng.standard_normal(10), -2, 2).astype(np.float32)


def pose_person(body: Body, clip: MotionClip, *, betas: np.ndarray, colours: np.ndarray) -> PosedPerson:
    """``body`` posed by every frame of ``clip``, standing on the floor."""
    count = len(clip)
    rotmats = Rotation.from_rotvec(clip.poses.reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    batches = []
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            batch = torch.as_tensor(rotmats[start : start + BATCH], dtype=torch.float32)
            out = body(batch, torch.as_tensor(betas).expand(len(batch), 10))
            batches.append((out.vertices.numpy(), out.smpl_joints.numpy(), out.joints.numpy()))
    vertices, smpl_joints, joints = (np.concatenate(b) for b in zip(*batches, strict=True))
    root = smpl_joints[:1, PELVIS]  # the pelvis is at the same place in every pose
    legs = np.linalg.norm(smpl_joints[0, HIPS].mean(0) - smpl_joints[0, ANKLES], axis=-1).max()
    scale = np.clip(max(legs, 0.6) / CAPTURED_LEGS, 0.7, 1.3)
    trans = clip.trans * scale - root
    trans[:, 1] += floor_lift((vertices[..., 1] + trans[:, None, 1]).min(1))
    trans = trans.astype(np.float32)
    shift = trans[:, None]
    return PosedPerson(clip.poses, trans, betas, vertices + shift, smpl_joints + shift, joints + shift, colours)


def floor_lift(lowest: np.ndarray) -> np.ndarray:
    """How far to lift each frame so that people stand on the floor: (N,) metres, from the height of the lowest vertex
    (N,).

    The legs of the recorded person and of this body differ. The lowest point within half a second is taken as the
    ground. Small gaps above the ground come from the different legs and are closed; large gaps are jumps and stay.
    Nobody sinks into the floor by more than a centimetre.
    """
    ground = gaussian_filter1d(minimum_filter1d(lowest.astype(np.float64), size=31, mode="nearest"), 6, mode="nearest")
    gap = np.maximum(lowest - ground, 0)
    closed = gap - gap * gap / (gap + MISMATCH)
    lift = -ground - gaussian_filter1d(closed, 1.5, mode="nearest")
    sunk = np.maximum(0, -(lowest + lift) - 0.01)
    # The lift that a frame still needs is spread over its neighbours; no frame gets less than it needs itself.
    return lift + np.maximum(sunk, gaussian_filter1d(sunk, 2, mode="nearest"))
