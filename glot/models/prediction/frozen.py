"""Layers and blocks of a trained model in, the same functions with fixed weights out: faster, equal up to rounding.

- The scale and the offset of a norm go into the linear layer after it.
- oneDNN keeps the weights in the order in which it reads them, and applies GELU or adds a residual on the way.
- The constant of the keys changes no attention and is left out; that of the values goes into the layer after attention.
- Where one token alone attends, no keys and values are computed: their weights go to the query and to the result.

For inference only: there is no gradient. When the weights of the model change, make these objects again. N windows, T
tokens, C width.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.models.parts.blocks import Block, by_head

MUCH = 1.3  # times as fast
HIDDEN = 2**20  # hidden values of a feed-forward layer that are computed at once, so that they stay in the cache
SMALL = 2_500_000  # multiplications of a linear layer; for fewer, MKL is faster, because it begins at once
EPS = 1e-6  # of every norm


class Affine(NamedTuple):
    """x -> x W^T + b."""

    weight: Tensor
    bias: Tensor

    def after(self, norm: nn.Module) -> "Affine":
        """The function of a norm's result before its scale and its offset."""
        assert isinstance(norm, nn.LayerNorm) and norm.eps == EPS
        return Affine(self.weight * norm.weight, self.bias + self.weight @ norm.bias)

    def after_layer(self, layer: nn.Linear) -> "Affine":
        """The function of another linear layer's input."""
        return Affine(self.weight @ layer.weight, self.bias + self.weight @ layer.bias)

    def chunk(self, parts: int) -> list["Affine"]:
        """The parts of the output."""
        return [Affine(*part) for part in zip(self.weight.chunk(parts), self.bias.chunk(parts), strict=True)]


def affine(layer: nn.Module) -> Affine:
    """A linear layer as a function."""
    assert isinstance(layer, nn.Linear)
    return Affine(layer.weight, layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias)


def normed(tokens: Tensor) -> Tensor:
    """Every token (..., C) with mean 0 and variance 1: a norm without its scale and its offset."""
    return F.layer_norm(tokens, tokens.shape[-1:], None, None, EPS)


class FrozenLinear:
    """A linear layer of fixed weights, on a CPU by the library that is faster there."""

    def __init__(self, function: Affine) -> None:
        self.weight, self.bias = (values.detach().contiguous() for values in function)
        here = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        self.packed = _packed(self.weight) if here and onednn_is_faster() else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        if (packed := self._packed_for(x)) is None:
            return F.linear(x, self.weight, self.bias)
        return _onednn(x.contiguous(), packed, self.bias, "none", [], "")

    def without_bias(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D), without the bias."""
        if (packed := self._packed_for(x)) is None:
            return F.linear(x, self.weight)
        return _onednn(x.contiguous(), packed, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D): GELU of the layer's result."""
        if (packed := self._packed_for(x)) is None:
            return F.gelu(F.linear(x, self.weight, self.bias))
        return _onednn(x.contiguous(), packed, self.bias, "gelu", [], "none")

    def plus(self, x: Tensor, more: Tensor) -> Tensor:
        """(..., C), (..., D) -> (..., D): the sum of the layer's result and ``more``."""
        if (packed := self._packed_for(x)) is None:
            return F.linear(x, self.weight, self.bias).add_(more)
        return _onednn.binary(x.contiguous(), more.contiguous(), packed, self.bias, "add")

    def _packed_for(self, x: Tensor) -> Tensor | None:
        return self.packed if x.numel() * len(self.weight) >= SMALL else None


class FrozenBlock:
    """``glot.models.parts.blocks.Block`` in evaluation mode."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, Block)
        self.heads = block.attn.heads
        query, key, value = affine(block.attn.qkv).after(block.norm1).chunk(3)
        weight = torch.cat((query.weight, key.weight, value.weight))
        self.qkv = FrozenLinear(Affine(weight, F.pad(query.bias, (0, 2 * len(query.bias)))))
        self.proj = FrozenLinear(_with_constant(affine(block.attn.proj), value.bias))
        self.feed_forward = FeedForward(block)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        query, key, value = by_head(self.qkv(normed(tokens)), 3, self.heads)
        return self.feed_forward(self.proj.plus(attended(query, key, value), tokens))


class FirstBlock:
    """The positions and the first block of a branch, for every window of consecutive rows.

    A token is the sum of a row's projection p and a position's vector e. The norm is affine once the mean and the
    scale of p + e are known. So the queries, keys and values of a token are (P + E) / scale + constant, where P depends
    on the row alone, and E on the position alone. P is computed once for all windows that a row is in.
    """

    def __init__(self, block: nn.Module, vectors: Tensor) -> None:
        """``vectors`` (T, C): of the positions."""
        self.block, self.vectors = FrozenBlock(block), vectors.detach()
        self.centred = self.vectors - self.vectors.mean(-1, keepdim=True)
        self.of_positions = self.block.qkv.without_bias(self.centred)  # (T, 3 C)

    def __call__(self, projected: Tensor) -> Tensor:
        """(N + T - 1, C) -> the tokens of the N windows after the block (N, T, C)."""
        length, width = self.vectors.shape
        tokens = windows_of(projected, length) + self.vectors
        if len(tokens) == 1:  # there is nothing to share
            return self.block(tokens)
        centred = projected - projected.mean(-1, keepdim=True)
        square = centred.square().mean(-1, keepdim=True) + self.centred.square().mean(-1)
        square = square + 2 / width * (centred @ self.centred.T)  # (N + T - 1, T): row, position
        scale = (square.unfold(0, length, 1).diagonal(dim1=1, dim2=2) + EPS).rsqrt()  # (N, T)
        of_rows = windows_of(self.block.qkv.without_bias(centred), length)
        parts = torch.add(of_rows, self.of_positions).mul_(scale[..., None])  # (N, T, 3 C)
        parts[..., :width] += self.block.qkv.bias[:width]
        found = attended(*by_head(parts, 3, self.block.heads))
        return self.block.feed_forward(self.block.proj.plus(found, tokens))


class LastBlock:
    """``glot.models.parts.blocks.Block`` in evaluation mode, for one token of each window."""

    def __init__(self, block: nn.Module, position: int) -> None:
        """``position``: of the token in its window."""
        assert isinstance(block, Block)
        query, key, value = affine(block.attn.qkv).after(block.norm1).chunk(3)
        self.position = position
        self.attend = OneQuery(query, key, value, affine(block.attn.proj), heads=block.attn.heads)
        self.feed_forward = FeedForward(block)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, T, C) -> (N, C)."""
        others = normed(tokens)
        return self.feed_forward(tokens[:, self.position] + self.attend(others[:, self.position], others))


