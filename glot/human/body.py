"""A body model file in, a differentiable body out: rotation matrices and betas to vertices and joints.

B batch, V vertices. Metres, in the body model's own frame: its origin and axes, no translation.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from glot.errors import InputError
from glot.human.body_files import read_body_file
from glot.human.body_points import BodyPoints, Posed, Skinning, keep, keep_index, pose_feature, products
from glot.human.joints import BETAS, H36M_TO_COMMON14, JOINTS, SMPL_PARENTS, SPIN49_FROM_54


def _tree_levels() -> list[list[int]]:
    """SMPL's joints by their distance from the root: 9 levels."""
    levels = [[0]]
    while children := [joint for joint in range(1, JOINTS) if SMPL_PARENTS[joint] in levels[-1]]:
        levels.append(children)
    return levels


LEVELS = _tree_levels()


class BodyOutput(NamedTuple):
    """Metres, SMPL's own origin and axes (no translation)."""

    vertices: Tensor  # (B, V, 3)
    smpl_joints: Tensor  # (B, 24, 3)
    joints: Tensor  # (B, 49, 3), SPIN's order
    joints14: Tensor  # (B, 14, 3), COMMON14 from the Human3.6M regressor: the evaluation joints


def load_body(path: Path | None = None, *, gender: str = "neutral") -> "Body":
    """The body in ``path``, a file or a folder with SMPL's files; None is the open body that comes with the project.

    See glot.human.body_files.read_body_file for the files and for the InputErrors that it raises.
    """
    file = read_body_file(path, gender=gender)
    return Body(file.arrays, name=file.name, file_hash=file.file_hash, is_open=file.is_open)


def require_body(body: "Body", made_with: dict[str, Any], what: str) -> None:
    """InputError unless ``body`` is of the kind that ``what`` (features or a model) was made with.

    ``made_with`` = {open, hash} of that body. Poses and shapes of the open body mean nothing for SMPL, and the reverse.
    """
    kinds = {True: "the open body", False: "SMPL"}
    kind = made_with.get("open")
    if kind is not None and bool(kind) != body.is_open:
        remedy = "leave --body out" if kind else "give SMPL's files with --body"
        raise InputError(f"{what}: made with {kinds[bool(kind)]}, but --body is {kinds[body.is_open]}; {remedy}")
    if kind and made_with.get("hash") not in (None, "", body.file_hash):
        raise InputError(f"{what}: made with another version of the open body; extract or train again with this one")


