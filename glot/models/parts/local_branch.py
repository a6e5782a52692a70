"""Features of the frames around the middle, the global memory and the global estimate in; a corrected estimate out.

Paper sections 3.3 (local parameter correction) and 3.4 (hierarchical spatial correlation regressor, HSCR). B batch,
K supervised frames, F feature size, C width of the local branch. Layers that the official code has and no output
depends on (two heads of the kinematic regressor) are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.human.joints import JOINTS, SMPL_PARENTS
from glot.model_configs import GLoTConfig
from glot.models.parts.blocks import Block, CrossAttention, Dropout, Positions
from glot.models.smpl_params import CAM, POSE, SHAPE, split_estimate


def _ancestors() -> list[list[int]]:
    """The ancestors of every joint, from the root down. The root has none."""
    chains: list[list[int]] = [[]]
    for parent in SMPL_PARENTS[1:]:
        chains.append([*chains[parent], parent])
    return chains


ANCESTORS = _ancestors()


class LocalCorrection(nn.Module):
    """Attends from the frames around the middle to the global memory, then corrects the global estimate."""

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__()
        width, self.nearby, self.detach = config.local_width, config.nearby_frames, config.detach_global
        self.project = nn.Linear(config.feature_size, width)
        self.positions = Positions(config, 2 * config.nearby_frames + 1, width)
        rates = torch.linspace(0, config.drop_path, config.local_depth).tolist()
        self.blocks = nn.ModuleList(Block(width, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.project_memory = nn.Linear(config.width, width)
        self.attend = CrossAttention(width, config.heads)
        self.regressor = KinematicRegressor(config) if config.regressor == "hscr" else ResidualRegressor(config)

    def forward(self, features: Tensor, memory: Tensor, estimate: Tensor, frames: slice) -> Tensor:
        """features (B, T, F), memory (B, kept, width), estimate (B, K, 157) of the K ``frames`` -> (B, K, 157)."""
        first = features.shape[1] // 2 - self.nearby
        tokens = self.project(features[:, first : first + 2 * self.nearby + 1])
        if self.detach:
            estimate = estimate.detach()
        frames = slice(frames.start - first, frames.stop - first)
        return self.regressor(self.attend_to_memory(tokens, memory, frames), estimate)

    def attend_to_memory(self, tokens: Tensor, memory: Tensor, frames: slice) -> Tensor:
        """Projected frames around the middle (B, 2w+1, C) and memory (B, kept, width) -> (B, K, C).

        ``frames`` selects K of the 2w+1 frames; the last block computes only these.
        """
        tokens = self.positions(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        queries = self.norm(self.blocks[-1](tokens, frames))
        return self.attend(queries, self.project_memory(memory))


class LocalRegressor(nn.Module):
    """Corrects the global estimate. The shape has a feature, the pose has a feature, and the camera uses both."""

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.local_width
        self.fc_shape = nn.Linear(width + SHAPE, hidden)
        self.fc_pose = nn.Linear(width + POSE, hidden)
        self.dropout = Dropout(config.hscr_dropout)
        self.shape = nn.Linear(hidden, SHAPE)
        self.cam = nn.Linear(2 * hidden + CAM, CAM)

    def forward(self, tokens: Tensor, estimate: Tensor) -> Tensor:
        """tokens (B, K, C), estimate (B, K, 157) -> (B, K, 157)."""
        pose, shape, cam = split_estimate(estimate)
        pose_feature = self.dropout(self.fc_pose(torch.cat((tokens, pose), dim=-1)))
        shape_feature = self.dropout(self.fc_shape(torch.cat((tokens, shape), dim=-1)))
        pose_change = self.residual(pose_feature, pose)
        cam_change = self.cam(torch.cat((pose_feature, shape_feature, cam), dim=-1))
        return estimate + torch.cat((pose_change, self.shape(shape_feature), cam_change), dim=-1)

    def residual(self, feature: Tensor, pose: Tensor) -> Tensor:
        """feature (B, K, hidden), global pose (B, K, 144) -> the change of the pose (B, K, 144)."""
        raise NotImplementedError


class ResidualRegressor(LocalRegressor):
    """Table 6's alternative: one linear layer corrects all joints at once, without the kinematic tree."""

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__(config)
        self.pose = nn.Linear(config.hidden, POSE)

    def residual(self, feature: Tensor, pose: Tensor) -> Tensor:
        """As in ``LocalRegressor``; the global pose is not used."""
        return self.pose(feature)


class KinematicRegressor(LocalRegressor):
    """HSCR (section 3.4): the correction of a joint is also a linear function of its ancestors' corrections."""

    tree_index: Tensor

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__(config)
        self.official_slices, self.hidden = config.hscr_global_pose == "official", config.hidden
        # Input of joint j: [pose feature, corrections of its ancestors from the root down, global 6D of the joint].
        self.joints = nn.ModuleList(nn.Linear(config.hidden + 6 * len(chain) + 6, 6) for chain in ANCESTORS)
        places = [
            (6 * joint + row) * POSE + 6 * ancestor + k
            for joint, chain in enumerate(ANCESTORS)
            for row in range(6)
            for ancestor in chain
            for k in range(6)
        ]
        self.register_buffer("tree_index", torch.tensor(places), persistent=False)

    def residual(self, feature: Tensor, pose: Tensor) -> Tensor:
        """As in ``LocalRegressor``, with all 24 layers at once.

        Stacked, they are y = a + L y. L is strictly lower triangular because parents come before their children.
        """
        layers = [layer for layer in self.joints if isinstance(layer, nn.Linear)]
        # One split for each layer: the gradient of a slice would be a whole layer of zeros around it.
        parts = [layer.weight.split((self.hidden, layer.in_features - self.hidden - 6, 6), dim=1) for layer in layers]
        from_feature = torch.cat([of_feature for of_feature, _, _ in parts])  # (144, hidden)
        from_pose = torch.stack([of_pose for _, _, of_pose in parts])  # (24, 6, 6)
        # The official code slices the global pose at j instead of 6 j: joint j sees numbers j to j + 5.
        joint_pose = pose.unfold(-1, 6, 1 if self.official_slices else 6)[..., :JOINTS, :]  # (B, K, 24, 6)
        alone = F.linear(feature, from_feature, torch.cat([layer.bias for layer in layers]))
        alone = alone + torch.einsum("...ji,joi->...jo", joint_pose, from_pose).flatten(-2)
        links = torch.cat([ancestors.flatten() for _, ancestors, _ in parts])
        tree = links.new_zeros(POSE * POSE).scatter(0, self.tree_index, links).view(POSE, POSE)
        # In single precision at least, under autocast too: torch's triangular solver needs it. The matrix is 144 x 144.
        dtype = torch.promote_types(alone.dtype, torch.float32)
        columns = alone.to(dtype).flatten(0, -2).T
        solved = torch.linalg.solve_triangular(-tree.to(dtype), columns, upper=False, unitriangular=True)
        return solved.T.view_as(alone)
