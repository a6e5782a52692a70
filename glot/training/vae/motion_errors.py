"""Motions and what was decoded of them in; angles between their rotations, in degrees, out.

N motions, T frames, J = 24 joints. A pose is 24 rotations, 6D in MEVA's layout (144 numbers).
"""

import math

import torch
from torch import Tensor

from glot.human.joints import JOINTS
from glot.human.rotation import rot6d_to_rotmat
from glot.models.meva import meva_to_spin
from glot.models.parts.motion_vae import MotionVAE

PART = 64  # motions that are decoded at a time


def rotmats_of(poses: Tensor) -> Tensor:
    """(..., 144) -> (..., J, 3, 3)."""
    return rot6d_to_rotmat(meva_to_spin(poses).unflatten(-1, (JOINTS, 6)))


def angles(first: Tensor, second: Tensor) -> Tensor:
    """The geodesic angle, in degrees, between rotations (..., 3, 3)."""
    chord = (first - second).flatten(-2).norm(dim=-1) / math.sqrt(8)  # the sine of half the angle
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1)))


def mean_rotation(rotmats: Tensor, dim: int) -> Tensor:
    """The rotations (..., 3, 3) nearest to the means of ``rotmats`` over a dimension."""
    left, _, right = torch.linalg.svd(rotmats.mean(dim))
    sign = torch.det(left @ right)
    return torch.cat((left[..., :2], left[..., 2:] * sign[..., None, None]), dim=-1) @ right


@torch.no_grad()
def joint_errors(vae: MotionVAE, motions: Tensor, device: torch.device) -> Tensor:
    """(J,): the error of each joint of decoded motions (N, T, 144), each from the mean of its vector's distribution."""
    errors = []
    for part in motions.split(PART):
        latent, _ = vae.encode(part.to(device))
        decoded = vae.reconstruct(part.to(device), latent).cpu()
        errors.append(angles(rotmats_of(decoded), rotmats_of(part)).sum((0, 1)))
    return torch.stack(errors).sum(0) / (len(motions) * motions.shape[1])


def errors_of_mean_pose(seen: Tensor, motions: Tensor) -> Tensor:
    """(J,): the error of each joint where the mean pose of the motions ``seen`` is taken for every pose."""
    mean = mean_rotation(rotmats_of(seen).flatten(0, 1), 0)
    return angles(mean, rotmats_of(motions)).mean((0, 1))


def errors_of_still_pose(motions: Tensor) -> Tensor:
    """(J,): the error of each joint where each motion's own mean pose is taken for all its poses."""
    rotmats = rotmats_of(motions)
    return angles(mean_rotation(rotmats, 1)[:, None], rotmats).mean((0, 1))


def named(errors: Tensor, prefix: str) -> dict[str, float]:
    """The mean error of all joints, of the root, and of all joints but the root, in degrees."""
    return {
        f"{prefix}error": float(errors.mean()),
        f"{prefix}root": float(errors[0]),
        f"{prefix}joints": float(errors[1:].mean()),
    }
