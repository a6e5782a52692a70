"""MEVA (Luo et al., ACCV 2020): features of T frames in; the bodies of all T frames out.

One vector describes the motion of the window. A decoder, trained before on real motions and frozen here, makes a coarse
motion of it. The regressor corrects its pose frame by frame. B windows, T frames, F feature size (2048), Z numbers of
the vector (512). The names of the layers are those of the release.

Poses inside are 6D in MEVA's layout: of each joint, the first column of its matrix, then the second. SPIN's regressor
weights fit after ``spin_to_meva``.
"""

import torch
from torch import Tensor, nn

from glot.human.joints import JOINTS
from glot.model_configs import MEVAConfig
from glot.models.parts.motion_vae import MotionVAE
from glot.models.peer_model import PeerOutput, WholeWindowModel
from glot.models.smpl_params import POSE, SMPLParams, to_params


class MEVA(WholeWindowModel):
    """Without a trained motion VAE (``python -m glot.train_vae``), the coarse motion comes from random weights."""

    title = "MEVA"

    def __init__(self, config: MEVAConfig, mean: Tensor) -> None:
        super().__init__(config, mean)
        self.vae_model = MotionVAE(config.variant, latent=config.latent, hidden=config.vae_hidden)
        self.feat_encoder = RecurrentEncoder(config, width=config.gru_width, out=config.feature_size)
        self.motion_encoder = RecurrentEncoder(config, width=config.motion_width, out=config.latent)
        self.vae_init_mlp = nn.Sequential(
            nn.Linear(config.latent, config.first_pose_hidden), nn.Tanh(), nn.Linear(config.first_pose_hidden, POSE)
        )
        self.vae_model.requires_grad_(False)
        if config.variant == "latent_only":  # the release has these layers, and does not use them
            self.vae_init_mlp.requires_grad_(False)

    def forward(self, features: Tensor) -> PeerOutput:
        """features (B, T, F) -> the bodies of all frames (B, T)."""
        return PeerOutput(self.bodies(features))

    def bodies(self, features: Tensor) -> SMPLParams:
        self.check(features)
        states, latent = self.encode(features)
        coarse = self.coarse_pose(latent)
        first = torch.cat((coarse, self.mean[POSE:].expand(*coarse.shape[:2], -1)), dim=-1)
        pose, rest = self.regressor(states, first).tensor_split((POSE,), dim=-1)
        return to_params(torch.cat((meva_to_spin(pose), rest), dim=-1))

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F) -> features that know the window (B, T, F), and the vectors of its motion (B, Z)."""
        states = features + self.feat_encoder(features)
        return states, self.motion_encoder(states).mean(1)

    def coarse_pose(self, latent: Tensor) -> Tensor:
        """The vectors of motions (B, Z) -> their poses (B, T, 144), 6D in MEVA's layout."""
        from_decoder = self.config.variant == "latent_only"
        first = self.vae_model.first_pose(latent) if from_decoder else self.vae_init_mlp(latent)
        poses: Tensor = self.vae_model.decode(latent, first, self.config.frames)
        return poses


class RecurrentEncoder(nn.Module):
    """A recurrent network along a window, in both directions, and a linear layer: (B, T, F) -> (B, T, ``out``)."""

    def __init__(self, config: MEVAConfig, *, width: int, out: int) -> None:
        super().__init__()
        self.gru = nn.GRU(config.feature_size, width, config.gru_layers, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * width, out)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, out)."""
        found: Tensor = self.linear(self.gru(features)[0].tanh())
        return found


def meva_to_spin(pose: Tensor) -> Tensor:
    """(..., 144) in MEVA's layout -> (..., 144) in SPIN's."""
    return pose.unflatten(-1, (JOINTS, 2, 3)).transpose(-1, -2).flatten(-3)


def spin_to_meva(pose: Tensor) -> Tensor:
    """The inverse of ``meva_to_spin``."""
    return pose.unflatten(-1, (JOINTS, 3, 2)).transpose(-1, -2).flatten(-3)
