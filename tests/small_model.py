"""A GLoT of a few thousand weights for tests, and batches for it."""

from dataclasses import replace

import torch
from torch import Tensor

from glot.config import ModelConfig
from glot.losses import Targets
from glot.model import GLoT, GLoTOutput
from glot.rotation import axis_angle_to_rotmat, rotmat_to_rot6d

SMALL = ModelConfig(
    feature_size=40,
    frames=8,
    nearby_frames=2,
    width=32,
    heads=4,
    decoder_width=16,
    local_width=16,
    hidden=24,
)
EXACT = replace(SMALL, dropout=0, drop_path=0, regressor_dropout=0, hscr_dropout=0)


def small_model(config: ModelConfig = SMALL, *, seed: int = 0) -> GLoT:
    torch.manual_seed(seed)
    pose = rotmat_to_rot6d(axis_angle_to_rotmat(torch.randn(24, 3) * 0.1)).flatten()
    return GLoT(config, mean_pose=pose, mean_shape=torch.randn(10) * 0.1, mean_cam=torch.tensor([0.9, 0.0, 0.0]))


def features(config: ModelConfig = SMALL, *, batch: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, config.frames, config.feature_size, generator=torch.Generator().manual_seed(seed))


def random_targets(batch: int = 3, frames: int = 8, *, seed: int = 2) -> Targets:
    """Made-up targets; the first window is a 2D item."""
    g = torch.Generator().manual_seed(seed)
    return Targets(
        keypoints2d=torch.rand(batch, frames, 49, 3, generator=g),
        joints3d=torch.randn(batch, frames, 49, 3, generator=g),
        rotmats=axis_angle_to_rotmat(torch.randn(batch, frames, 24, 3, generator=g)),
        betas=torch.randn(batch, frames, 10, generator=g),
        w_3d=torch.ones(batch, frames),
        w_smpl=torch.ones(batch, frames),
        is_3d=torch.arange(batch) >= 1,
    )


def tensors(output: GLoTOutput) -> list[Tensor]:
    return [*output.global_, *output.local, output.mask]
