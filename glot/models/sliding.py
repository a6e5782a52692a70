"""A trained GLoT and the rows of a track in; the body of each row out, predicted from the window around it.

Neighbouring windows share all rows but one. Values that depend on a single row are computed once: its projection, and
most of the first block's queries, keys and values. Only the middle frame of each window is predicted. Linear layers
that follow each other are merged.
"""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glot.models.blocks import EVERY, Block, Positions, by_head
from glot.models.glot import GLoT
from glot.models.smpl_params import SMPLParams, to_params

MUCH = 1.3  # times as fast


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
            OneDNN() if model.mean.device.type == "cpu" and _onednn_is_faster() else nullcontext()
        )
        config, mean = model.config, model.mean.double()
        self.encoder = FirstBlock(model.motion.blocks[0], model.motion.positions)
        iterative, widen = _frozen(model.iterative), _frozen(model.motion.widen)
        self.estimate = _affine(lambda states: iterative(states, mean, widen), config.decoder_width, mean.device)
        if self.correction is not None:
            self.local_encoder = FirstBlock(self.correction.blocks[0], self.correction.positions)
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
        tokens = self.encoder(motion.project(rows))  # (N, T, C)
        for block in motion.blocks[1:]:
            tokens = block(tokens)
        memory = motion.norm(tokens)
        states = motion.decoder_positions(motion.narrow(memory))
        for block in motion.decoder_blocks[:-1]:
            states = block(states)
        states = motion.decoder_norm(motion.decoder_blocks[-1](states, slice(frames // 2, frames // 2 + 1)))
        estimate = F.linear(states, *self.estimate)  # (N, 1, 157)
        if self.correction is not None:
            near = model.config.nearby_frames
            first = frames // 2 - near
            last = len(rows) - (frames - (frames // 2 + near + 1))
            middle = slice(near, near + 1)
            blocks = self.correction.blocks
            tokens = self.local_encoder(self.correction.project(rows[first:last]), EVERY if blocks[1:] else middle)
            for block in blocks[1:]:
                tokens = block(tokens, middle if block is blocks[-1] else EVERY)
            queries = self.correction.norm(tokens)
            local = self.correction.attend(queries, self.correction.project_memory(memory))
            estimate = F.linear(torch.cat((local, estimate), dim=-1), *self.correct)
        return SMPLParams(*(values[:, 0] for values in to_params(estimate)))


class FirstBlock:
    """The first block of a branch, with its positions, for every window of consecutive rows.

    A token is the sum of a row's projection p and a position's vector e. The norm is affine once the mean and the
    scale of p + e are known. So the queries, keys and values of a token are (P + E) / scale + constant, where P depends
    on the row alone, and E on the position alone.
    """

    def __init__(self, block: nn.Module, positions: Positions) -> None:
        assert isinstance(block, Block)
        self.block, self.vectors = block, positions.vectors[0]  # (T, C)
        norm, projection = block.norm1, block.attn.qkv
        self.weight = projection.weight * norm.weight  # (3 C, C)
        constants = (projection.weight @ norm.bias + projection.bias).chunk(3)
        # The keys' constant changes no attention; that of the values is added to every result of attention.
        self.of_queries = constants[0]
        output = block.attn.proj
        self.bias = output.weight @ constants[2] + output.bias
        self.centred = self.vectors - self.vectors.mean(-1, keepdim=True)
        self.of_positions = F.linear(self.centred, self.weight)  # (T, 3 C)

    def __call__(self, projected: Tensor, queries: slice = EVERY) -> Tensor:
        """(N + T - 1, C) -> the tokens of ``queries`` (N, K, C) of the N windows, after the block."""
        length, width = self.vectors.shape
        centred = projected - projected.mean(-1, keepdim=True)
        square = centred.square().mean(-1, keepdim=True) + self.centred.square().mean(-1)
        square = square + 2 / width * (centred @ self.centred.T)  # (N + T - 1, T): row, position
        scale = (square.unfold(0, length, 1).diagonal(dim1=1, dim2=2) + self.block.norm1.eps).rsqrt()  # (N, T)
        of_rows = F.linear(centred, self.weight).unfold(0, length, 1).transpose(1, 2)  # (N, T, 3 C)
        parts = torch.add(of_rows, self.of_positions).mul_(scale[..., None])
        heads = self.block.attn.heads
        (query,) = by_head(parts[:, queries, :width] + self.of_queries, 1, heads)
        key, value = by_head(parts[..., width:], 2, heads)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)  # (N, K, C)
        tokens = projected.unfold(0, length, 1).transpose(1, 2)[:, queries] + self.vectors[queries]
        return self.block.transform(tokens + F.linear(found, self.block.attn.proj.weight, self.bias))


class OneDNN(TorchFunctionMode):
    """A context in which oneDNN instead of MKL runs float32 linear layers.

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
def _onednn_is_faster() -> bool:
    """Whether it takes much less time than MKL here, e.g. half of it on AMD's chips.

    Where both take about the same time, it is always MKL, so that results stay equal to the last digit.
    """
    if not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    mkl, onednn = _seconds()
    return mkl > MUCH * onednn


@torch.inference_mode()
def _seconds() -> tuple[float, float]:
    """The least time that MKL and that oneDNN take for a small linear layer. Measuring takes about 20 ms."""
    x, weight, bias = torch.ones(256, 512), torch.ones(1024, 512), torch.ones(1024)
    contexts: tuple[AbstractContextManager[Any], ...] = (nullcontext(), OneDNN())
    least = [float("inf"), float("inf")]
    for _ in range(8):
        for i, context in enumerate(contexts):
            with context:
                begun = time.perf_counter()
                F.linear(x, weight, bias)
                least[i] = min(least[i], time.perf_counter() - begun)
    return least[0], least[1]


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().eval()


def _affine(function: Callable[[Tensor], Tensor], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight (out, size) and bias (out,) of an affine function of (B, size), in single precision."""
    bias = function(torch.zeros(1, size, dtype=torch.float64, device=device))
    columns = function(torch.eye(size, dtype=torch.float64, device=device)) - bias
    return columns.T.float().contiguous(), bias[0].float()
