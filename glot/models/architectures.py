"""A configuration in, its model out. A new model has a configuration in glot.model_configs and a line here."""

from torch import Tensor

from glot.model_configs import ModelConfig
from glot.models.glot import GLoT
from glot.models.meva import MEVA
from glot.models.mps_net import MPSNet
from glot.models.tcmr import TCMR
from glot.models.temporal_model import TemporalModel
from glot.models.vibe import VIBE

ARCHITECTURES: dict[str, type[TemporalModel]] = {
    "glot": GLoT,
    "tcmr": TCMR,
    "mps_net": MPSNet,
    "vibe": VIBE,
    "meva": MEVA,
}


def build(config: ModelConfig, mean: Tensor) -> TemporalModel:
    """An untrained model that starts from the estimate ``mean`` (157,)."""
    return ARCHITECTURES[config.kind].from_mean(config, mean)
