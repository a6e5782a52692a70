"""GLoT (CVPR 2023): features of T frames in, SMPL parameters of all and refined ones of the middle frames out.

Shapes: B batch, T frames, F feature size, C width. Dropouts and drop-paths sit where the official code has them; its
dead layers (fc2 of the iterative regressor, two heads of the kinematic one) are left out.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.config import ModelConfig
from glot.human.joints import SMPL_PARENTS
from glot.human.rotation import rot6d_to_rotmat

POSE, SHAPE, CAM = 144, 10, 3  # 24 joints x 6D, betas, weak-perspective camera
ESTIMATE = POSE + SHAPE + CAM
EVERY = slice(None)


class SMPLParams(NamedTuple):
    """K frames a sample; without the K axis where a function says so."""

    rotmats: Tensor  # (B, K, 24, 3, 3), each relative to its parent joint; the first is the global orientation
    betas: Tensor  # (B, K, 10)
    cam: Tensor  # (B, K, 3): s, tx, ty of the crop


class GLoTOutput(NamedTuple):
    global_: SMPLParams  # K = T
    local: SMPLParams  # K = config.local_supervised_frames, centred on T // 2
    mask: Tensor  # (B, T) bool, True where the frame was hidden from the encoder; all False in evaluation
    has_local: bool = True  # False: there is no local branch, ``local`` repeats the global frames


class GLoT(nn.Module):
    """Global motion modelling (paper section 3.2) and local parameter correction (3.3, 3.4)."""

    mean: Tensor

    def __init__(self, config: ModelConfig, *, mean_pose: Tensor, mean_shape: Tensor, mean_cam: Tensor) -> None:
        super().__init__()
        self.config = config
        mean = torch.cat((mean_pose.flatten(), mean_shape.flatten(), mean_cam.flatten()))
        self.register_buffer("mean", mean.detach().float().clone())  # (157,): pose 6D, betas, cam
        self.motion = GlobalMotion(config)
        self.iterative = IterativeRegressor(config)
        self.correction = LocalCorrection(config) if config.modules == "gmm+lpc" else None
        half = config.local_supervised_frames // 2
        self.middle_frames = slice(config.frames // 2 - half, config.frames // 2 + half + 1)
        self.apply(_initialise)

    def forward(self, features: Tensor, mask_noise: Tensor | None = None) -> GLoTOutput:
        """features (B, T, F). In training the frames with the largest noise (B, T; drawn if not given) are hidden.

        The same fields with the same shapes come back in training and in evaluation.
        """
        self._check(features)
        memory, hidden, mask = self.motion(features, self.mean, mask_noise)
        estimate = self.iterative(hidden, self.mean, self.motion.widen)  # (B, T, 157)
        middle = estimate[:, self.middle_frames]
        refined = middle if self.correction is None else self.correction(features, memory, middle, self.middle_frames)
        return GLoTOutput(to_params(estimate), to_params(refined), mask, self.correction is not None)

    def middle(self, output: GLoTOutput) -> SMPLParams:
        """The one prediction a window is used for: its frame T // 2 of the local branch, (B, 24, 3, 3) and so on."""
        return _frame(output.local, self.config.local_supervised_frames // 2)

    def _check(self, features: Tensor) -> None:
        expected = (self.config.frames, self.config.feature_size)
        if features.ndim != 3 or features.shape[1:] != expected:
            raise ValueError(
                f"features are {tuple(features.shape)}, this model takes (B, {expected[0]}, {expected[1]})"
            )


class GlobalMotion(nn.Module):
    """Masked encoder and decoder over the whole window: features (B, T, F) -> memory (B, kept, C), hidden (B, T,
    decoder_width), mask (B, T). ``widen`` belongs behind it; the iterative regressor applies it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        frames, width, narrow = config.frames, config.width, config.decoder_width
        self.kept = int(frames * (1 - config.mask_ratio))
        self.project = nn.Linear(config.feature_size, width)
        self.positions = Positions(config, frames, width)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(Block(width, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.narrow = nn.Linear(width, narrow)
        # A model that never masks has no token: every parameter takes part in every training step, as DDP wants it.
        if self.kept < frames:
            self.token = SMPLToken(narrow) if config.mask_token == "smpl" else LearnableToken(narrow)
        self.decoder_positions = Positions(config, frames, narrow)
        self.decoder_blocks = nn.ModuleList(Block(narrow, config, 0.0) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(narrow, eps=1e-6)
        self.widen = nn.Linear(narrow, config.feature_size)

    def forward(self, features: Tensor, mean: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        batch, frames = features.shape[:2]
        mask = torch.zeros(batch, frames, dtype=torch.bool, device=features.device)
        masking = self.training and self.kept < frames
        if masking:
            if noise is None:
                noise = torch.rand(batch, frames, device=features.device)
            keep, mask = self.choose(noise)
            # Projected after the choice: hidden frames need no projection.
            kept = features.gather(1, keep[..., None].expand(-1, -1, features.shape[-1]))
            tokens = self.project(kept) + self.positions.vectors[0, keep]  # (B, kept, C)
        else:
            tokens = self.positions(self.project(features))  # (B, T, C)
        memory = self.remember(tokens)
        hidden = self.narrow(memory)
        if masking:
            filled = self.token(mean).to(hidden.dtype).expand(batch, frames, -1)
            hidden = filled.scatter(1, keep[..., None].expand_as(hidden), hidden)
        hidden = self.decoder_positions(hidden)
        for block in self.decoder_blocks:
            hidden = block(hidden)
        return memory, self.decoder_norm(hidden), mask

    def choose(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """noise (B, T) -> which frames stay (B, kept), and the mask (B, T) of the others."""
        keep = noise.argsort(dim=1)[:, : self.kept]
        return keep, torch.ones_like(noise, dtype=torch.bool).scatter(1, keep, False)

    def remember(self, tokens: Tensor) -> Tensor:
        """The encoder behind projection and positions: (B, kept, C) -> the memory (B, kept, C)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class SMPLToken(nn.Module):
    """What stands in for a hidden frame: a function of the mean body (157 numbers), the same for every frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(ESTIMATE, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, width)
        )

    def forward(self, mean: Tensor) -> Tensor:
        return self.mlp(mean)


class LearnableToken(nn.Module):
    """MAE's mask token (Table 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, mean: Tensor) -> Tensor:
        return self.vector


class LocalCorrection(nn.Module):
    """Attends from the frames around the middle to the global memory, then corrects the global estimate."""

    def __init__(self, config: ModelConfig) -> None:
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
        """features (B, T, F), memory (B, kept, C), estimate (B, K, 157) of the K ``frames`` -> (B, K, 157)."""
        first = features.shape[1] // 2 - self.nearby
        tokens = self.project(features[:, first : first + 2 * self.nearby + 1])
        if self.detach:
            estimate = estimate.detach()
        frames = slice(frames.start - first, frames.stop - first)
        return self.regressor(self.look(tokens, memory, frames), estimate)

    def look(self, tokens: Tensor, memory: Tensor, frames: slice) -> Tensor:
        """Projected frames around the middle (B, 2w+1, C) -> what the K ``frames`` among them find in memory (B, K, C).

        The last block answers for these frames only.
        """
        tokens = self.positions(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        queries = self.norm(self.blocks[-1](tokens, frames))
        return self.attend(queries, self.project_memory(memory))


class IterativeRegressor(nn.Module):
    """HMR's: from the mean body, three times add a linear function of the feature and of the estimate so far."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.fc1 = nn.Linear(config.feature_size + ESTIMATE, config.hidden)
        self.dropout = nn.Dropout(config.regressor_dropout)
        self.pose = nn.Linear(config.hidden, POSE)
        self.shape = nn.Linear(config.hidden, SHAPE)
        self.cam = nn.Linear(config.hidden, CAM)

    def forward(self, hidden: Tensor, mean: Tensor, widen: nn.Linear) -> Tensor:
        """hidden (B, T, C), of which ``widen`` makes features (B, T, F) -> (B, T, 157)."""
        # The same sums as one fc1 over [feature, estimate]: the feature's part does not change between iterations, and
        # nothing but sums lies between ``widen`` and fc1, so the two are one layer, a quarter of the work.
        from_feature = self.fc1.weight[:, :-ESTIMATE]
        bias = self.fc1.bias + from_feature @ widen.bias
        constant = F.linear(hidden, from_feature @ widen.weight, bias)
        weight = torch.cat((self.pose.weight, self.shape.weight, self.cam.weight))
        bias = torch.cat((self.pose.bias, self.shape.bias, self.cam.bias))
        estimate = mean.expand(*hidden.shape[:-1], ESTIMATE)
        for _ in range(self.iterations):
            said = self.dropout(constant + F.linear(estimate, self.fc1.weight[:, -ESTIMATE:]))
            estimate = estimate + F.linear(said, weight, bias)
        return estimate


class LocalRegressor(nn.Module):
    """Corrects the global estimate: one feature for the shape, one for the pose, the camera from both."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.local_width
        self.fc_shape = nn.Linear(width + SHAPE, hidden)
        self.fc_pose = nn.Linear(width + POSE, hidden)
        self.dropout = nn.Dropout(config.hscr_dropout)
        self.shape = nn.Linear(hidden, SHAPE)
        self.cam = nn.Linear(2 * hidden + CAM, CAM)

    def forward(self, tokens: Tensor, estimate: Tensor) -> Tensor:
        """tokens (B, K, C), estimate (B, K, 157) -> (B, K, 157)."""
        pose, shape, cam = estimate.split((POSE, SHAPE, CAM), dim=-1)
        pose_feature = self.dropout(self.fc_pose(torch.cat((tokens, pose), dim=-1)))
        shape_feature = self.dropout(self.fc_shape(torch.cat((tokens, shape), dim=-1)))
        turn = self.residual(pose_feature, pose)
        move = self.cam(torch.cat((pose_feature, shape_feature, cam), dim=-1))
        return estimate + torch.cat((turn, self.shape(shape_feature), move), dim=-1)

    def residual(self, feature: Tensor, pose: Tensor) -> Tensor:
        """feature (B, K, hidden), global pose (B, K, 144) -> what to add to the pose (B, K, 144)."""
        raise NotImplementedError


class ResidualRegressor(LocalRegressor):
    """Table 6's alternative: one linear layer corrects all joints at once, without the kinematic tree."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pose = nn.Linear(config.hidden, POSE)

    def residual(self, feature: Tensor, pose: Tensor) -> Tensor:
        return self.pose(feature)


class KinematicRegressor(LocalRegressor):
    """HSCR (section 3.4): a joint's correction is a linear function of those of its ancestors, too."""

    tree_index: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.official_slices, self.hidden = config.hscr_global_pose == "official", config.hidden
        # Input of joint j: [pose feature, residuals of its ancestors from the root down, global 6D of the joint].
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
        """All 24 layers at once: stacked, they say y = a + L y, where L is strictly lower triangular because parents
        come before their children."""
        layers = [layer for layer in self.joints if isinstance(layer, nn.Linear)]
        from_feature = torch.cat([layer.weight[:, : self.hidden] for layer in layers])  # (144, hidden)
        from_pose = torch.stack([layer.weight[:, -6:] for layer in layers])  # (24, 6, 6)
        # The official code slices the global pose at j instead of 6 j: joint j sees numbers j to j + 5.
        own = pose.unfold(-1, 6, 1 if self.official_slices else 6)[..., :24, :]  # (B, K, 24, 6)
        alone = F.linear(feature, from_feature, torch.cat([layer.bias for layer in layers]))
        alone = alone + torch.einsum("...ji,joi->...jo", own, from_pose).flatten(-2)
        links = torch.cat([layer.weight[:, self.hidden : -6].flatten() for layer in layers])
        tree = links.new_zeros(POSE * POSE).scatter(0, self.tree_index, links).view(POSE, POSE)
        # At least in single precision, under autocast too: there is no other triangular solver, and it is 144 x 144.
        dtype = torch.promote_types(alone.dtype, torch.float32)
        columns = alone.to(dtype).flatten(0, -2).T
        solved = torch.linalg.solve_triangular(-tree.to(dtype), columns, upper=False, unitriangular=True)
        return solved.T.view_as(alone)


class Positions(nn.Module):
    """Adds a vector for the place in the window: learned (paper), or the fixed sines of Vaswani et al. (Table 9)."""

    vectors: Tensor

    def __init__(self, config: ModelConfig, length: int, width: int) -> None:
        super().__init__()
        if config.positions == "learned":
            self.vectors = nn.Parameter(torch.randn(1, length, width) * 0.02)
            return
        rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(length)[:, None] * rates
        vectors = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.vectors


class Block(nn.Module):
    """Pre-norm transformer block with dropout after both projections and drop-path on both branches."""

    def __init__(self, width: int, config: ModelConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, width * config.mlp_ratio)
        self.fc2 = nn.Linear(width * config.mlp_ratio, width)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, only: slice = EVERY) -> Tensor:
        """tokens (B, N, C) -> those ``only`` (B, K, C); the others are looked at all the same."""
        tokens = tokens[:, only] + self.drop_path(self.dropout(self.attn(self.norm1(tokens), only)))
        hidden = self.dropout(F.gelu(self.fc1(self.norm2(tokens))))
        return tokens + self.drop_path(self.dropout(self.fc2(hidden)))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, only: slice = EVERY) -> Tensor:
        """tokens (B, N, C) -> (B, K, C) for those that ask."""
        if only == EVERY:
            queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            width = tokens.shape[-1]
            asking = F.linear(tokens[:, only], self.qkv.weight[:width], self.qkv.bias[:width])
            queries = asking.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            rest = F.linear(tokens, self.qkv.weight[width:], self.qkv.bias[width:])
            keys, values = rest.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(-2))


