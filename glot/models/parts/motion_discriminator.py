"""Motions in; a number for each out, near 1 where the discriminator takes it for real (VIBE, section 3.2).

B motions, T frames. The names of the layers are those of the releases of VIBE and MPS-Net.
"""

from torch import Tensor, nn

from glot.config import DiscriminatorConfig
from glot.human.joints import JOINTS

BODY_POSE = 3 * (JOINTS - 1)  # axis-angles of all joints but the root


class MotionDiscriminator(nn.Module):
    """A recurrent network along the motion, and attention that weighs its frames."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(BODY_POSE, config.width, 2, batch_first=True)
        self.attention = FrameWeights(config.width, config.dropout)
        self.fc = nn.Linear(config.width, 1)

    def forward(self, body_pose: Tensor) -> Tensor:
        """Axis-angles of joints 1 ... 23 (B, T, 69), rad -> (B, 1)."""
        states, _ = self.gru(body_pose)  # (B, T, C)
        weights = self.attention(states).softmax(1)  # (B, T, 1)
        judged: Tensor = self.fc((weights * states).sum(1))
        return judged


class FrameWeights(nn.Module):
    """The score of each frame's state. The release has dropout on the score, too; kept."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in (width, width, 1):
            layers += [nn.Linear(width, size), nn.Tanh(), nn.Dropout(dropout)]
        self.attention = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -0.1, 0.1)
                nn.init.constant_(layer.bias, 0.01)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, 1)."""
        scores: Tensor = self.attention(states)
        return scores
