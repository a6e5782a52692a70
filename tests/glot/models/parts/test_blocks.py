"""Laws of dropout and drop-path: what is dropped, how often, and that branches that are dropped are not computed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from glot.models.parts.blocks import Block, Dropout, DropPath
from tests.fixtures.small_model import SMALL


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9, 1e-7, 1 - 1e-7])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropout, count = Dropout(rate), 400_003
    found = dropout(torch.ones(count))
    share = float((found == 0).float().mean())
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(share - rate) < 5 * deviation + 1 / 65_536
    assert found.unique().numel() <= 2 and found.isfinite().all()
    # The factor makes up for what is dropped: rounded to 16 bits, both use the same probability.
    assert abs(float(found.max()) * (1 - rate) - 1) < 1e-4 or rate > 0.99
    assert torch.equal(dropout.eval()(found), found)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1), (64, 9)])
def test_every_number_is_drawn_by_itself_and_the_gradient_is_dropped_alike(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    ones = torch.ones(2_000, *shape, requires_grad=True)
    found = Dropout(0.5)(ones)
    found.sum().backward()
    assert torch.equal(ones.grad, found)
    kept = (found.detach() > 0).float().flatten(1)
    assert (kept.mean(0) - 0.5).abs().max() < 5 * (0.25 / 2_000) ** 0.5
    if kept.shape[1] > 1:
        together = torch.corrcoef(kept.T) - torch.eye(kept.shape[1])
        assert together.abs().max() < 0.13


def test_the_seed_decides_what_is_dropped() -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        dropout = Dropout(0.3)
        return torch.cat([dropout(torch.ones(50)) for _ in range(3)])

    assert torch.equal(drawn(4), drawn(4)) and not torch.equal(drawn(4), drawn(5))


def test_half_precision_stays() -> None:
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def with_kept(module: nn.Module, kept: list[int]) -> None:
    """Makes the drop-path of ``module`` keep these samples."""
    for part in module.modules():
        if isinstance(part, DropPath):
            part.kept = lambda tokens: torch.tensor([float(i in kept) for i in range(len(tokens))])  # type: ignore


@pytest.mark.parametrize("queries", [slice(None), slice(1, 3)])
@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [1, 3], [0], []])
def test_branches_that_are_dropped_count_as_zero(kept: list[int], queries: slice) -> None:
    """Against all branches, multiplied by 0 or by 1 / (1 - rate)."""
    torch.manual_seed(2)
    block = Block(SMALL.width, SMALL, 0.25).train()
    with_kept(block, kept)
    block.dropout.rate = 0
    tokens = torch.randn(4, 6, SMALL.width, requires_grad=True)
    scale = torch.tensor([float(i in kept) / 0.75 for i in range(4)])[:, None, None]

    def plain(tokens: Tensor, queries: slice) -> Tensor:
        tokens = tokens[:, queries] + scale * block.attn(block.norm1(tokens), queries)
        return tokens + scale * block.feed_forward(tokens)

    inputs = [tokens, *block.parameters()]
    weights = torch.randn(4, 6, SMALL.width)[:, queries]
    results, gradients = [], []
    ways: tuple[Callable[[Tensor, slice], Tensor], ...] = (block, plain)
    for way in ways:
        results.append(way(tokens, queries))
        gradients.append(torch.autograd.grad((results[-1] * weights).sum(), inputs))
    torch.testing.assert_close(results[0], results[1])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)  # DDP needs a gradient where nothing was kept, too


def test_drop_path_drops_whole_samples_at_its_rate() -> None:
    torch.manual_seed(3)
    computed = []

    def branch(some: Tensor) -> Tensor:
        computed.append(len(some))
        return torch.ones_like(some)

    found = DropPath(0.3)(torch.zeros(20_000, 2, 3), branch).flatten(1)
    assert torch.equal(found.amin(1), found.amax(1))
    assert abs(float((found == 0).float().mean()) - 0.3) < 5 * (0.21 / 20_000) ** 0.5
    torch.testing.assert_close(found.max(), torch.tensor(1 / 0.7))
    assert computed == [int((found[:, 0] > 0).sum())]
