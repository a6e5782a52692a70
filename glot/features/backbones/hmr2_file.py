"""A checkpoint of HMR2.0 in, the network with its weights out.

The file is Lightning's: the tensors are in ``state_dict``, those of the network under ``backbone.`` and ``smpl_head.``;
all else (discriminator, optimiser, settings) is ignored. 2.0a and 2.0b have the same tensors with other numbers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glot.errors import InputError
from glot.features.backbones.hmr2_network import HEIGHT, HMR2, TOKEN_HEAD, VIT_HEAD, WIDTH, HMR2Sizes
from glot.human.torch_archive import read_tensors
from glot.human.torch_index import Stored, shown

PARTS = ("backbone.", "smpl_head.")
MOST_LAYERS = 256


def load_hmr2(path: Path) -> HMR2:
    """The network in evaluation mode, without gradients. It may have other widths and depths than the release.

    InputError for a file that does not hold exactly its tensors.
    """
    state = read_tensors(path, "--weights", _chosen)
    where = f"--weights {path}"
    try:
        sizes = sizes_of(state)
    except (KeyError, ValueError, IndexError):
        raise InputError(f"{where}: lacks tensors of HMR2.0's network, such as backbone.pos_embed") from None
    with torch.device("meta"):
        network = HMR2(sizes)
    _check_shapes(state, network.state_dict(), where)
    for name, values in state.items():  # one after the other, so that little is in memory twice
        state[name] = _checked(name, values, where)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def sizes_of(state: Mapping[str, Tensor]) -> HMR2Sizes:
    """The sizes of the network with these tensors. KeyError, ValueError or IndexError where they do not say."""
    token = _size(state, "smpl_head.transformer.pos_embedding", 2)
    inner = _size(state, "smpl_head.transformer.transformer.layers.0.1.fn.to_q.weight", 0)
    width = _size(state, "backbone.pos_embed", 2)
    if width % VIT_HEAD or inner % TOKEN_HEAD:
        raise ValueError("widths that heads do not divide")
    return HMR2Sizes(
        width=width,
        depth=_count(state, r"backbone\.blocks\.(\d+)\."),
        mlp=_size(state, "backbone.blocks.0.mlp.fc1.weight", 0),
        token=token,
        layers=_count(state, r"smpl_head\.transformer\.transformer\.layers\.(\d+)\."),
        inner=inner,
        token_mlp=_size(state, "smpl_head.transformer.transformer.layers.0.2.fn.net.0.weight", 0),
    )


def _size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    if not state[name].numel():
        raise ValueError(f"{name} is empty")
    return state[name].shape[axis]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers have names of this pattern."""
    count = len({found[1] for name in state if (found := re.match(pattern, name))})
    if count > MOST_LAYERS:
        raise ValueError(f"{count} layers")
    return count


def _chosen(content: Any) -> dict[str, Stored]:
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise InputError("holds no state_dict, so it is no checkpoint of HMR2.0")
    chosen = {name: value for name, value in state.items() if isinstance(name, str) and name.startswith(PARTS)}
    if not chosen:
        raise InputError("its state_dict has nothing under backbone. and smpl_head., so it is no checkpoint of HMR2.0")
    return chosen


def _check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    if missing := sorted(wanted.keys() - state.keys()):
        raise InputError(f"{where}: lacks {missing[0]} ({len(missing)} of {len(wanted)} tensors of HMR2.0)")
    if more := sorted(state.keys() - wanted.keys()):
        raise InputError(f"{where}: holds {shown(more[0])}, which HMR2.0 does not have")
    for name, values in state.items():
        if values.shape != wanted[name].shape:
            patches = f" (crops have {HEIGHT} x {WIDTH} patches)" if name == "backbone.pos_embed" else ""
            shape = tuple(wanted[name].shape)
            raise InputError(f"{where}: {name} is {tuple(values.shape)}, HMR2.0 has {shape}{patches}")


def _checked(name: str, values: Tensor, where: str) -> Tensor:
    """The values as float32."""
    if not values.is_floating_point():
        raise InputError(f"{where}: {name} holds {str(values.dtype).removeprefix('torch.')}, HMR2.0 has float32")
    values = values.float()
    if not torch.stack(values.aminmax()).isfinite().all():  # NaN spreads to both; reads 2.7 GB in less than a second
        raise InputError(f"{where}: {name} holds values that are no finite numbers; fetch the file again")
    return values
