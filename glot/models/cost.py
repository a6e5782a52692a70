"""A model in, its cost out: parameters by part, and multiply-accumulates (MACs) of a window and of a frame of a track.

Counted: every matrix product, also those of attention and of recurrent layers, by torch's flop counter (two flops are a
multiply-accumulate). Not counted: additions, norms, activations, the kinematic chain's triangular solve (0.01 M), the
backbone, the body. Only shapes are computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glot.model_configs import ModelConfig
from glot.models.architectures import build
from glot.models.glot import GLoT
from glot.models.prediction.track_predictors import MiddlePredictor, WholePredictor, track_predictor
from glot.models.smpl_params import ESTIMATE
from glot.models.temporal_model import TemporalModel

WINDOWS = 64  # windows of GLoT's counted batch, which share the cost of merging two layers (IterativeRegressor)
TRACK = 512  # frames of the counted track
# Millions of MACs per window, from the paper's Table 10. In evaluation, the official code of GLoT runs its iterative
# regressor on the middle frame alone, and needs 180.0. With all 16 frames, as in training, it needs 288.3, which is
# near the paper's number. MPS-Net's code also makes the bodies of all 16 frames for its discriminator: 166.4 of 319.5.
# The regressor of the other models multiplies the feature in each of its 3 iterations, ours once: 4.2 less for a body.
PAPER_MACS = {"GLoT": 288.1, "TCMR": 861.8, "MPS-Net": 318.4}


@dataclass(frozen=True)
class Cost:
    """``parameters`` by part of the model, those that training does not change, and MACs in evaluation.

    ``window``: MACs of a window; GLoT's for all its frames, and in a batch of 64. ``sliding``: MACs per frame of a long
    track (glot.models.prediction.track_predictors).
    """

    parameters: dict[str, int]
    frozen: int
    window: int
    sliding: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def cost_of(model: TemporalModel) -> Cost:
    """The cost of a model of this configuration; its weights do not matter."""
    parts = _parts(model) if isinstance(model, GLoT) else dict(model.named_children())
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert sum(parameters.values()) == sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    shapes = shapes_alone(model.config)
    window = _window(shapes)
    return Cost(parameters, frozen, window, _frame_of_track(shapes, window))


def shapes_alone(config: ModelConfig) -> TemporalModel:
    """A model whose tensors have shapes and no numbers, so that running it takes neither time nor memory."""
    if config.kind == "glot":  # it needs numbers when it is built
        return build(config, torch.zeros(ESTIMATE)).to("meta").eval()
    with torch.device("meta"):
        return build(config, torch.zeros(ESTIMATE)).eval()


def _window(model: TemporalModel) -> int:
    features = torch.zeros(1, model.config.frames, model.config.feature_size, device=model.mean.device)
    if isinstance(model, GLoT):
        return _macs(lambda: model(features.expand(WINDOWS, -1, -1))) // WINDOWS
    return _macs(lambda: model.bodies(features))


def _frame_of_track(model: TemporalModel, window: int) -> int:
    predictor = track_predictor(model)  # not counted: layers are merged once for tracks of any length
    if isinstance(predictor, WholePredictor):  # there is a window for so many frames
        return window // (predictor.frames - predictor.overlap)
    assert isinstance(predictor, MiddlePredictor)
    count = predictor.batch or TRACK
    rows = torch.zeros(count + predictor.frames - 1, model.config.feature_size, device=model.mean.device)
    return _macs(lambda: predictor.sliding(rows)) // count


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
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2
