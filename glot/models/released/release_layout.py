"""What the files of all five releases share: one dictionary, the mean body, and the buffers of SMPL.

A file is read without running anything in it (glot.human.safe_torch), whether its container is zip or that of torch
before 1.6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glot.config import Recipe
from glot.errors import InputError
from glot.human.body import Body
from glot.human.body_files import SMPL_VERTICES
from glot.human.joints import JOINTS
from glot.model_configs import ModelConfig
from glot.models.checkpoint import Checkpoint, check_config, read_torch_file, recipe_of
from glot.models.smpl_params import split_estimate
from glot.models.temporal_model import TemporalModel

BODIES = 64  # official checkpoints hold poses of zeros for a batch of this size
OWN = "glot"  # the entry that only files of this project have: config.json of the checkpoint that they were made of


class Release(NamedTuple):
    """What was read from a published file."""

    path: Path
    state: dict[str, Tensor]  # gen_state_dict; names have no "module."
    own: dict[str, Any] | None  # config.json of our checkpoint, if this project wrote the file

    def config(self, found: ModelConfig, free: Iterable[str]) -> ModelConfig:
        """The configuration of the model: what our checkpoint said, else what was ``found`` in the tensors.

        InputError where the two differ in other fields than the ``free`` ones, which do not show in the tensors.
        """
        if self.own is None:
            return found
        config: ModelConfig = recipe_of(self.own, self.path).model
        if (name := differing(config, found, free)) is not None:
            raise InputError(f"{self.path}: model.{name}={getattr(config, name)} does not fit the tensors of the file")
        return config

    def checkpoint(self, model: TemporalModel, recipe: Recipe) -> Checkpoint:
        """``model`` as a checkpoint; ``recipe`` is that of the release."""
        if self.own is not None:
            info = {name: value for name, value in self.own.items() if name not in ("recipe", "schema")}
            return Checkpoint(model.eval(), recipe_of(self.own, self.path), info | {"notes": []})
        # The file holds the body that it was trained with.
        template = next((len(x) for name, x in self.state.items() if name.endswith("smpl.v_template")), 0)
        info = {
            "body": {"open": False} if template == SMPL_VERTICES else {},
            "features": {"backbone": {"name": "spin", "feature_size": model.config.feature_size}},
            "metrics": {},
            "notes": [],
        }
        return Checkpoint(model.eval(), replace(recipe, model=model.config), info)


def read_release(path: Path) -> Release:
    """The file at ``path``; InputError where it is no published checkpoint of any of the five models."""
    content = read_torch_file(path)
    state = content.get("gen_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path}: no gen_state_dict in it, so it is no published checkpoint")
    for name, tensor in state.items():
        if not isinstance(name, str) or not name.isprintable() or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: gen_state_dict holds {str(name)[:80]!r}, which is no named tensor")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_complex() or _repeats(tensor):
            raise InputError(f"{path}: {name} is not stored as plain numbers")
    own = content.get(OWN)
    names = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return Release(path, names, None if own is None else check_config(own, path))


def _repeats(tensor: Tensor) -> bool:
    """Whether it has more numbers than its file stores, so that a small file would fill the memory."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def mean_of(state: Mapping[str, Tensor], owner: str, path: Path) -> Tensor:
    """The mean body (157,) that the regressor ``owner`` of a state dict starts from."""
    parts = []
    for name, count in (("init_pose", 144), ("init_shape", 10), ("init_cam", 3)):
        tensor = state.get(f"{owner}.{name}")
        if tensor is None or tensor.numel() != count:
            raise InputError(f"{path}: lacks {owner}.{name} with {count} numbers, so it is not a whole checkpoint")
        parts.append(tensor.flatten().float())
    return torch.cat(parts)


def mean_buffers(mean: Tensor, owner: str) -> dict[str, Tensor]:
    """The inverse of ``mean_of``."""
    return {f"{owner}.init_{name}": part[None].clone() for name, part in split_estimate(mean)._asdict().items()}


def smpl_buffers(body: Body, owners: Iterable[str]) -> dict[str, Tensor]:
    """The buffers that smplx's SMPL class has for a body, for each module that holds such a class."""
    buffers = _smpl_buffers(body)
    return {f"{owner}.{name}": tensor for owner in owners for name, tensor in buffers.items()}


def _smpl_buffers(body: Body) -> dict[str, Tensor]:
    vertices = len(body.template)
    poses = body.pose_basis if body.pose_basis is not None else torch.zeros(9 * (JOINTS - 1), 3 * vertices)
    return {
        "betas": torch.zeros(BODIES, 10),
        "global_orient": torch.zeros(BODIES, 3),
        "body_pose": torch.zeros(BODIES, 3 * (JOINTS - 1)),
        "faces_tensor": torch.from_numpy(body.faces),
        "v_template": body.template,
        "shapedirs": body.shape_basis.T.reshape(vertices, 3, -1),
        "J_regressor": torch.from_numpy(body.joint_regressor),
        "posedirs": poses,
        "parents": torch.tensor([-1, *body.parents[1:]]),
        "lbs_weights": body.weights,
        "J_regressor_extra": body.regressors[:-17],
        "vertex_joint_selector.extra_joints_idxs": body.vertex_joints,
    }


def require_official(config: ModelConfig, official: ModelConfig, free: Iterable[str]) -> None:
    """InputError unless ``config`` is that of the release; fields in ``free`` may have any value."""
    if (name := differing(config, official, free)) is not None:
        found, wanted = getattr(config, name), getattr(official, name)
        raise InputError(f"the official code has no model with {name}={found}, only {wanted}")


def differing(config: ModelConfig, other: ModelConfig, free: Iterable[str]) -> str | None:
    """The first field, other than the ``free`` ones, in which two configurations differ. ``kind`` comes first."""
    names = (name for name in vars(other) if name not in free)
    return next((name for name in names if getattr(config, name) != getattr(other, name)), None)
