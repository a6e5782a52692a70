"""What every temporal model promises: windows of features in, the bodies of the frames it answers for out.

B windows, T frames, F feature size, K supervised bodies of a window, A frames that a model answers for.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from glot.models.smpl_params import SMPLParams


class TemporalModel(nn.Module, ABC):
    """A model of one of the configurations in glot.model_configs; glot.models.architectures builds it.

    Whatever reads a model (training, evaluation, prediction, checkpoints, cost) uses only this.
    """

    title: ClassVar[str]  # the name in papers, for people
    mean: Tensor  # (157,) buffer: pose 6D in SPIN's layout, betas, camera of the mean body
    config: Any  # one of glot.model_configs.ModelConfig

    @classmethod
    @abstractmethod
    def from_mean(cls, config: Any, mean: Tensor) -> "TemporalModel":
        """An untrained model that starts from the estimate ``mean`` (157,), e.g. ``other_model.mean``."""

    @property
    @abstractmethod
    def supervised_frames(self) -> tuple[int, ...]:
        """The frame (0 ... T - 1) whose labels each of the K supervised bodies is compared with."""

    @property
    @abstractmethod
    def answered_frames(self) -> range:
        """The A frames of a window that the model answers for in evaluation."""

    @abstractmethod
    def bodies(self, features: Tensor) -> SMPLParams:
        """features (B, T, F) -> the bodies of the answered frames: rotmats (B, A, 24, 3, 3), betas (B, A, 10),
        cam (B, A, 3). For a model in evaluation mode."""

    def check(self, features: Tensor) -> None:
        """ValueError for features that are not (B, T, F) of this model."""
        expected = (self.config.frames, self.config.feature_size)
        if features.ndim != 3 or features.shape[1:] != expected:
            raise ValueError(
                f"features are {tuple(features.shape)}, this model takes (B, {expected[0]}, {expected[1]})"
            )
