"""A model in, its cost out: parameters by part, and multiply-accumulates (MACs) of a window and of a frame of a track.

Counted: every matrix product, attention's included, by torch's flop counter (two flops are one multiply-accumulate).
Not counted: additions, norms, activations, the kinematic chain's triangular solve (0.01 M), the backbone, the body.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glot.models.glot import GLoT
from glot.models.sliding import SlidingGLoT

WINDOWS = 64  # in the batch: merging two layers (IterativeRegressor) is done once for all of them
TRACK = 512  # frames of the track that is counted
# MACs a window, from the paper's Table 10 (M). The official code runs its iterative regressor on the middle frame
# alone and needs 180.0; on all 16 frames, as in training, 288.3, which is the paper's figure.
PAPER_MACS = {"GLoT": 288.1, "TCMR": 861.8, "MPS-Net": 318.4}


@dataclass(frozen=True)
class Cost:
    """``parameters`` by part of the model, and MACs in evaluation.

    ``window``: of one of 64 windows, all its frames. ``sliding``: of one frame of a long track (SlidingGLoT).
    """

    parameters: dict[str, int]
    window: int
    sliding: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def cost_of(model: GLoT) -> Cost:
    """Counts by running ``model`` on zeros; leaves it in evaluation mode."""
    model.eval()
    config = model.config
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(model).items()}
    assert sum(parameters.values()) == sum(p.numel() for p in model.parameters())
    rows = torch.zeros(TRACK + config.frames - 1, config.feature_size)
    sliding = SlidingGLoT(model)  # it folds the regressors once, whatever the length of the track
    sliding.linear = nullcontext()  # the counter does not know oneDNN's products, which are the same ones
    return Cost(
        parameters,
        _macs(lambda: model(rows[None, : config.frames].expand(WINDOWS, -1, -1))) // WINDOWS,
        _macs(lambda: sliding(rows)) // TRACK,
    )


def _parts(model: GLoT) -> dict[str, nn.Module]:
    """The modules of the model, by the part that they are counted under."""
    motion, correction = model.motion, model.correction
    parts: dict[str, nn.Module] = {
        "projection of the features": motion.project,
        "global encoder": nn.ModuleList([motion.positions, motion.blocks, motion.norm]),
        "decoder": nn.ModuleList(
            [motion.narrow, motion.decoder_positions, motion.decoder_blocks, motion.decoder_norm, motion.widen]
        ),
        "iterative regressor": model.iterative,
    }
    if motion.kept < model.config.frames:
        parts["mask token"] = motion.token
    if correction is not None:
        parts["local encoder and attention"] = nn.ModuleList(
            [module for name, module in correction.named_children() if name != "regressor"]
        )
        parts["regressor of the correction"] = correction.regressor
    return parts


def _macs(run: Callable[[], object]) -> int:
    # The counter does not know every fused kernel of attention; it knows the products that they are made of.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2
