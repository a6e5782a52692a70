"""What TCMR, MPS-Net, VIBE and MEVA share: SPIN's regressor, and which frames of a window they answer for.

B windows, T frames, K supervised bodies of a window.
"""

from typing import Any, NamedTuple

from torch import Tensor

from glot.models.parts.spin_regressor import SpinRegressor
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel


class PeerOutput(NamedTuple):
    """The same fields and shapes in training and in evaluation."""

    params: SMPLParams  # (B, K, ...): the supervised bodies, see ``TemporalModel.supervised_frames``
    motion: SMPLParams | None = None  # (B, T, ...): bodies of all frames, for the motion discriminator


class PeerModel(TemporalModel):
    """A model with SPIN's regressor. ``mean`` (157,): the mean body."""

    def __init__(self, config: Any, mean: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", mean.detach().float().clone())
        self.regressor = SpinRegressor(config)

    @classmethod
    def from_mean(cls, config: Any, mean: Tensor) -> "PeerModel":
        return cls(config, mean)


class MiddleFrameModel(PeerModel):
    """Answers for the middle frame, and is supervised on three bodies of it."""

    @property
    def middle(self) -> int:
        """The frame that the model answers for."""
        return int(self.config.frames) // 2

    @property
    def supervised_frames(self) -> tuple[int, ...]:
        return (self.middle,) * 3

    @property
    def answered_frames(self) -> range:
        return range(self.middle, self.middle + 1)


class WholeWindowModel(PeerModel):
    """Answers for all frames of a window, and is supervised on all of them."""

    @property
    def supervised_frames(self) -> tuple[int, ...]:
        return tuple(range(self.config.frames))

    @property
    def answered_frames(self) -> range:
        return range(self.config.frames)
