"""A model in, what it costs out: parameters by part, and multiply-accumulates of a window and of a frame of a track.

Counted: every matrix product, attention's included, by torch's flop counter (two flops are one multiply-accumulate).
Not counted: additions, norms, activations, the kinematic chain's triangular solve (0.01 M), the backbone, the body.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glot.models.glot import GLoT
from glot.models.sliding import SlidingGLoT

WINDOWS = 64  # in the batch that shares the merging of two layers
TRACK = 512  # frames of the track whose cost is shared out among them
# MACs a window, from the paper's Table 10 (M). The official code runs its iterative regressor on the middle frame
# alone and needs 180.0; on all 16 frames, as in training, 288.3, which is the paper's figure.
PAPER_MACS = {"GLoT": 288.1, "TCMR": 861.8, "MPS-Net": 318.4}


@dataclass(frozen=True)
class Cost:
    """``parameters`` by part; MACs in evaluation: ``window`` of one of 64 windows, all its frames, ``sliding`` of one
    frame of a long track."""

    parameters: dict[str, int]
    window: int
    sliding: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def cost_of(model: GLoT) -> Cost:
    """Counts by running ``model`` (left in evaluation mode) on zeros."""
    model.eval()
    config = model.config
    motion = model.motion
    parts = {
        "projection of the features": motion.project,
        "global encoder": torch.nn.ModuleList([motion.positions, motion.blocks, motion.norm]),
        "decoder": torch.nn.ModuleList(
            [motion.narrow, motion.decoder_positions, motion.decoder_blocks, motion.decoder_norm, motion.widen]
        ),
        "iterative regressor": model.iterative,
    }
    if motion.kept < config.frames:
        parts["mask token"] = motion.token
    if model.correction is not None:
        parts["local encoder and attention"] = torch.nn.ModuleList(
            [part for name, part in model.correction.named_children() if name != "regressor"]
        )
        parts["regressor of the correction"] = model.correction.regressor
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert sum(parameters.values()) == sum(p.numel() for p in model.parameters())
    rows = torch.zeros(TRACK + config.frames - 1, config.feature_size)
    sliding = SlidingGLoT(model)  # its folding is done once, whatever the length of the tracks
    sliding.linear = nullcontext()  # oneDNN's products are the same ones, but the counter does not know them
    return Cost(
        parameters,
        _macs(lambda: model(rows[None, : config.frames].expand(WINDOWS, -1, -1))) // WINDOWS,
        _macs(lambda: sliding(rows)) // TRACK,
    )


def _macs(run: Callable[[], object]) -> int:
    # The counter knows the products that attention is made of, not every fused kernel.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2
