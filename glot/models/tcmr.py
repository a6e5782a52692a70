"""TCMR (Choi et al., CVPR 2021): features of T frames in; the body of the middle frame out.

Three recurrent networks see all frames, the frames before the middle, and the frames after it. B windows, T frames,
F feature size (2048), C width of a recurrent network (1024). The names of the layers are those of the release.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.model_configs import TCMRConfig
from glot.models.parts.frame_attention import FrameAttention
from glot.models.peer_model import MiddleFrameModel, PeerOutput
from glot.models.smpl_params import SMPLParams, to_params


class TCMR(MiddleFrameModel):
    """No frame's own feature is added to what the recurrent networks find, so that the motion has to be smooth."""

    title = "TCMR"

    def __init__(self, config: TCMRConfig, mean: Tensor) -> None:
        super().__init__(config, mean)
        self.encoder = TCMREncoder(config)

    def forward(self, features: Tensor) -> PeerOutput:
        """features (B, T, F) -> the bodies that past, future and all frames predict for the middle frame (B, 3)."""
        self.check(features)
        past, now, future = self.encoder(features)
        integrated, _ = self.encoder.attention(torch.stack((past, now, future), dim=1))
        each = torch.stack((past, future, integrated), dim=1)  # (B, 3, F); ``now`` alone is never supervised
        return PeerOutput(to_params(self.regressor(each, self.mean)))

    def bodies(self, features: Tensor) -> SMPLParams:
        self.check(features)
        integrated, _ = self.encoder.attention(torch.stack(self.encoder(features), dim=1))
        return to_params(self.regressor(integrated[:, None], self.mean))


class TCMREncoder(nn.Module):
    """What the past, all frames, and the future say of the middle frame."""

    def __init__(self, config: TCMRConfig) -> None:
        super().__init__()
        size, width, layers = config.feature_size, config.gru_width, config.gru_layers
        self.middle = config.frames // 2
        self.gru_cur = nn.GRU(size, width, layers, batch_first=True, bidirectional=True)
        self.gru_bef = nn.GRU(size, width, layers, batch_first=True)
        self.gru_aft = nn.GRU(size, width, layers, batch_first=True)
        self.linear_cur = nn.Linear(2 * width, size)
        self.linear_bef = nn.Linear(width, size)
        self.linear_aft = nn.Linear(width, size)
        self.attention = FrameAttention(size, config.attention_width)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features (B, T, F) -> past, now, future, each (B, F). The middle frame is in ``now`` alone."""
        everywhere, _ = self.gru_cur(features)  # (B, T, 2 C): forward and backward
        past, _ = self.gru_bef(features[:, : self.middle])
        future, _ = self.gru_aft(features[:, self.middle + 1 :].flip(1))  # from the last frame back to the middle
        return (
            self.linear_bef(F.relu(past[:, -1])),
            self.linear_cur(F.relu(everywhere[:, self.middle])),
            self.linear_aft(F.relu(future[:, -1])),
        )
