"""MPS-Net (Wei et al., CVPR 2022): features of T frames in; the body of the middle frame out.

MoCA: attention between frames that also knows how similar their features are. HAFI: nine frames around the middle are
merged by threes, twice. B windows, T frames, F feature size (2048). The names of the layers are those of the release.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.model_configs import MPSNetConfig
from glot.models.parts.frame_attention import FrameAttention
from glot.models.peer_model import MiddleFrameModel, PeerOutput
from glot.models.smpl_params import SMPLParams, to_params

MERGED = 9  # frames that HAFI merges
OFFICIAL_MIDDLE = 8  # the frame that the release predicts, whatever T is


class MPSNet(MiddleFrameModel):
    """Where the released code differs from the paper, this model does what the paper says (see MPSNetConfig)."""

    title = "MPS-Net"

    def __init__(self, config: MPSNetConfig, mean: Tensor) -> None:
        super().__init__(config, mean)
        self.nonlocalblock = MoCA(config)
        if config.encoder == "official":
            self.nonlocalblock.requires_grad_(False)

    @property
    def middle(self) -> int:
        """The frame that HAFI answers for."""
        return OFFICIAL_MIDDLE if self.config.hafi_frames == "official" else self.config.frames // 2

    def forward(self, features: Tensor, motion: bool = False) -> PeerOutput:
        """features (B, T, F) -> three bodies of the middle frame (B, 3), each with a dropout of its own.

        With ``motion``, also the bodies of all frames, from MoCA's features alone. The discriminator sees them.
        """
        self.check(features)
        states = self.nonlocalblock(features)
        merged = self.merge(states)[0][:, None].expand(-1, 3, -1)
        params = to_params(self.regressor(merged, self.mean))
        return PeerOutput(params, self._motion(states) if motion else None)

    def bodies(self, features: Tensor) -> SMPLParams:
        self.check(features)
        merged, _ = self.merge(self.nonlocalblock(features))
        return to_params(self.regressor(merged[:, None], self.mean))

    def merge(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """HAFI: MoCA's features (B, T, F) -> those of the middle frame (B, F), the weights of the last level (B, 3)."""
        first = self.middle - MERGED // 2
        threes = states[:, first : first + MERGED].unflatten(1, (3, 3))  # past, current, future: (B, 3, 3, F)
        merged, _ = self.nonlocalblock.attention(threes)
        found: tuple[Tensor, Tensor] = self.nonlocalblock.attention(merged)
        return found

    def _motion(self, states: Tensor) -> SMPLParams:
        if self.config.discriminator_input == "official":
            # The release holds (B, F, T) and views it as (B T, F), which mixes frames and numbers.
            states = states.mT.reshape(states.shape)
        return to_params(self.regressor(states, self.mean))


class MoCA(nn.Module):
    """Motion continuity attention (equation 3). The layers are convolutions over single frames without a bias."""

    def __init__(self, config: MPSNetConfig) -> None:
        super().__init__()
        size, width = config.feature_size, config.feature_size // 2
        self.similarities = config.similarities
        self.conv_phi = nn.Conv1d(size, width, 1, bias=False)
        self.conv_theta = nn.Conv1d(size, width, 1, bias=False)
        self.conv_g = nn.Conv1d(size, width, 1, bias=False)
        self.conv_mask = nn.Conv1d(width, size, 1, bias=False)
        self.conv_mask_forR = nn.Conv2d(2, 1, 1, bias=False)
        self.attention = FrameAttention(size, config.attention_width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, F)."""
        phi, theta, g = (_frame_by_frame(features, conv) for conv in (self.conv_phi, self.conv_theta, self.conv_g))
        # No scaling and no normalisation: with features of real frames, a frame resembles nearly only itself.
        resemblance = (features @ features.mT).softmax(-1)  # (B, T, T)
        learned = (theta @ phi.mT).softmax(-1)
        weights = self.weigh(resemblance, learned).softmax(-1)
        return features + _frame_by_frame(weights @ g, self.conv_mask)

    def weigh(self, resemblance: Tensor, learned: Tensor) -> Tensor:
        """The weighted sum of two similarities of frames, each (B, T, T) -> (B, T, T)."""
        if self.similarities == "official":
            # The release reshapes the list of all B + B similarities to (B, 2, T, T): window i gets the entries 2i and
            # 2i + 1, which belong to other windows. Right only for a batch of one.
            pairs = torch.cat((resemblance, learned)).unflatten(0, (-1, 2))
        else:
            pairs = torch.stack((resemblance, learned), dim=1)
        weighted: Tensor = self.conv_mask_forR(pairs).squeeze(1)
        return weighted


def _frame_by_frame(features: Tensor, conv: nn.Conv1d) -> Tensor:
    """(B, T, in) -> (B, T, out)."""
    return F.linear(features, conv.weight.squeeze(-1))