class FeedForward:
    """The second half of ``glot.models.parts.blocks.Block`` in evaluation mode."""

    def __init__(self, block: Block) -> None:
        self.fc1, self.fc2 = FrozenLinear(affine(block.fc1).after(block.norm2)), FrozenLinear(affine(block.fc2))

    def __call__(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        rows = max(1, HIDDEN // len(self.fc1.bias))
        parts = [self.fc2.plus(self.fc1.gelu(normed(part)), part) for part in tokens.flatten(0, -2).split(rows)]
        return torch.cat(parts).view_as(tokens) if len(parts) > 1 else parts[0].view_as(tokens)


class OneQuery:
    """Attention of one token to T others, and the layer after it.

    The score of a head is q . (W_k x) = (W_k^T q) . x, and its result is W_v (sum of a x). So W_k and W_v are applied
    once, not to every x.
    """

    def __init__(self, query: Affine, key: Affine, value: Affine, proj: Affine, *, heads: int) -> None:
        scale = (len(query.bias) // heads) ** -0.5
        self.query = FrozenLinear(Affine(query.weight * scale, query.bias * scale))
        self.keys = key.weight.detach().unflatten(0, (heads, -1)).contiguous()  # (heads, C / heads, C of x)
        self.values = value.weight.detach().unflatten(0, (heads, -1)).mT.contiguous()  # (heads, C of x, C / heads)
        self.proj = FrozenLinear(_with_constant(proj, value.bias))

    def __call__(self, token: Tensor, others: Tensor) -> Tensor:
        """token (N, C), others (N, T, C of x) -> (N, C)."""
        query = self.query(token).unflatten(-1, (len(self.keys), -1)).transpose(0, 1)  # (heads, N, C / heads)
        asked = torch.bmm(query, self.keys).transpose(0, 1)  # (N, heads, C of x)
        found = torch.bmm(torch.bmm(asked, others.mT).softmax(-1), others)  # (N, heads, C of x)
        return self.proj(torch.bmm(found.transpose(0, 1), self.values).transpose(0, 1).flatten(1))


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Queries, keys and values (N, heads, T, C / heads) -> (N, T, C)."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)


def windows_of(rows: Tensor, length: int) -> Tensor:
    """(N + T - 1, C) -> the N windows of T = ``length`` consecutive rows (N, T, C), a view."""
    return rows.unfold(0, length, 1).transpose(1, 2)


def _with_constant(layer: Affine, constant: Tensor) -> Affine:
    """A layer whose input gets a constant: that of the values, because the weights of attention sum to 1."""
    return Affine(layer.weight, layer.bias + layer.weight @ constant)


_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


@cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies matrices on this machine, and not MKL: always, unless MKL takes much less time.

    Where both take about the same time, the choice never changes, so that results stay equal to the last digit.
    """
    if _onednn is None or not torch.backends.mkldnn.is_available():
        return False
    mkl, onednn = measured_seconds()
    return onednn < MUCH * mkl


@torch.inference_mode()
def measured_seconds() -> tuple[float, float]:
    """The least time that MKL and that oneDNN take for a small linear layer. Measuring takes about 20 ms."""
    x, weight, bias = torch.ones(256, 512), torch.ones(1024, 512), torch.ones(1024)
    packed = _packed(weight)
    ways: tuple[Callable[[], Tensor], ...] = (
        lambda: F.linear(x, weight, bias),
        lambda: _onednn(x, packed, bias, "none", [], ""),
    )
    least = [float("inf"), float("inf")]
    for _ in range(8):
        for i, way in enumerate(ways):
            begun = time.perf_counter()
            way()
            least[i] = min(least[i], time.perf_counter() - begun)
    return least[0], least[1]
