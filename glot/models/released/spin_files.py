"""SPIN's checkpoint in; a model whose regressor starts from SPIN's weights out."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glot.errors import InputError
from glot.models.checkpoint import read_torch_file
from glot.models.glot import GLoT
from glot.models.meva import MEVA, spin_to_meva
from glot.models.smpl_params import POSE, SHAPE
from glot.models.temporal_model import TemporalModel

GLOT_LAYERS = {"fc1": "fc1", "pose": "decpose", "shape": "decshape", "cam": "deccam"}  # ours -> SPIN's
PEER_LAYERS = {name: name for name in ("fc1", "fc2", "decpose", "decshape", "deccam")}


def load_spin_regressor(model: TemporalModel, path: Path) -> None:
    """Gives the regressor SPIN's weights (``spin_model_checkpoint.pth.tar``).

    GLoT's iterative regressor has no fc2. MEVA's holds poses in another order, so SPIN's weights are put in that order.
    (MEVA's release starts from random weights.) InputError for a file that lacks them in the sizes of this model.
    """
    content = read_torch_file(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{path}: no SPIN checkpoint, it has no entry 'model'")
    regressor, layers = _regressor_of(model)
    state = regressor.state_dict()
    for name, tensor in state.items():
        layer, _, kind = name.partition(".")
        spin_name = f"{layers[layer]}.{kind}"
        spin_tensor = weights.get(spin_name)
        if not isinstance(spin_tensor, Tensor) or spin_tensor.shape != tensor.shape:
            found = tuple(spin_tensor.shape) if isinstance(spin_tensor, Tensor) else "missing"
            raise InputError(f"{path}: {spin_name} is {found}, this model needs {tuple(tensor.shape)}")
        state[name] = spin_tensor
    regressor.load_state_dict(in_meva_layout(state) if isinstance(model, MEVA) else state)


def _regressor_of(model: TemporalModel) -> tuple[nn.Module, dict[str, str]]:
    """The regressor, and SPIN's name of each of its layers."""
    if isinstance(model, GLoT):
        return model.iterative, GLOT_LAYERS
    return model.get_submodule("regressor"), PEER_LAYERS


def in_meva_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SPIN's regressor weights for poses in MEVA's layout: the rows of decpose, and the columns of fc1 for the pose."""
    fc1 = state["fc1.weight"]
    first = fc1.shape[1] - POSE - SHAPE - 3  # the columns before these are of the feature
    feature, pose, rest = fc1.tensor_split((first, first + POSE), dim=1)
    return {
        **state,
        "fc1.weight": torch.cat((feature, spin_to_meva(pose), rest), dim=1),
        "decpose.weight": spin_to_meva(state["decpose.weight"].T).T.contiguous(),
        "decpose.bias": spin_to_meva(state["decpose.bias"]),
    }
