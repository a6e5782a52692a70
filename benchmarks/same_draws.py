"""A model and its plain copy in; both drop the same numbers and the same branches in training. B windows, T frames.

The plain model draws. Ours computes fewer frames and windows, and takes its part of what was drawn.
"""

from collections import Counter
from functools import partial

import torch
from plain import PlainDropPath
from torch import Tensor, nn

from glot.models.glot import GLoT
from glot.models.parts.blocks import Dropout, DropPath


class SameDraws:
    """Changes both models for one pass each, first the plain one's.

    ``rows`` (R,): the frames, of all B x T, for which ours computes the end of the decoder and the regressor.
    """

    def __init__(self, plain: GLoT, ours: GLoT, rows: Tensor) -> None:
        self.rows = rows
        self.drawn: dict[tuple[str, int], Tensor] = {}  # what is multiplied with, by module and number of its call
        self.calls: Counter[str] = Counter()
        self.windows: dict[str, Tensor] = {}  # the windows that a block of ours computes now
        for name, module in plain.named_modules():
            if isinstance(module, nn.Dropout):
                module.forward = partial(self._draw, f"plain {name}", module.p)
            elif isinstance(module, PlainDropPath):
                module.forward = partial(self._draw_path, f"plain {name}", module.rate)
        for name, module in ours.named_modules():
            if isinstance(module, Dropout):
                module.factors = partial(self._take, f"ours {name}")  # type: ignore[method-assign]
            elif isinstance(module, DropPath):
                module.kept = partial(self._take_path, f"ours {name}")  # type: ignore[method-assign]

    def _place(self, name: str) -> tuple[str, int]:
        self.calls[name] += 1
        return name.split()[1], self.calls[name]

    def _draw(self, name: str, rate: float, values: Tensor) -> Tensor:
        factors = torch.empty_like(values).bernoulli_(1 - rate) / (1 - rate)
        self.drawn[self._place(name)] = factors
        return values * factors

    def _draw_path(self, name: str, rate: float, branch: Tensor) -> Tensor:
        factors = torch.empty(len(branch), 1, 1).bernoulli_(1 - rate) / (1 - rate) if rate else torch.ones(1, 1, 1)
        self.drawn[self._place(name)] = factors
        return branch * factors

    def _take(self, name: str, values: Tensor) -> Tensor:
        factors = self.drawn[self._place(name)]
        block = name.rpartition(".")[0]
        if block in self.windows:
            factors = factors[self.windows[block]]
        if values.ndim == 2:
            factors = factors.flatten(0, 1)[self.rows]
        before = (factors.shape[-2] - values.shape[-2]) // 2  # the middle frames of the local branch
        factors = factors[..., before : before + values.shape[-2], :]
        assert factors.shape == values.shape, (name, factors.shape, values.shape)
        return factors

    def _take_path(self, name: str, tokens: Tensor) -> Tensor:
        kept = (self.drawn[self._place(name)] > 0).flatten().float()
        self.windows[name.rpartition(".")[0]] = kept.nonzero().squeeze(1)
        return kept
