"""Frozen layers and blocks give what the layers and blocks of the model give, with either library."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glot.models.parts.blocks import Block, CrossAttention, Positions
from glot.models.prediction import frozen
from glot.models.prediction.frozen import FirstBlock, FrozenBlock, FrozenLinear, LastBlock, OneQuery, affine, normed
from tests.fixtures.small_model import SMALL

needs_both = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()), reason="one library alone"
)


@pytest.fixture(params=["oneDNN", "MKL"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The library that is used, for products of any size."""
    frozen.onednn_is_faster.cache_clear()
    monkeypatch.setattr(frozen, "measured_seconds", lambda: (9.0, 1.0) if request.param == "oneDNN" else (1.0, 9.0))
    monkeypatch.setattr(frozen, "SMALL", 0)
    yield request.param
    frozen.onednn_is_faster.cache_clear()


def drawn(module: nn.Module) -> nn.Module:
    """The module with random norms and biases, too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@needs_both
@pytest.mark.parametrize(
    "use",
    [
        lambda layer, x, more: (layer(x), F.linear(x, layer.weight, layer.bias)),
        lambda layer, x, more: (layer.without_bias(x), F.linear(x, layer.weight)),
        lambda layer, x, more: (layer.gelu(x), F.gelu(F.linear(x, layer.weight, layer.bias))),
        lambda layer, x, more: (layer.plus(x, more), F.linear(x, layer.weight, layer.bias) + more),
    ],
    ids=["linear", "without bias", "gelu", "plus"],
)
def test_a_frozen_layer_is_the_layer(library: str, use: Callable[..., tuple[Tensor, Tensor]]) -> None:
    layer = FrozenLinear(affine(drawn(nn.Linear(24, 40))))
    assert (layer.packed is not None) == (library == "oneDNN")
    with torch.no_grad():
        same(*use(layer, torch.randn(7, 24), torch.randn(7, 40)))
        same(*use(layer, torch.randn(5, 24, 3).mT, torch.randn(5, 40, 3).mT))  # not contiguous


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("hidden", [frozen.HIDDEN, 300])
def test_a_frozen_block_is_the_block(monkeypatch: pytest.MonkeyPatch, hidden: int) -> None:
    monkeypatch.setattr(frozen, "HIDDEN", hidden)  # how many tokens go through its feed-forward layers at once
    block, tokens = drawn(Block(SMALL.width, SMALL, 0.2)), torch.randn(5, 9, SMALL.width)
    with torch.no_grad():
        same(FrozenBlock(block)(tokens), block(tokens))
        for position in (0, 4):
            same(LastBlock(block, position)(tokens), block(tokens, slice(position, position + 1))[:, 0])


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("rows", [8, 9, 30])
def test_the_shared_first_block_is_that_of_each_window(rows: int) -> None:
    block, positions = drawn(Block(SMALL.width, SMALL, 0.2)), drawn(Positions(SMALL, SMALL.frames, SMALL.width))
    with torch.no_grad():
        projected = 5 + 2 * torch.randn(rows, SMALL.width)
        windows = projected.unfold(0, SMALL.frames, 1).transpose(1, 2)
        found = FirstBlock(block, positions.vectors[0])(projected)
        assert len(found) == rows - SMALL.frames + 1
        same(found, block(positions(windows)))


def test_one_query_is_attention_to_projected_memory() -> None:
    across, project, norm = CrossAttention(16, 4), nn.Linear(24, 16), nn.LayerNorm(24, eps=1e-6)
    for module in (across, project, norm):
        drawn(module)
    key, value = affine(across.key_value).after_layer(project).after(norm).chunk(2)
    token, memory = torch.randn(5, 16), torch.randn(5, 7, 24)
    with torch.no_grad():
        found = OneQuery(affine(across.query), key, value, affine(across.proj), heads=4)(token, normed(memory))
        same(found, across(token[:, None], project(norm(memory)))[:, 0])


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """The choice of a library is made again, within the test and after it."""
    frozen.onednn_is_faster.cache_clear()
    yield
    frozen.onednn_is_faster.cache_clear()


@needs_both
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("mkl", "onednn", "chosen"), [(2.0, 1.0, True), (1.0, 1.2, True), (1.0, 2.0, False)])
def test_onednn_is_used_unless_it_takes_much_more_time_here(
    monkeypatch: pytest.MonkeyPatch, mkl: float, onednn: float, chosen: bool
) -> None:
    assert all(0 < seconds < 1 for seconds in frozen.measured_seconds())
    monkeypatch.setattr(frozen, "measured_seconds", lambda: (mkl, onednn))
    assert frozen.onednn_is_faster() == chosen
