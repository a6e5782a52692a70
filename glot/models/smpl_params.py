"""An estimate of SMPL parameters as 157 numbers in; rotation matrices, betas and a camera out.

B batch, K frames. The 157 numbers are 24 rotations of 6 numbers, 10 betas and 3 numbers of a weak-perspective camera.
"""

from typing import NamedTuple

from torch import Tensor

from glot.human.joints import BETAS, JOINTS
from glot.human.rotation import rot6d_to_rotmat

POSE, SHAPE, CAM = 6 * JOINTS, BETAS, 3
ESTIMATE = POSE + SHAPE + CAM


class SMPLParams(NamedTuple):
    """K frames per window; without the K axis where a function says so."""

    rotmats: Tensor  # (B, K, 24, 3, 3), each relative to its parent joint; the first is the global orientation
    betas: Tensor  # (B, K, 10)
    cam: Tensor  # (B, K, 3): s, tx, ty of the crop


class Estimate(NamedTuple):
    """The three parts of an estimate; each is a view of the same tensor."""

    pose: Tensor  # (..., 144): 24 rotations, 6D
    shape: Tensor  # (..., 10): betas
    cam: Tensor  # (..., 3): s, tx, ty of the crop


def split_estimate(estimate: Tensor) -> Estimate:
    """(..., 157) -> pose (..., 144), shape (..., 10), cam (..., 3)."""
    return Estimate(*estimate.split((POSE, SHAPE, CAM), dim=-1))


def to_params(estimate: Tensor) -> SMPLParams:
    """(B, K, 157) -> rotation matrices, betas and cam of every frame, in single precision."""
    pose, betas, cam = split_estimate(estimate.float())
    return SMPLParams(rot6d_to_rotmat(pose.unflatten(-1, (JOINTS, 6))), betas, cam)
