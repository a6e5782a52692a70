"""Features of a window in; the global branch's memory, decoder states of all frames and their first estimate out.

Paper section 3.2, masked global motion modelling. B batch, T frames, F feature size, C width of the encoder. Masked
frames are also called hidden frames. The official iterative regressor has a layer fc2 that no output depends on; it is
left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.model_configs import GLoTConfig
from glot.models.parts.blocks import Block, Dropout, Positions
from glot.models.smpl_params import CAM, ESTIMATE, POSE, SHAPE


class GlobalMotion(nn.Module):
    """Masked encoder and decoder over the whole window.

    ``widen`` is the layer after the decoder; ``IterativeRegressor`` applies it.
    """

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__()
        frames, width, narrow = config.frames, config.width, config.decoder_width
        self.kept = int(frames * (1 - config.mask_ratio))
        self.project = nn.Linear(config.feature_size, width)
        self.positions = Positions(config, frames, width)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(Block(width, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.narrow = nn.Linear(width, narrow)
        # A model that never masks has no token: DDP needs a gradient for every parameter in every training step.
        if self.kept < frames:
            self.token = SMPLToken(narrow) if config.mask_token == "smpl" else LearnableToken(narrow)
        self.decoder_positions = Positions(config, frames, narrow)
        self.decoder_blocks = nn.ModuleList(Block(narrow, config, 0.0) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(narrow, eps=1e-6)
        self.widen = nn.Linear(narrow, config.feature_size)

    def forward(
        self, features: Tensor, mean: Tensor, mask_noise: Tensor | None, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """features (B, T, F) -> memory (B, kept, C), states (B, T, decoder_width), mask (B, T): True for masked frames.

        The mask token is computed from ``mean`` (157,). In training, ``mask_noise`` (B, T) decides which frames are
        masked (see ``choose``); random noise is drawn if it is None. In evaluation no frame is masked, and kept = T.
        With ``rows`` (R,), only the states (R, decoder_width) of these frames are returned, of the B x T frames.
        """
        batch, frames = features.shape[:2]
        mask = torch.zeros(batch, frames, dtype=torch.bool, device=features.device)
        masking = self.training and self.kept < frames
        if masking:
            if mask_noise is None:
                mask_noise = torch.rand(batch, frames, device=features.device)
            keep, mask = self.choose(mask_noise)
            # Frames are projected after the choice, because masked frames need no projection.
            kept = features.gather(1, keep[..., None].expand(-1, -1, features.shape[-1]))
            tokens = self.project(kept) + self.positions.vectors[0, keep]  # (B, kept, C)
        else:
            tokens = self.positions(self.project(features))  # (B, T, C)
        memory = self.encode(tokens)
        states = self.narrow(memory)
        if masking:
            filled = self.token(mean).to(states.dtype).expand(batch, frames, -1)
            states = filled.scatter(1, keep[..., None].expand_as(states), states)
        states = self.decoder_positions(states)
        for block in self.decoder_blocks[:-1]:
            states = block(states)
        last = self.decoder_blocks[-1]
        assert isinstance(last, Block)
        states = last.attend(states)
        if rows is not None:
            states = states.flatten(0, 1).index_select(0, rows)
        return memory, self.decoder_norm(last.transform(states)), mask

    def choose(self, mask_noise: Tensor) -> tuple[Tensor, Tensor]:
        """mask_noise (B, T) -> the frames with the least noise, which are kept (B, kept), and the mask (B, T)."""
        keep = mask_noise.argsort(dim=1)[:, : self.kept]
        return keep, torch.ones_like(mask_noise, dtype=torch.bool).scatter(1, keep, False)

    def encode(self, tokens: Tensor) -> Tensor:
        """Projected features with their positions (B, kept, C) -> the memory (B, kept, C)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class SMPLToken(nn.Module):
    """The mask token of the paper: a function of the mean body (157,), the same for every hidden frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(ESTIMATE, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, width)
        )

    def forward(self, mean: Tensor) -> Tensor:
        """mean (157,) -> (width,)."""
        return self.mlp(mean)


class LearnableToken(nn.Module):
    """MAE's mask token (Table 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, mean: Tensor) -> Tensor:
        """mean (157,), not used -> (width,)."""
        return self.vector


class IterativeRegressor(nn.Module):
    """HMR's regressor: starts at the mean body and adds, three times, a linear function of feature and estimate."""

    def __init__(self, config: GLoTConfig) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.fc1 = nn.Linear(config.feature_size + ESTIMATE, config.hidden)
        self.dropout = Dropout(config.regressor_dropout)
        self.pose = nn.Linear(config.hidden, POSE)
        self.shape = nn.Linear(config.hidden, SHAPE)
        self.cam = nn.Linear(config.hidden, CAM)

    def forward(self, states: Tensor, mean: Tensor, widen: nn.Linear) -> Tensor:
        """states (..., decoder_width), which ``widen`` turns into features (..., F) -> estimates (..., 157)."""
        # The result is that of fc1 over [widen(states), estimate]. The feature's part of fc1 is computed once, because
        # it does not change between iterations. ``widen`` and this part are both linear, so they are merged into one
        # layer, which takes a quarter of the time.
        from_feature, from_estimate = self.fc1.weight.split((self.fc1.in_features - ESTIMATE, ESTIMATE), dim=1)
        merged = from_feature @ torch.cat((widen.weight, widen.bias[:, None]), dim=1)
        on_states, on_one = merged.split((widen.in_features, 1), dim=1)
        constant = F.linear(states, on_states, self.fc1.bias + on_one.squeeze(1))
        weight = torch.cat((self.pose.weight, self.shape.weight, self.cam.weight))
        bias = torch.cat((self.pose.bias, self.shape.bias, self.cam.bias))
        estimate = mean  # the same for every frame
        for _ in range(self.iterations):
            update = self.dropout(constant + F.linear(estimate, from_estimate))
            estimate = estimate + F.linear(update, weight, bias)
        return estimate
