"""The counted cost agrees with a count by hand, and with the counts of the released code."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glot.model_configs import MODELS, GLoTConfig
from glot.models.cost import TRACK, cost_of, shapes_alone
from tests.fixtures.peer_models import PEERS, small_peer
from tests.fixtures.small_model import small_model

# Millions of MACs of a window as the released code computes it, one at a time; MPS-Net's without its 16 bodies for the
# discriminator (166.4). Our regressor multiplies the feature once instead of three times (4.19 M less for a body), the
# estimate that all frames start from once, and MEVA's decoder the vector of the motion once instead of 90 times.
RELEASED = {"tcmr": 860.5, "mps_net": 319.5 - 166.4, "vibe": 451.7, "meva": 6154.0}
FEATURE, ESTIMATE = 2 * 2048 * 1024 / 1e6, 157 * 1024 / 1e6
SAVED = {"tcmr": FEATURE, "mps_net": FEATURE, "vibe": 16 * FEATURE + 15 * ESTIMATE}
SAVED["meva"] = 90 * FEATURE + 89 * 512 * 1536 / 1e6
PARAMETERS = {"tcmr": 81_907_360, "mps_net": 12_646_050, "vibe": 21_309_597, "meva": 64_965_453}
NEW_FRAMES = {"vibe": 16, "meva": 80}  # of a window; windows of MEVA overlap


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


def test_without_the_local_branch_it_costs_less() -> None:
    both, alone = (cost_of(small_model(GLoTConfig(modules=modules))) for modules in ("gmm+lpc", "gmm"))
    assert alone.total < both.total and alone.window < both.window and alone.sliding < both.sliding
    assert "regressor of the correction" not in alone.parameters


@pytest.mark.parametrize("kind", PEERS)
def test_the_released_models(kind: str) -> None:
    cost = cost_of(shapes_alone(MODELS[kind]()))
    assert cost.total == PARAMETERS[kind]
    assert cost.window / 1e6 == pytest.approx(RELEASED[kind] - SAVED[kind], abs=0.5 if kind == "meva" else 0.1)
    assert cost.frozen == (6_237_984 + 168_336 if kind == "meva" else 0)
    if kind in NEW_FRAMES:
        assert cost.sliding == cost.window // NEW_FRAMES[kind]
    else:
        assert cost.sliding < 0.6 * cost.window  # neighbouring windows share most of their rows


def test_a_track_of_tcmr_counted_by_hand() -> None:
    model = small_peer("tcmr")
    size, width, hidden, estimate = 24, 12, 8, 157
    inputs, state = 3 * width * size, 3 * width * width  # MACs of a row in the first layer; of a step from the state
    rows = TRACK + 15  # of which the first 8 and the last 7 are only seen by a window's ends
    everywhere = 2 * (rows * inputs + TRACK * 16 * state) + TRACK * (9 + 8) * 3 * state
    past = (rows - 8) * inputs + TRACK * 8 * 3 * state
    future = (rows - 9) * inputs + TRACK * 7 * 3 * state
    attention = 3 * size * hidden + 3 * hidden * hidden + hidden * hidden + 3 * hidden + 3 * size
    rest = TRACK * (4 * width * size + attention + estimate * size)
    assert cost_of(model).sliding == (everywhere + past + future + rest) // TRACK


@pytest.mark.parametrize("kind", [*PEERS, "glot"])
def test_a_model_of_shapes_counts_what_a_model_of_numbers_computes(kind: str) -> None:
    model = small_model() if kind == "glot" else small_peer(kind)
    features = torch.ones(1 if kind != "glot" else 64, model.config.frames, model.config.feature_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.eval().bodies(features)
    cost = cost_of(model)
    counted = counter.get_total_flops() // 2 // len(features)
    assert counted == cost.window
    assert cost == cost_of(shapes_alone(model.config))
