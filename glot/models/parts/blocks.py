"""Tokens in, tokens out: the parts of this folder's transformers. B batch, N tokens, K queried tokens, C width.

Dropouts and drop-paths sit where the official code has them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.model_configs import GLoTConfig

EVERY = slice(None)
LEVELS = 65_536  # of 16 random bits


class Positions(nn.Module):
    """Adds a vector for the position in the window: learned (paper), or the fixed sines of Vaswani et al. (Table 9)."""

    vectors: Tensor

    def __init__(self, config: GLoTConfig, length: int, width: int) -> None:
        super().__init__()
        if config.positions == "learned":
            self.vectors = nn.Parameter(torch.randn(1, length, width) * 0.02)
            return
        rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(length)[:, None] * rates
        vectors = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.vectors


class Block(nn.Module):
    """Pre-norm transformer block with dropout after both projections and drop-path on both branches."""

    def __init__(self, width: int, config: GLoTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, width * config.mlp_ratio)
        self.fc2 = nn.Linear(width * config.mlp_ratio, width)
        self.dropout = Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, queries: slice = EVERY) -> Tensor:
        """tokens (B, N, C) -> the K tokens of ``queries`` (B, K, C); they attend to all N."""
        return self.transform(self.attend(tokens, queries))

    def attend(self, tokens: Tensor, queries: slice = EVERY) -> Tensor:
        """The first half: tokens (B, N, C) -> the K tokens of ``queries`` (B, K, C) with what they attend to added."""
        return self.drop_path(tokens, lambda some: self.dropout(self.attn(self.norm1(some), queries)), queries)

    def transform(self, tokens: Tensor) -> Tensor:
        """The second half, (..., C) -> (..., C): every token by itself."""
        return self.drop_path(tokens, self.feed_forward)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C), what the second half adds."""
        hidden = self.dropout(F.gelu(self.fc1(self.norm2(tokens))))
        return self.dropout(self.fc2(hidden))


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, queries: slice = EVERY) -> Tensor:
        """tokens (B, N, C) -> the K tokens of ``queries`` (B, K, C); they attend to all N."""
        if queries == EVERY:
            query, key, value = by_head(self.qkv(tokens), 3, self.heads)
        else:
            width = tokens.shape[-1]
            weights, biases = (values.split((width, 2 * width)) for values in (self.qkv.weight, self.qkv.bias))
            (query,) = by_head(F.linear(tokens[:, queries], weights[0], biases[0]), 1, self.heads)
            key, value = by_head(F.linear(tokens, weights[1], biases[1]), 2, self.heads)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))


def by_head(projected: Tensor, parts: int, heads: int) -> list[Tensor]:
    """(B, N, parts x C) -> the parts, each (B, heads, N, C / heads)."""
    # Parts are taken apart before the heads move, so that their gradients are put together in one copy.
    return [part.transpose(1, 2) for part in projected.unflatten(-1, (parts, heads, -1)).unbind(2)]


class CrossAttention(nn.Module):
    """Attention alone, as in the official code: no residual, norm, feed-forward, dropout; only ``proj`` has a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """tokens (B, K, C) that attend to memory (B, N, C) -> (B, K, C)."""
        (query,) = by_head(self.query(tokens), 1, self.heads)
        key, value = by_head(self.key_value(memory), 2, self.heads)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))


class Dropout(nn.Module):
    """In training, sets each number to 0 with probability ``rate`` and scales up those that stay; as nn.Dropout.

    nn.Dropout spends most of its time on a CPU on drawing. Here, a number costs 16 random bits, so that the probability
    is a multiple of 1 / 65,536. The mean stays exact.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        if not _eager_on_cpu(values):
            return F.dropout(values, self.rate)
        return values * self.factors(values)

    def factors(self, values: Tensor) -> Tensor:
        """What the values are multiplied by: 0, or a number above 1."""
        dropped = min(round(self.rate * LEVELS), LEVELS - 1)  # of the LEVELS values of 16 bits, the lowest
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()].view(values.shape)
        # In place and in 16 bits: torch.where, and a comparison that gives bools, take six times as long.
        kept = bits.ge_(dropped - LEVELS // 2)
        return kept.to(values.dtype).mul_(LEVELS / (LEVELS - dropped))


class DropPath(nn.Module):
    """Stochastic depth: drops a sample's residual branch with probability ``rate`` and scales up those that stay."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tensor, branch: Callable[[Tensor], Tensor], queries: slice = EVERY) -> Tensor:
        """tokens (B, N, C), and a branch of them that has the K tokens of ``queries`` -> their sum (B, K, C)."""
        if not self.training or self.rate == 0:
            return tokens[:, queries] + branch(tokens)
        kept = self.kept(tokens)
        if not _eager_on_cpu(tokens):
            return tokens[:, queries] + branch(tokens) * (kept[:, None, None] / (1 - self.rate))
        # Branches that are dropped are not computed.
        rows = kept.nonzero().squeeze(1)
        change = branch(tokens.index_select(0, rows)).to(tokens.dtype)
        return tokens[:, queries].index_add(0, rows, change, alpha=1 / (1 - self.rate))

    def kept(self, tokens: Tensor) -> Tensor:
        """(B,) 1 for the samples whose branch stays, else 0."""
        return tokens.new_empty(len(tokens)).bernoulli_(1 - self.rate)


def _eager_on_cpu(values: Tensor) -> bool:
    """Whether it is cheap that the shapes of intermediate values depend on random numbers."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