class CrossAttention(nn.Module):
    """Bare, as in the official code: no residual, no norm, no feed-forward, no dropout; only ``proj`` has a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        queries = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(-2))


class DropPath(nn.Module):
    """Leaves a sample's branch out altogether with probability ``rate``, scales the others up (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        return branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)


def to_params(estimate: Tensor) -> SMPLParams:
    """(B, K, 157) -> rotation matrices, betas and cam of every frame, in single precision."""
    pose, betas, cam = estimate.float().split((POSE, SHAPE, CAM), dim=-1)
    return SMPLParams(rot6d_to_rotmat(pose.unflatten(-1, (24, 6))), betas, cam)


def _frame(params: SMPLParams, index: int) -> SMPLParams:
    return SMPLParams(*(values[:, index] for values in params))


def _ancestors() -> list[list[int]]:
    """Of every joint, from the root down; the root has none."""
    chains: list[list[int]] = [[]]
    for parent in SMPL_PARENTS[1:]:
        chains.append([*chains[parent], parent])
    return chains


ANCESTORS = _ancestors()


SMALL_GAIN = 0.01  # SPIN's, for layers whose output is added to an estimate


def _initialise(module: nn.Module) -> None:
    """Xavier uniform for every linear layer, and small where its output corrects an estimate of the body.

    The official code draws those with gain 1, too: its untrained model is then far from the mean body it starts from,
    cameras with a scale near zero included, and only the pretrained SPIN regressor it loads afterwards saves the first
    epochs. With small corrections, training starts at the mean body with any features.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, (IterativeRegressor, LocalRegressor)):
        heads = [
            layer for name, layer in module.named_modules() if name.split(".")[0] in ("pose", "shape", "cam", "joints")
        ]
        for head in heads:
            if isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight, gain=SMALL_GAIN)
