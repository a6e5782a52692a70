"""A trained GLoT and the rows of a track in; the body of each row out, predicted from the window around it.

Neighbouring windows share all rows but one. Values that depend on a single row are computed once: its projection, and
most of the first block's queries, keys and values. Only the middle frame of each window is predicted. Linear layers
that follow each other are merged. The parts are in glot.models.prediction.frozen. N windows, T frames, F feature size,
C width.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glot.models.glot import GLoT
from glot.models.parts.global_branch import GlobalMotion
from glot.models.parts.local_branch import LocalCorrection
from glot.models.prediction.frozen import (
    Affine,
    FirstBlock,
    FrozenBlock,
    FrozenLinear,
    LastBlock,
    OneQuery,
    affine,
    normed,
    windows_of,
)
from glot.models.smpl_params import SMPLParams, to_params


class SlidingGLoT:
    """``model.middle(model(windows))`` of ``model`` in evaluation mode, up to rounding (1e-4 in pose), but faster.

    Both regressors (three iterations from the mean body; the kinematic chain) have no non-linearity, so each is one
    affine map. It has copies of the weights: make a new one when the weights of the model change. Making one takes as
    long as predicting dozens of frames. ``frames``: T; ``device``: where it expects features.

    ``local=False``: the global branch's estimate of the same frame, without the correction by the local branch.
    """

    @torch.no_grad()
    def __init__(self, model: GLoT, *, local: bool = True) -> None:
        self.frames, self.device = model.config.frames, model.mean.device
        middle = self.frames // 2
        self.motion = _GlobalPart(model, middle)
        self.correction = None
        if local and model.correction is not None:
            self.correction = _LocalPart(model.correction, model.motion.norm, len(model.mean), middle)

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> SMPLParams:
        """Features (N + T - 1, F) of consecutive rows -> the bodies of the N rows that have a whole window.

        These N rows begin at row T // 2. rotmats (N, 24, 3, 3), betas (N, 10), cam (N, 3).
        """
        memory, estimate = self.motion(rows)
        if self.correction is not None:
            estimate = self.correction(rows, memory, estimate)
        return to_params(estimate)


class _GlobalPart:
    """Masked global motion modelling without a mask, and the iterative regressor of the middle frame."""

    def __init__(self, model: GLoT, middle: int) -> None:
        motion = model.motion
        assert isinstance(motion, GlobalMotion)
        self.project = FrozenLinear(affine(motion.project))
        self.first = FirstBlock(motion.blocks[0], motion.positions.vectors[0])
        self.blocks = [FrozenBlock(block) for block in motion.blocks[1:]]
        self.narrow = FrozenLinear(affine(motion.narrow).after(motion.norm))
        self.positions = motion.decoder_positions.vectors.detach()
        self.decoder_blocks = [FrozenBlock(block) for block in motion.decoder_blocks[:-1]]
        self.decode = LastBlock(motion.decoder_blocks[-1], middle)
        iterative, widen, mean = _double(model.iterative), _double(motion.widen), model.mean.double()
        regress = _affine(lambda states: iterative(states, mean, widen), motion.widen.in_features, mean)
        self.regress = FrozenLinear(regress.after(motion.decoder_norm))

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(N + T - 1, F) -> the memory (N, T, C) before the scale of its norm, and the estimate (N, 157)."""
        tokens = self.first(self.project(rows))
        for block in self.blocks:
            tokens = block(tokens)
        memory = normed(tokens)
        states = self.narrow(memory) + self.positions
        for block in self.decoder_blocks:
            states = block(states)
        return memory, self.regress(normed(self.decode(states)))


class _LocalPart:
    """The correction by the local branch."""

    def __init__(self, correction: LocalCorrection, norm_of_memory: nn.LayerNorm, numbers: int, middle: int) -> None:
        near, vectors = correction.nearby, correction.positions.vectors[0]
        self.first_row, self.length = middle - near, len(vectors)
        self.project = FrozenLinear(affine(correction.project))
        *blocks, last = correction.blocks
        self.vectors = vectors.detach()
        self.first = FirstBlock(blocks[0], vectors) if blocks else None
        self.blocks = [FrozenBlock(block) for block in blocks[1:]]
        self.last = LastBlock(last, near)
        across = correction.attend
        key, value = affine(across.key_value).after_layer(correction.project_memory).after(norm_of_memory).chunk(2)
        query = affine(across.query).after(correction.norm)
        self.attend = OneQuery(query, key, value, affine(across.proj), heads=across.heads)
        regressor, width = _double(correction.regressor), len(across.proj.bias)
        self.regress = FrozenLinear(
            _affine(lambda x: regressor(x[:, :width], x[:, width:]), width + numbers, across.proj.bias)
        )

    def __call__(self, rows: Tensor, memory: Tensor, estimate: Tensor) -> Tensor:
        """(N + T - 1, F), what ``_GlobalPart`` returns -> the corrected estimate (N, 157)."""
        rows = self.project(rows[self.first_row :][: len(memory) + self.length - 1])
        tokens = self.first(rows) if self.first else windows_of(rows, self.length) + self.vectors
        for block in self.blocks:
            tokens = block(tokens)
        token = normed(self.last(tokens))
        return self.regress(torch.cat((self.attend(token, memory), estimate), dim=-1))


def _double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().eval()


def _affine(function: Callable[[Tensor], Tensor], size: int, like: Tensor) -> Affine:
    """An affine function of (B, size), found in double precision, in the precision of float32 on ``like``'s device."""
    bias = function(torch.zeros(1, size, dtype=torch.float64, device=like.device))
    columns = function(torch.eye(size, dtype=torch.float64, device=like.device)) - bias
    return Affine(columns.T.float(), bias[0].float())
