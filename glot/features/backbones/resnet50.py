"""A file of weights in, a frozen ResNet-50 trunk out: 224 px crops to 2048 features (global average pool).

Reads safetensors, torchvision state dicts and SPIN's spin_model_checkpoint.pth.tar; never executes what a file holds.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from glot.features.backbones.weights_hash import weights_hash
from glot.human.safe_torch import load_torch
from glot.shipped import shipped_file

OPEN_WEIGHTS = "resnet50_open.safetensors"
RANDOM_SEED = 0
FEATURE_SIZE = 2048


def load_resnet50(weights: Path | None) -> tuple[nn.Module, str]:
    """The trunk in evaluation mode, without gradients, and the name of its weights.

    None is the open weights, RANDOM_WEIGHTS a random network of RANDOM_SEED. InputError for a file that does not hold
    the weights of a ResNet-50, and where the open weights are missing (see ``glot.shipped``).
    """
    if weights == RANDOM_WEIGHTS:
        module = random_resnet50(seed=RANDOM_SEED)
    else:
        weights = shipped_file(OPEN_WEIGHTS) if weights is None else Path(weights)
        module = torchvision.models.resnet50(weights=None)
        _fill(module, _read_weights(weights), weights)
    module.fc = nn.Identity()
    return module.eval().requires_grad_(False), weights.name


def trunk_hash(state: Mapping[str, Tensor]) -> str:
    """``weights_hash`` of the trunk's tensors."""
    return weights_hash({key: values for key, values in state.items() if _is_trunk(key)})


def folded(module: nn.Module) -> nn.Module:
    """A copy of the network with its batch norms folded into the convolutions."""
    module = copy.deepcopy(module)
    for block in list(module.modules()):
        for number in "123":
            if isinstance(norm := getattr(block, f"bn{number}", None), nn.BatchNorm2d):
                setattr(block, f"conv{number}", fuse_conv_bn_eval(getattr(block, f"conv{number}"), norm))
                setattr(block, f"bn{number}", nn.Identity())
        if isinstance(shortcut := getattr(block, "downsample", None), nn.Sequential):
            block.downsample = fuse_conv_bn_eval(*shortcut)
    return module


def _is_trunk(key: str) -> bool:
    """Whether a tensor of this name is part of the trunk: neither the classifier nor a batch counter."""
    return key.split(".")[0] != "fc" and not key.endswith("num_batches_tracked")


def random_resnet50(*, seed: int) -> nn.Module:
    """A network with random weights: the same on every machine, of the spread that torchvision's initial weights have.

    torchvision's own are normally distributed, and PyTorch draws those differently with and without AVX2, so that the
    workers of one job could have different networks. The random state of the caller does not change.
    """
    with torch.random.fork_rng(devices=[]):
        module = torchvision.models.resnet50(weights=None)
    generator = np.random.default_rng(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1]
            drawn = generator.random(part.weight.shape, dtype=np.float32) * 2 - 1
            part.weight.data = torch.from_numpy(drawn * np.float32((6 / fan_out) ** 0.5))
    return module


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file of any format that the module reads."""
    if not path.is_file():
        raise InputError(f"--weights {path}: there is no such file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except Exception as error:  # a truncated, foreign or hostile file can make the readers raise any exception
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"--weights {path}: not readable as weights ({reason}); fetch the file again") from None
    for key in ("model", "state_dict"):  # SPIN's checkpoint, torchvision's training script; else a bare state dict
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise InputError(f"--weights {path}: holds a {type(content).__name__}, not the weights of a ResNet-50")
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copies the trunk's tensors (conv1, bn1, layer1..4) into the module; ignores everything else in the file."""
    for key, target in module.state_dict().items():
        if not _is_trunk(key):
            continue
        if key not in state:
            raise InputError(f"--weights {path}: no {key} in it, so not the weights of a ResNet-50")
        if state[key].shape != target.shape:
            found, wanted = tuple(state[key].shape), tuple(target.shape)
            raise InputError(f"--weights {path}: {key} is {found}, a ResNet-50 has {wanted}")
        if not torch.isfinite(state[key].float()).all():
            raise InputError(f"--weights {path}: {key} holds NaN or infinite values; fetch the file again")
        target.copy_(state[key])
