"""Rotations in one form in, in another form out: 6D vectors, 3x3 matrices, axis-angle vectors (rad), quaternions.

rot6d is SPIN's layout of Zhou et al., CVPR 2019: viewed as (3, 2), its columns are the first two of the matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # length of a vector that is as good as zero


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt; any two independent columns give a proper rotation."""
    # Rotations come last here: sums over an axis of 3 numbers that are neighbours in memory are slow on a CPU.
    first, second = rot6d.reshape(-1, 6).T.contiguous().view(3, 2, -1).unbind(1)  # (3, N) each
    x = _unit(first)
    y = _unit(second - (x * second).sum(0) * x)
    columns = torch.stack((x, y, torch.linalg.cross(x, y, dim=0)), dim=1)  # (3, 3, N)
    return columns.flatten(0, 1).T.contiguous().view(*rot6d.shape[:-1], 3, 3)


def _unit(vectors: Tensor) -> Tensor:
    """(3, N) -> vectors of length 1. A vector of zeros stays, and has a finite gradient."""
    return vectors * vectors.square().sum(0).clamp_min(TINY**2).rsqrt()


def rotmat_to_rot6d(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6)."""
    return rotmat[..., :2].flatten(-2)


def axis_angle_to_rotmat(axis_angle: Tensor) -> Tensor:
    """(..., 3) rad -> (..., 3, 3), exact at zero too.

    The official batch_rodrigues adds 1e-8 to every component before it takes the norm. This function does not: its
    matrices differ from the official ones by less than 1e-7.
    """
    angle = axis_angle.norm(dim=-1)[..., None, None]
    zero = torch.zeros_like(axis_angle[..., 0])
    x, y, z = axis_angle.unbind(-1)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    # sin(a)/a and (1 - cos(a))/a^2 written with sinc, which is smooth through zero.
    sine = torch.sinc(angle / torch.pi)
    cosine = 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    return torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device) + sine * cross + cosine * (cross @ cross)


def rotmat_to_axis_angle(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) rad, of length 0 to pi; well conditioned near both ends."""
    quaternion = rotmat_to_quaternion(rotmat)
    real, vector = quaternion[..., :1], quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, real)
    # angle / sine tends to 2 at zero; the where keeps both value and gradient finite there.
    small = sine < 1e-7
    return vector * torch.where(small, 2.0, angle / torch.where(small, 1.0, sine))


def rotmat_to_quaternion(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) unit quaternion (w, x, y, z) with w >= 0.

    There are four equivalent formulas. This function uses the formula that divides by the largest component of the
    quaternion, which is never zero.
    """
    m = rotmat
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    # Row k is 4 q_k (w, x, y, z); the row with the largest diagonal is the best conditioned.
    rows = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, wx, wy, wz), -1),
            torch.stack((wx, 1 + xx - yy - zz, xy, xz), -1),
            torch.stack((wy, xy, 1 - xx + yy - zz, yz), -1),
            torch.stack((wz, xz, yz, 1 - xx - yy + zz), -1),
        ),
        -2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = F.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
