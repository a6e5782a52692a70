"""The plain formulation of GLoT, with the same weights. Benchmarks compare the speed of the project's code with it.

Whole windows go through every layer, [feature, estimate] goes three times through the iterative regressor, each joint
has a small layer in kinematic order, and smplx computes all vertices of the body for a few joints, for both branches.
Dropout is torch's.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from smplx.lbs import lbs
from torch import Tensor, nn

from glot.human.body import Body, load_body
from glot.human.body_files import OPEN_BODY
from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT, GLoTOutput
from glot.models.parts.blocks import Block, Dropout, DropPath
from glot.models.parts.local_branch import ANCESTORS, KinematicRegressor
from glot.models.smpl_params import SMPLParams, split_estimate, to_params


def body_with_pose_blendshapes() -> Body:
    """The open body with random pose blendshapes, because SMPL spends most of its time on its pose blendshapes."""
    with np.load(OPEN_BODY, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    size = (len(arrays["v_template"]), 3, 207)
    arrays["posedirs"] = (0.002 * np.random.default_rng(0).standard_normal(size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "body.npz", **arrays)
        return load_body(Path(folder) / "body.npz")


def models(config: GLoTConfig, *, threads: int) -> tuple[Body, "PlainBody", GLoT]:
    """The body, its plain formulation, and an untrained model of seed 0. Sets torch's number of threads."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    body = body_with_pose_blendshapes()
    return (
        body,
        PlainBody(body),
        GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam),
    )


class PlainBody:
    """The joints of ``body`` by way of all its vertices, with smplx."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.fixed = {
            "v_template": body.template,
            "shapedirs": body.shape_basis.T.reshape(len(body.template), 3, -1),
            "posedirs": body.pose_basis,
            "J_regressor": torch.from_numpy(body.joint_regressor),
            "parents": torch.tensor([-1, *body.parents[1:]]),
            "lbs_weights": body.weights,
        }

    def vertices(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, 3) and the 24 joints (B, 24, 3)."""
        return lbs(betas, rotmats, **self.fixed, pose2rot=False)

    def joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 49, 3)."""
        vertices, joints = self.vertices(rotmats, betas)
        extra = torch.einsum("bvc,jv->bjc", vertices, self.body.regressors[:-17])
        return torch.cat((joints, vertices[:, self.body.vertex_joints], extra), dim=1)[:, self.body.from54]

    def joints14(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 14, 3)."""
        vertices, _ = self.vertices(rotmats, betas)
        return torch.einsum("bvc,jv->bjc", vertices, self.body.regressors[-17:])[:, self.body.from_h36m]


class PlainDropPath(nn.Module):
    """Computes the branches of all samples, and multiplies those that are dropped by 0."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        return branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.rate) / (1 - self.rate))


def with_plain_dropout(model: GLoT) -> GLoT:
    """A copy of the model, for ``forward``: its dropout and its drop-path are plain ones."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, Dropout):
            model.set_submodule(name, nn.Dropout(module.rate))
        if isinstance(module, DropPath):
            model.set_submodule(name, PlainDropPath(module.rate))
    return model.train(model.training)


def transform(block: nn.Module, tokens: Tensor) -> Tensor:
    """A transformer block, for all tokens."""
    assert isinstance(block, Block)
    drop, path = block.dropout, block.drop_path
    tokens = tokens + path(drop(block.attn(block.norm1(tokens))))
    hidden = drop(F.gelu(block.fc1(block.norm2(tokens))))
    return tokens + path(drop(block.fc2(hidden)))


def forward(model: GLoT, features: Tensor, noise: Tensor | None, *, frames: slice) -> GLoTOutput:
    """features (B, T, F) -> both branches. The local branch (in evaluation, both) has outputs for ``frames``.

    The model is one of ``with_plain_dropout``.
    """
    motion, correction, mean = model.motion, model.correction, model.mean
    assert correction is not None and isinstance(correction.regressor, KinematicRegressor)
    batch, length = features.shape[:2]
    tokens = motion.positions(motion.project(features))
    mask = torch.zeros(batch, length, dtype=torch.bool)
    if noise is not None:
        keep = noise.argsort(dim=1)[:, : motion.kept]
        mask = ~mask.scatter(1, keep, True)
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    for block in motion.blocks:
        tokens = transform(block, tokens)
    memory = motion.norm(tokens)
    hidden = motion.narrow(memory)
    if noise is not None:
        filled = motion.token(mean).expand(batch, length, -1)
        hidden = filled.scatter(1, keep[..., None].expand_as(hidden), hidden)
    hidden = motion.decoder_positions(hidden)
    for block in motion.decoder_blocks:
        hidden = transform(block, hidden)
    widened = motion.widen(motion.decoder_norm(hidden))
    everything = iterate(model, widened if noise is not None else widened[:, frames])
    middle = everything[:, frames] if noise is not None else everything

    first = length // 2 - correction.nearby
    near = correction.positions(correction.project(features[:, first : first + 2 * correction.nearby + 1]))
    for block in correction.blocks:
        near = transform(block, near)
    queries = correction.norm(near)[:, frames.start - first : frames.stop - first]
    found = correction.attend(queries, correction.project_memory(memory))
    return GLoTOutput(to_params(everything), to_params(correct(correction.regressor, found, middle.detach())), mask)


def iterate(model: GLoT, features: Tensor) -> Tensor:
    """The iterative regressor: (B, K, F) -> (B, K, 157)."""
    regressor = model.iterative
    pose, shape, cam = (part.expand(*features.shape[:-1], -1) for part in split_estimate(model.mean))
    for _ in range(regressor.iterations):
        hidden = regressor.dropout(regressor.fc1(torch.cat((features, pose, shape, cam), dim=-1)))
        pose, shape, cam = pose + regressor.pose(hidden), shape + regressor.shape(hidden), cam + regressor.cam(hidden)
    return torch.cat((pose, shape, cam), dim=-1)


def correct(regressor: KinematicRegressor, tokens: Tensor, estimate: Tensor) -> Tensor:
    """The kinematic regressor, joint by joint: (B, K, C), (B, K, 157) -> (B, K, 157)."""
    pose, shape, cam = split_estimate(estimate)
    pose_feature = regressor.dropout(regressor.fc_pose(torch.cat((tokens, pose), dim=-1)))
    shape_feature = regressor.dropout(regressor.fc_shape(torch.cat((tokens, shape), dim=-1)))
    turns: list[Tensor] = []
    for joint, chain in enumerate(ANCESTORS):
        start = joint if regressor.official_slices else 6 * joint
        above = [turns[ancestor] for ancestor in chain]
        turns.append(regressor.joints[joint](torch.cat((pose_feature, *above, pose[..., start : start + 6]), dim=-1)))
    moved = regressor.cam(torch.cat((pose_feature, shape_feature, cam), dim=-1))
    return estimate + torch.cat((*turns, regressor.shape(shape_feature), moved), dim=-1)


def evaluate(model: GLoT, body: PlainBody, windows: Tensor) -> tuple[SMPLParams, Tensor]:
    """Windows (B, T, F) -> the corrected middle frames and their 14 joints. The body of the global branch is computed,
    too, as in the official evaluation."""
    middle = model.config.frames // 2
    output = forward(model, windows, None, frames=slice(middle, middle + 1))
    first, last = (SMPLParams(*(values[:, 0] for values in branch)) for branch in (output.global_, output.local))
    body.joints14(first.rotmats, first.betas)
    return last, body.joints14(last.rotmats, last.betas)
