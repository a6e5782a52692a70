"""The counted cost agrees with a count by hand, and with the published one of the official model."""

from dataclasses import replace

import pytest

from glot.model_configs import GLoTConfig
from glot.models.cost import cost_of
from glot.models.prediction import frozen
from tests.fixtures.small_model import small_model


def test_a_wider_feature_costs_what_its_layers_say() -> None:
    config = GLoTConfig(feature_size=512, mask_ratio=0.0)
    narrow, wide = (cost_of(small_model(replace(config, feature_size=size))) for size in (512, 1024))
    # A window projects 16 rows to 512 and 9 to 256; merging two layers (256 inputs, a bias) is shared by 64.
    assert wide.window - narrow.window == 16 * 512 * 512 + 9 * 512 * 256 + 1024 * 512 * 257 // 64
    # 512 windows of a track have 527 rows, of which the local branch never sees the outer 4 and 3.
    assert wide.sliding - narrow.sliding == (527 * 512 * 512 + 520 * 512 * 256) // 512
    grown = {name: wide.parameters[name] - count for name, count in narrow.parameters.items()}
    assert {name for name, more in grown.items() if more} == {
        "projection of the features", "decoder", "iterative regressor", "local encoder and attention",
    }  # fmt: skip


def test_the_papers_model() -> None:
    cost = cost_of(small_model(GLoTConfig()))
    # The official code needs 180.0 M for a window with its regressor on the middle frame alone. We regress all 16 for
    # the global branch and 3 for the local one, with two layers merged: 5 % more for 16 frames instead of one.
    assert 180.0e6 < cost.window < 1.06 * 180.0e6
    assert cost.sliding < 0.72 * 180.0e6


@pytest.mark.parametrize("seconds", [(9.0, 1.0), (1.0, 9.0)])
def test_the_library_does_not_change_the_count(monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float]) -> None:
    model = small_model()
    expected = cost_of(model)
    frozen.onednn_is_faster.cache_clear()
    monkeypatch.setattr(frozen, "measured_seconds", lambda: seconds)
    monkeypatch.setattr(frozen, "SMALL", 0)
    found = cost_of(model)
    frozen.onednn_is_faster.cache_clear()
    assert found == expected


def test_without_the_local_branch_it_costs_less() -> None:
    both, alone = (cost_of(small_model(GLoTConfig(modules=modules))) for modules in ("gmm+lpc", "gmm"))
    assert alone.total < both.total and alone.window < both.window and alone.sliding < both.sliding
    assert "regressor of the correction" not in alone.parameters
