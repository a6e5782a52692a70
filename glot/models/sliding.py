"""A trained GLoT and the rows of a track in; the body of each row out, predicted from the window around it.

Neighbouring windows share all rows but one. Values that depend on a single row are computed once. Only the middle frame
of each window is predicted. Linear layers that follow each other are merged.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glot.models.glot import GLoT
from glot.models.smpl_params import SMPLParams, to_params


class SlidingGLoT:
    """``model.middle(model(windows))`` of ``model`` in evaluation mode, up to rounding (1e-4 in pose), but faster.

    Both regressors (three iterations from the mean body; the kinematic chain) have no non-linearity, so each is one
    affine map. The maps are computed once, in double precision: make a new SlidingGLoT when the model's weights have
    changed.

    ``local=False``: the global branch's estimate of the same frame, without the correction by the local branch.
    """

    @torch.no_grad()
    def __init__(self, model: GLoT, *, local: bool = True) -> None:
        self.model = model
        self.correction = model.correction if local else None
        self.linear: AbstractContextManager[Any] = (
            OneDNN() if model.mean.device.type == "cpu" and _mkl_is_slow() else nullcontext()
        )
        config, mean = model.config, model.mean.double()
        iterative, widen = _frozen(model.iterative), _frozen(model.motion.widen)
        self.estimate = _affine(lambda states: iterative(states, mean, widen), config.decoder_width, mean.device)
        if self.correction is not None:
            regressor, width = _frozen(self.correction.regressor), config.local_width
            size = width + len(mean)
            self.correct = _affine(lambda x: regressor(x[:, :width], x[:, width:]), size, mean.device)

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> SMPLParams:
        """Features (N + T - 1, F) of consecutive rows -> the bodies of the N rows that have a whole window.

        These N rows begin at row T // 2. rotmats (N, 24, 3, 3), betas (N, 10), cam (N, 3). The model must be in
        evaluation mode.
        """
        with self.linear:
            return self._slide(rows)

    def _slide(self, rows: Tensor) -> SMPLParams:
        model, motion = self.model, self.model.motion
        frames = model.config.frames
        windows = motion.project(rows).unfold(0, frames, 1).transpose(1, 2)  # (N, T, C), overlapping in memory
        memory = motion.encode(motion.positions(windows))
        states = motion.decoder_positions(motion.narrow(memory))
        for block in motion.decoder_blocks[:-1]:
            states = block(states)
        states = motion.decoder_norm(motion.decoder_blocks[-1](states, slice(frames // 2, frames // 2 + 1)))
        estimate = F.linear(states, *self.estimate)  # (N, 1, 157)
        if self.correction is not None:
            near = model.config.nearby_frames
            first = frames // 2 - near
            last = len(rows) - (frames - (frames // 2 + near + 1))
            around = self.correction.project(rows[first:last]).unfold(0, 2 * near + 1, 1).transpose(1, 2)
            local = self.correction.attend_to_memory(around, memory, slice(near, near + 1))
            estimate = F.linear(torch.cat((local, estimate), dim=-1), *self.correct)
        return SMPLParams(*(values[:, 0] for values in to_params(estimate)))


class OneDNN(TorchFunctionMode):
    """A context in which oneDNN instead of MKL runs float32 linear layers: twice as fast on AMD's chips.

    For inference only: there is no gradient.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and all(x is None or x.dtype == torch.float32 for x in args):
            x, weight, bias = (*args, None)[:3]
            return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, "none", [], "")
        return func(*args, **(kwargs or {}))


@cache
def _mkl_is_slow() -> bool:
    cpu = Path("/proc/cpuinfo")
    foreign = cpu.is_file() and "AuthenticAMD" in cpu.read_text()
    return foreign and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().eval()


def _affine(function: Callable[[Tensor], Tensor], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight (out, size) and bias (out,) of an affine function of (B, size), in single precision."""
    bias = function(torch.zeros(1, size, dtype=torch.float64, device=device))
    columns = function(torch.eye(size, dtype=torch.float64, device=device)) - bias
    return columns.T.float().contiguous(), bias[0].float()
