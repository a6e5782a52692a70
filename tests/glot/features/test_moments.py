"""Moments of rows that came in blocks are those of all rows at once, to ten digits, whatever the blocks."""

import numpy as np
import pytest

from glot.features.moments import Moments


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("sizes", [[1000], [1, 0, 999], [337, 63, 600], [1] * 1000])
def test_blocks_make_the_moments_of_the_whole(sizes: list[int], offset: float) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1000, 12)) @ rng.standard_normal((12, 12)) + offset).astype(np.float32)
    rows[:500] += 3  # the blocks have different means
    moments = Moments(12)
    for block in np.split(rows, np.cumsum(sizes)[:-1]):
        moments.add(block)
    exact = rows.astype(np.longdouble)
    centred = exact - exact.mean(0)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, exact.mean(0).astype(float), rtol=1e-12, atol=1e-12)
    scatter = (centred.T @ centred).astype(float)
    np.testing.assert_allclose(moments.scatter, scatter, rtol=0, atol=1e-10 * np.abs(scatter).max())


def test_a_constant_column_has_no_spread() -> None:
    moments = Moments(2)
    for _ in range(7):
        moments.add(np.full((3, 2), 0.1, np.float32))
    assert np.abs(moments.scatter).max() < 1e-30
