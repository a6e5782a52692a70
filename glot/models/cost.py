"""A model in, its cost out: parameters by part, and multiply-accumulates (MACs) of a window and of a frame of a track.

Counted: every matrix product, also those of attention, by torch's flop counter (two flops are a multiply-accumulate).
Not counted: additions, norms, activations, the kinematic chain's triangular solve (0.01 M), the backbone, the body.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glot.models.glot import GLoT
from glot.models.prediction.sliding import SlidingGLoT

WINDOWS = 64  # windows of the counted batch, which share the cost of merging two layers (IterativeRegressor)
TRACK = 512  # frames of the counted track
# Millions of MACs per window, from the paper's Table 10. In evaluation, the official code runs its iterative regressor
# on the middle frame alone, and needs 180.0. With all 16 frames, as in training, it needs 288.3, which is near the
# paper's number.
PAPER_MACS = {"GLoT": 288.1, "TCMR": 861.8, "MPS-Net": 318.4}


@dataclass(frozen=True)
class Cost:
    """``parameters`` by part of the model, and MACs in evaluation.

    ``window``: MACs for all frames of a window in a batch of 64. ``sliding``: MACs per frame of a long track
    (SlidingGLoT).
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
    sliding = SlidingGLoT(model)  # not counted: layers are merged once for tracks of any length
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
    # The counter does not know every fused kernel of attention. The math backend computes plain products instead.
    known = (
        {torch.ops.mkldnn._linear_pointwise: _flops_of_onednn} if hasattr(torch.ops.mkldnn, "_linear_pointwise") else {}
    )
    counting = FlopCounterMode(display=False, custom_mapping=known)
    with torch.no_grad(), counting as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2


def _flops_of_onednn(x: Sequence[int], *_: object, out_shape: Sequence[int], **__: object) -> int:
    """The flops of oneDNN's linear layer, which takes ``x`` and returns a tensor of ``out_shape``."""
    return 2 * math.prod(out_shape) * x[-1]
