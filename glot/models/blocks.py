"""Tokens in, tokens out: the parts of this folder's transformers. B batch, N tokens, K queried tokens, C width.

Dropouts and drop-paths sit where the official code has them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.config import ModelConfig

EVERY = slice(None)


class Positions(nn.Module):
    """Adds a vector for the position in the window: learned (paper), or the fixed sines of Vaswani et al. (Table 9)."""

    vectors: Tensor

    def __init__(self, config: ModelConfig, length: int, width: int) -> None:
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

    def __init__(self, width: int, config: ModelConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, width * config.mlp_ratio)
        self.fc2 = nn.Linear(width * config.mlp_ratio, width)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, queries: slice = EVERY) -> Tensor:
        """tokens (B, N, C) -> the K tokens of ``queries`` (B, K, C); they attend to all N."""
        tokens = tokens[:, queries] + self.drop_path(self.dropout(self.attn(self.norm1(tokens), queries)))
        hidden = self.dropout(F.gelu(self.fc1(self.norm2(tokens))))
        return tokens + self.drop_path(self.dropout(self.fc2(hidden)))


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
            query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            width = tokens.shape[-1]
            query = F.linear(tokens[:, queries], self.qkv.weight[:width], self.qkv.bias[:width])
            query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            key_value = F.linear(tokens, self.qkv.weight[width:], self.qkv.bias[width:])
            key, value = key_value.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))


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
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))


class DropPath(nn.Module):
    """Stochastic depth: drops a sample's residual branch with probability ``rate`` and scales up those that stay."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        return branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)
