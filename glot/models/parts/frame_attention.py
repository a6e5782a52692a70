"""Features of a few frames in; their weighted sum out (TCMR, equation 2; MPS-Net's HAFI has the same module).

B windows, M merged frames, F feature size.
"""

import torch
from torch import Tensor, nn


class FrameAttention(nn.Module):
    """Weighs M features of a window against each other. The names of the layers are those of the release."""

    def __init__(self, feature_size: int, width: int, frames: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(feature_size, width)
        # The last tanh is in the released code; it bounds the scores before the softmax.
        self.attention = nn.Sequential(
            nn.Linear(frames * width, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, frames),
            nn.Tanh(),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features (..., M, F) -> their weighted sum (..., F), the weights (..., M)."""
        weights: Tensor = self.attention(self.fc(features).flatten(-2)).softmax(-1)
        return torch.einsum("...m,...mf->...f", weights, features), weights