class Body(nn.Module):
    """Linear blend skinning (SMPL, Loper et al. 2015) of rotation matrices. It has no parameters and no state dict.

    Attributes: ``faces`` (F, 3) int64, ``joint_regressor`` (24, V), ``parents`` (24,), ``mean_pose`` (144,),
    ``mean_shape`` (10,), ``mean_cam`` (3,), ``name``, ``file_hash``, ``is_open``; ``vertex_part`` (V,) with
    ``part_names`` where the file says which part of the person a vertex belongs to.
    """

    mean_pose: Tensor
    mean_shape: Tensor
    mean_cam: Tensor
    template: Tensor
    shape_basis: Tensor
    pose_basis: Tensor | None
    weights: Tensor
    rest_template: Tensor
    rest_basis: Tensor
    regressors: Tensor
    vertex_joints: Tensor
    from54: Tensor
    from_h36m: Tensor
    order49: Tensor
    parent_index: Tensor
    by_level: Tensor
    from_levels: Tensor

    def __init__(self, arrays: dict[str, np.ndarray], *, name: str, file_hash: str, is_open: bool) -> None:
        super().__init__()
        self.faces = arrays["f"].astype(np.int64)
        self.joint_regressor = arrays["J_regressor"].astype(np.float32)
        self.parents: tuple[int, ...] = SMPL_PARENTS
        self.name, self.file_hash, self.is_open = name, file_hash, is_open
        self.vertex_part = arrays.get("vertex_part")
        self.part_names: tuple[str, ...] = tuple(str(name) for name in arrays.get("part_names", ()))
        for name in ("mean_pose", "mean_shape", "mean_cam"):
            keep(self, name, arrays[name])
        poses = arrays.get("posedirs")
        if poses is not None and not poses.any():
            poses = None
        self._keep_skeleton()
        self._keep_skinning(arrays, poses)
        self._keep_points(arrays, poses)

    def _keep_skeleton(self) -> None:
        keep_index(self, "parent_index", SMPL_PARENTS[1:])
        in_order = sum(LEVELS, [])
        keep_index(self, "by_level", [joint - 1 for joint in in_order[1:]])
        keep_index(self, "from_levels", np.argsort(in_order))
        for depth, (upper, level) in enumerate(pairwise(LEVELS)):
            keep_index(self, f"parents{depth}", [upper.index(SMPL_PARENTS[joint]) for joint in level])

    def _keep_skinning(self, arrays: dict[str, np.ndarray], poses: np.ndarray | None) -> None:
        """Keeps what ``forward`` needs to compute the whole body."""
        template, shapes = arrays["v_template"], arrays["shapedirs"].reshape(-1, BETAS)  # (V, 3), (V*3, 10)
        keep(self, "template", template)
        keep(self, "shape_basis", shapes.T)
        keep(self, "pose_basis", None if poses is None else poses.reshape(len(shapes), -1).T)
        keep(self, "weights", arrays["weights"])
        to_rest = arrays["J_regressor"].astype(np.float64)
        rest_basis = np.einsum("jv,vcb->bjc", to_rest, arrays["shapedirs"].astype(np.float64))
        keep(self, "rest_template", to_rest @ template)
        keep(self, "rest_basis", rest_basis.reshape(BETAS, -1))
        keep(self, "regressors", np.concatenate((arrays["J_regressor_extra"], arrays["J_regressor_h36m"])))
        keep_index(self, "vertex_joints", arrays["vertex_joint_ids"])
        keep_index(self, "from54", SPIN49_FROM_54)
        keep_index(self, "from_h36m", H36M_TO_COMMON14)

    def _keep_points(self, arrays: dict[str, np.ndarray], poses: np.ndarray | None) -> None:
        """Keeps what joints without the mesh need: the points that complete the 49, and the 14 evaluation joints."""
        vertices = len(self.template)
        skinning = Skinning(
            self.template.numpy().astype(np.float64),
            self.shape_basis.numpy().T.reshape(vertices, 3, BETAS),
            poses,
            self.weights.numpy(),
            self.rest_template.numpy().astype(np.float64),
            self.rest_basis.numpy().astype(np.float64).T.reshape(JOINTS, 3, BETAS),
        )
        picks = np.zeros((len(arrays["vertex_joint_ids"]), vertices), np.float32)
        picks[np.arange(len(picks)), arrays["vertex_joint_ids"]] = 1
        # 11 picked vertices and 9 regressed points are among the 49.
        used = sorted({index for index in SPIN49_FROM_54 if index >= JOINTS})
        extra = np.concatenate((picks, arrays["J_regressor_extra"]))[[index - JOINTS for index in used]]
        self._points49 = BodyPoints(skinning, extra)
        self._points14 = BodyPoints(skinning, arrays["J_regressor_h36m"][list(H36M_TO_COMMON14)])
        order49 = [index if index < JOINTS else JOINTS + used.index(index) for index in SPIN49_FROM_54]
        keep_index(self, "order49", order49)

    def forward(self, rotmats: Tensor, betas: Tensor) -> BodyOutput:
        """rotmats (B, 24, 3, 3), each relative to its parent, and betas (B, 10) -> the whole body."""
        _check_inputs(rotmats, betas)
        batch = len(rotmats)
        rest, rotations, places = (values.movedim(-1, 0) for values in self._pose(rotmats, betas))
        flat = self.template.flatten() + betas @ self.shape_basis
        if self.pose_basis is not None:
            flat = flat + pose_feature(rotmats) @ self.pose_basis
        shaped = flat.view(batch, -1, 3)  # (B, V, 3)
        moved = places - (rotations @ rest[..., None]).squeeze(-1)
        blended = self.weights @ torch.cat((rotations.flatten(2), moved), dim=-1)  # (V, 24) x (B, 24, 12)
        vertices = (blended[..., :9].unflatten(-1, (3, 3)) @ shaped[..., None]).squeeze(-1) + blended[..., 9:]
        regressed = self.regressors @ vertices
        extra, h36m = regressed[:, :-17], regressed[:, -17:]
        all54 = torch.cat((places, vertices[:, self.vertex_joints], extra), dim=1)
        return BodyOutput(vertices, places, all54[:, self.from54], h36m[:, self.from_h36m])

    def joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 49, 3): ``BodyOutput.joints``, computed without the mesh."""
        _check_inputs(rotmats, betas)
        posed = self._pose(rotmats, betas)
        points = torch.cat((posed.joints, self._points49(rotmats, betas, posed)))
        return _by_sample(points.index_select(0, self.order49))

    def joints14(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 14, 3): ``BodyOutput.joints14``, computed without the mesh."""
        _check_inputs(rotmats, betas)
        return _by_sample(self._points14(rotmats, betas, self._pose(rotmats, betas)))

    def smpl_joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 24, 3): ``BodyOutput.smpl_joints``, computed without the mesh."""
        _check_inputs(rotmats, betas)
        return _by_sample(self._pose(rotmats, betas).joints)

    def at_rest(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """betas (B, 10) -> vertices (B, V, 3) and joints (B, 24, 3) of the unposed person, in a T-pose."""
        vertices = self.template + (betas @ self.shape_basis).unflatten(-1, (-1, 3))
        return vertices, _by_sample(self._rest_joints(betas))

    def _rest_joints(self, betas: Tensor) -> Tensor:
        """(24, 3, B)."""
        return self.rest_template[..., None] + (self.rest_basis.T @ betas.T).unflatten(0, (JOINTS, 3))

    def _pose(self, rotmats: Tensor, betas: Tensor) -> Posed:
        """The posed skeleton, computed one level of the kinematic tree at a time."""
        local = rotmats.flatten(1).T.contiguous().view(JOINTS, 3, 3, len(rotmats))
        rest = self._rest_joints(betas)
        bones = rest[1:] - rest.index_select(0, self.parent_index)
        relative = torch.cat((local[1:], bones[:, :, None]), dim=2)  # (23, 3, 4, B): rotation and bone
        rotations, places = [local[:1]], [rest[:1]]
        sizes = [len(level) for level in LEVELS[1:]]
        for depth, level in enumerate(relative.index_select(0, self.by_level).split(sizes)):
            parents = getattr(self, f"parents{depth}")
            moved = products(rotations[-1].index_select(0, parents), level)
            rotations.append(moved[:, :, :3])
            places.append(places[-1].index_select(0, parents) + moved[:, :, 3])
        order = self.from_levels
        return Posed(rest, torch.cat(rotations).index_select(0, order), torch.cat(places).index_select(0, order))


def _by_sample(points: Tensor) -> Tensor:
    """(P, 3, B) -> (B, P, 3)."""
    return points.movedim(-1, 0).contiguous()


def _check_inputs(rotmats: Tensor, betas: Tensor) -> None:
    if rotmats.shape[1:] != (JOINTS, 3, 3) or betas.shape[1:] != (BETAS,) or len(rotmats) != len(betas):
        found = f"{tuple(rotmats.shape)} and {tuple(betas.shape)}"
        raise ValueError(f"the body takes rotmats (B, 24, 3, 3) and betas (B, 10), not {found}")
