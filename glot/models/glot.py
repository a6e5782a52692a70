"""GLoT (CVPR 2023): features of T frames in; SMPL parameters of all frames, and refined ones of the middle frames, out.

Shapes: B batch, T frames, F feature size. The global branch is in glot.models.parts.global_branch, the local one in
glot.models.parts.local_branch.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glot.model_configs import GLoTConfig
from glot.models.parts.global_branch import GlobalMotion, IterativeRegressor
from glot.models.parts.local_branch import LocalCorrection, LocalRegressor
from glot.models.smpl_params import SMPLParams, split_estimate, to_params
from glot.models.temporal_model import TemporalModel

SMALL_GAIN = 0.01  # gain of the initial weights of layers whose output is added to an estimate, as in SPIN


class GLoTOutput(NamedTuple):
    """The same fields and shapes in training and in evaluation."""

    global_: SMPLParams  # of all frames: K = T
    local: SMPLParams  # of the frames around T // 2: K = config.local_supervised_frames
    mask: Tensor  # (B, T) bool, True where the frame was hidden from the encoder; all False in evaluation
    has_local: bool = True  # False: the model has no local branch, and ``local`` repeats the global estimate


class GLoT(TemporalModel):
    """Global motion modelling (paper section 3.2) and local parameter correction (3.3, 3.4)."""

    title = "GLoT"

    def __init__(self, config: GLoTConfig, *, mean_pose: Tensor, mean_shape: Tensor, mean_cam: Tensor) -> None:
        super().__init__()
        self.config = config
        mean = torch.cat((mean_pose.flatten(), mean_shape.flatten(), mean_cam.flatten()))
        self.register_buffer("mean", mean.detach().float().clone())  # (157,): pose 6D, betas, cam
        self.motion = GlobalMotion(config)
        self.iterative = IterativeRegressor(config)
        self.correction = LocalCorrection(config) if config.modules == "gmm+lpc" else None
        half = config.local_supervised_frames // 2
        self.middle_frames = slice(config.frames // 2 - half, config.frames // 2 + half + 1)
        self.apply(partial(_initialise, gain=SMALL_GAIN if config.first_corrections == "small" else 1.0))

    @classmethod
    def from_mean(cls, config: GLoTConfig, mean: Tensor) -> "GLoT":
        """An untrained model that starts from the estimate ``mean`` (157,), e.g. ``other_model.mean``."""
        pose, shape, cam = split_estimate(mean)
        return cls(config, mean_pose=pose, mean_shape=shape, mean_cam=cam)

    def forward(self, features: Tensor, mask_noise: Tensor | None = None, needed: Tensor | None = None) -> GLoTOutput:
        """features (B, T, F) -> GLoTOutput. ValueError for features of another shape.

        In training, the frames with the largest ``mask_noise`` (B, T) are hidden from the encoder. Random noise is
        drawn if it is None. ``needed`` (B, T) bool saves time: the global estimate of other frames is the mean body,
        without a gradient. The frames of ``output.local`` are needed in any case.
        """
        self.check(features)
        rows = None if needed is None else self._rows(needed)
        memory, states, mask = self.motion(features, self.mean, mask_noise, rows)
        estimate = self.iterative(states, self.mean, self.motion.widen)  # (B, T, 157), or (R, 157)
        if rows is not None:
            everywhere = self.mean.to(estimate.dtype).expand(mask.numel(), -1)
            estimate = everywhere.index_copy(0, rows, estimate).unflatten(0, mask.shape)
        middle = estimate[:, self.middle_frames]
        refined = middle if self.correction is None else self.correction(features, memory, middle, self.middle_frames)
        return GLoTOutput(to_params(estimate), to_params(refined), mask, self.correction is not None)

    def _rows(self, needed: Tensor) -> Tensor:
        """(R,): which of the B x T frames are needed, the middle ones included."""
        needed = needed.clone()
        needed[:, self.middle_frames] = True
        return needed.flatten().nonzero().squeeze(1)

    @property
    def supervised_frames(self) -> tuple[int, ...]:
        """All frames by the global branch, and the middle ones by the local branch."""
        return (*range(self.config.frames), *range(self.middle_frames.start, self.middle_frames.stop))

    @property
    def answered_frames(self) -> range:
        return range(self.config.frames // 2, self.config.frames // 2 + 1)

    def bodies(self, features: Tensor) -> SMPLParams:
        return SMPLParams(*(values[:, None] for values in self.middle(self(features))))

    def middle(self, output: GLoTOutput) -> SMPLParams:
        """The prediction that inference uses: frame T // 2 of ``output.local``, without the K axis."""
        index = self.config.local_supervised_frames // 2
        return SMPLParams(*(values[:, index] for values in output.local))


def _initialise(module: nn.Module, *, gain: float) -> None:
    """Xavier uniform for every linear layer, with another ``gain`` where the output corrects an estimate of the body.

    The official code uses gain 1 everywhere. An untrained model then predicts bodies far from the mean body, and some
    cameras with a scale near zero; the official training starts well only because it loads SPIN's trained regressor.
    With a small gain, training starts near the mean body for any features.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, (IterativeRegressor, LocalRegressor)):
        heads = [
            layer for name, layer in module.named_modules() if name.split(".")[0] in ("pose", "shape", "cam", "joints")
        ]
        for head in heads:
            if isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight, gain=gain)
