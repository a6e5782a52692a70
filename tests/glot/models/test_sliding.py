"""The first block of overlapping windows, and which library multiplies matrices."""

from collections.abc import Iterator

import pytest
import torch

from glot.models import sliding
from glot.models.blocks import EVERY, Block, Positions
from glot.models.sliding import FirstBlock, OneDNN, SlidingGLoT
from tests.fixtures.small_model import SMALL, features, small_model


@pytest.mark.parametrize("queries", [EVERY, slice(3, 4)])
@pytest.mark.parametrize("rows", [8, 9, 30])
def test_the_shared_first_block_is_that_of_each_window(rows: int, queries: slice) -> None:
    torch.manual_seed(0)
    block, positions = Block(SMALL.width, SMALL, 0.2).eval(), Positions(SMALL, SMALL.frames, SMALL.width)
    with torch.no_grad():
        for parameter in [*block.parameters(), positions.vectors]:
            parameter.add_(0.3 * torch.randn_like(parameter))  # norms and biases, too
        projected = 5 + 2 * torch.randn(rows, SMALL.width)
        windows = projected.unfold(0, SMALL.frames, 1).transpose(1, 2)
        expected = block(positions(windows), queries)
        found = FirstBlock(block, positions)(projected, queries)
    assert len(found) == rows - SMALL.frames + 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """The choice of a library is made again, within the test and after it."""
    sliding._onednn_is_faster.cache_clear()
    yield
    sliding._onednn_is_faster.cache_clear()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has one library alone")
@pytest.mark.parametrize(("mkl", "onednn", "is_faster"), [(2.0, 1.0, True), (1.2, 1.0, False), (1.0, 2.0, False)])
def test_the_library_that_takes_much_less_time_here_is_used(
    monkeypatch: pytest.MonkeyPatch, mkl: float, onednn: float, is_faster: bool
) -> None:
    least = sliding._seconds()
    assert all(0 < seconds < 1 for seconds in least)
    monkeypatch.setattr(sliding, "_seconds", lambda: (mkl, onednn))
    assert sliding._onednn_is_faster() == is_faster
    model = small_model().eval()
    rows = features().flatten(0, 1)
    chosen = SlidingGLoT(model)
    assert isinstance(chosen.linear, OneDNN) == is_faster
    windows = rows.unfold(0, SMALL.frames, 1).transpose(1, 2)
    with torch.no_grad():
        for short, long in zip(chosen(rows), model.middle(model(windows)), strict=True):
            torch.testing.assert_close(short, long, rtol=0, atol=1e-4)
