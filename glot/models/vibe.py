"""VIBE (Kocabas et al., CVPR 2020): features of T frames in; the bodies of all T frames out.

A recurrent network runs along the window, so a frame sees the frames before it. Training adds a discriminator of
motions (glot.models.parts.motion_discriminator). B windows, T frames, F feature size (2048), C width of the network
(1024). The names of the layers are those of the release.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from glot.model_configs import VIBEConfig
from glot.models.peer_model import PeerOutput, WholeWindowModel
from glot.models.smpl_params import SMPLParams, to_params


class VIBE(WholeWindowModel):
    """The recurrent network's result is added to each frame's own feature."""

    title = "VIBE"

    def __init__(self, config: VIBEConfig, mean: Tensor) -> None:
        super().__init__(config, mean)
        self.encoder = VIBEEncoder(config)

    def forward(self, features: Tensor) -> PeerOutput:
        """features (B, T, F) -> the bodies of all frames (B, T)."""
        params = self.bodies(features)
        return PeerOutput(params, motion=params)

    def bodies(self, features: Tensor) -> SMPLParams:
        self.check(features)
        return to_params(self.regressor(self.encoder(features), self.mean))


class VIBEEncoder(nn.Module):
    """Features in, features that know the past out."""

    def __init__(self, config: VIBEConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(config.feature_size, config.gru_width, config.gru_layers, batch_first=True)
        self.linear = nn.Linear(config.gru_width, config.feature_size)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, F)."""
        states, _ = self.gru(features)  # (B, T, C)
        found: Tensor = features + self.linear(F.relu(states))
        return found
