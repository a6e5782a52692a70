"""Points that are fixed linear combinations of a body's vertices, such as its 49 joints, computed without the vertices.

B batch, V vertices, P points. A pair is a point and one of the bones that move it. Metres.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glot.human.joints import BETAS


class Skinning(NamedTuple):
    """The arrays that decide where the vertices of a body are."""

    template: NDArray[np.float64]  # (V, 3)
    shapes: NDArray[np.float32]  # (V, 3, 10), change per beta
    poses: NDArray[np.floating] | None  # (V, 3, 207), change per number of ``pose_feature``; None: no pose blendshapes
    weights: NDArray[np.float32]  # (V, 24)
    rest: NDArray[np.float64]  # (24, 3), joints of the mean shape
    rest_basis: NDArray[np.float64]  # (24, 3, 10), change of these joints per beta


class Posed(NamedTuple):
    """A posed skeleton. Samples come last: 3 x 3 products are then sums of long rows, fast on a CPU."""

    rest: Tensor  # (24, 3, B), joints before posing
    rotations: Tensor  # (24, 3, 3, B), global
    joints: Tensor  # (24, 3, B)


class BodyPoints(nn.Module):
    """Points p = sum_v r_v x_v of the posed vertices x, for ``rows`` (P, V) of weights r.

    With skinning weights w, global rotations G and joints y, p = sum_v r_v sum_j w_vj (G_j (s_v - rest_j) + y_j), where
    s_v is linear in betas and pose. The sums over vertices are done once, when the module is built:
    p = sum_j G_j (m_pj + S_pj [betas, pose]) + c_pj y_j, for the few bones j that move the point.
    """

    offset: Tensor  # m: (pairs, 3)
    basis: Tensor  # S: (10 or 217, pairs * 3)
    share: Tensor  # c: (pairs, 1)
    bone: Tensor  # j: (pairs,)
    spread: Tensor  # (P, pairs), adds the pairs of a point

    def __init__(self, skinning: Skinning, rows: np.ndarray) -> None:
        super().__init__()
        template, shapes, poses, weights, rest, rest_basis = skinning
        offsets, bases, shares, bones, owners = [], [], [], [], []
        for point, row in enumerate(rows):
            touched = np.flatnonzero(row)
            pull = (row[touched, None].astype(np.float64) * weights[touched]).T  # (24, touched)
            # A pair that carries under 1e-9 of the weight moves its point by under a nanometre.
            near = np.flatnonzero(np.abs(pull).sum(1) > 1e-9)
            pull = pull[near]
            share = pull.sum(1)
            offsets.append(pull @ template[touched] - share[:, None] * rest[near])
            basis = np.tensordot(pull, shapes[touched], 1) - share[:, None, None] * rest_basis[near]
            if poses is not None:
                basis = np.concatenate((basis, np.tensordot(pull, poses[touched].astype(np.float64), 1)), axis=-1)
            bases.append(basis)
            shares.append(share)
            bones.append(near)
            owners.append(np.full(len(near), point))
        bone, owner = np.concatenate(bones), np.concatenate(owners)
        spread = np.zeros((len(rows), len(bone)), np.float32)
        spread[owner, np.arange(len(bone))] = 1
        basis = np.concatenate(bases)  # (pairs, 3, 10 or 217)
        keep(self, "offset", np.concatenate(offsets))
        keep(self, "basis", basis.reshape(-1, basis.shape[-1]).T)
        keep(self, "share", np.concatenate(shares)[:, None])
        keep(self, "spread", spread)
        keep_index(self, "bone", bone)

    def forward(self, rotmats: Tensor, betas: Tensor, posed: Posed) -> Tensor:
        """rotmats (B, 24, 3, 3), betas (B, 10) and the skeleton that they pose -> (P, 3, B)."""
        inputs = betas if len(self.basis) == BETAS else torch.cat((betas, pose_feature(rotmats)), dim=-1)
        local = self.offset[..., None] + (self.basis.T @ inputs.T).unflatten(0, (-1, 3))  # (pairs, 3, B)
        turned = products(posed.rotations.index_select(0, self.bone), local[:, :, None]).squeeze(2)
        moved = turned + self.share[..., None] * posed.joints.index_select(0, self.bone)
        return (self.spread @ moved.flatten(1)).unflatten(1, (3, -1))


def products(left: Tensor, right: Tensor) -> Tensor:
    """(N, 3, 3, B), (N, 3, K, B) -> their matrix products (N, 3, K, B)."""
    return (left.unsqueeze(3) * right.unsqueeze(1)).sum(2)


def pose_feature(rotmats: Tensor) -> Tensor:
    """(B, 24, 3, 3) -> (B, 207): R - I of every joint but the root, which the pose blendshapes are linear in."""
    return (rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)).flatten(1)


def keep(module: nn.Module, name: str, values: np.ndarray | None) -> None:
    """Makes an array a float32 buffer of the module: it moves to a device with the module and is not saved."""
    tensor = None if values is None else torch.from_numpy(np.ascontiguousarray(values, np.float32))
    module.register_buffer(name, tensor, persistent=False)


def keep_index(module: nn.Module, name: str, values: Sequence[int] | np.ndarray) -> None:
    """``keep`` for indices. An index that is a list would be copied to the device at every use."""
    module.register_buffer(name, torch.tensor(np.asarray(values, np.int64)), persistent=False)
