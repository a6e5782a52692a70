"""The name of a backbone in, a frozen feature extractor out: crops of people to a vector of numbers each.

A ResNet-50 (224 px to 2048, global average pool) with weights from a file, or BlazePose (glot.blazepose). Reads
safetensors, torchvision state dicts and SPIN's spin_model_checkpoint.pth.tar; never executes what a file holds.
"""

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glot.errors import InputError
from glot.features.backbones.blazepose import FEATURES, LANDMARK_SIZE, Landmarks, features_hash
from glot.features.backbones.blazepose_files import LANDMARK_FILE, network_file
from glot.features.backbones.onnx_network import Session, to_onnx
from glot.human.crop import CROP_SIZE, normalise

OPEN_WEIGHTS = Path(__file__).parents[2] / "assets" / "resnet50_open.safetensors"
FEATURE_SIZE = 2048
BACKBONES = ("resnet50", "blazepose")
PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Backbone:
    """``module``: normalised crops (B, 3, 224, 224) float32 -> (B, 2048), eval mode, no gradients asked of it; None of
    BlazePose, which is no module of torch.

    ``hash`` names the weights themselves: the same numbers in another container hash equal. ``crop_size`` px is the
    side of the crops it takes.
    """

    module: nn.Module | None
    name: str
    weights_name: str
    hash: str
    feature_size: int = FEATURE_SIZE
    crop_size: int = CROP_SIZE


def load_backbone(name: str = "resnet50", weights: Path | None = None) -> Backbone:
    """The backbone called ``name`` with the weights in a file; None is the open weights that come with the project.

    Without that file (a bare checkout) None is a random network of a fixed seed, called "random-seed0": good for trying
    the pipeline, useless as features. "blazepose" has no weights but its own, fetched the first time.

    Raises InputError for an unknown name, a file that is not such weights, and BlazePose where it cannot be had.
    """
    if name not in BACKBONES:
        raise InputError(f"--backbone {name}: not known; there is {' and '.join(BACKBONES)}")
    if name == "blazepose":
        if weights is not None:
            raise InputError(f"--weights {weights}: are for resnet50; blazepose brings its own, leave them out")
        network_file(LANDMARK_FILE)  # so that it is there, or this fails, before any worker starts
        return Backbone(None, name, LANDMARK_FILE, features_hash(), FEATURES, LANDMARK_SIZE)
    if weights is None and OPEN_WEIGHTS.is_file():
        weights = OPEN_WEIGHTS
    if weights is None:
        module, weights_name = _random_resnet50(seed=0), "random-seed0"
    else:
        module, weights_name = torchvision.models.resnet50(weights=None), Path(weights).name
        _fill(module, _read_weights(Path(weights)), Path(weights))
    module.fc = nn.Identity()
    module.eval().requires_grad_(False)
    return Backbone(module, name, weights_name, trunk_hash(module.state_dict()))


def trunk_hash(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of sha256 over the trunk's names, shapes and float32 values, sorted by name; no batch counters."""
    digest = hashlib.sha256()
    for key in sorted(state):
        if key.split(".")[0] == "fc" or key.endswith("num_batches_tracked"):
            continue
        values = state[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def check_precision(backbone: Backbone, precision: str) -> None:
    """InputError if the backbone has no such precision."""
    if backbone.module is None and precision != "float32":
        raise InputError(f"--precision {precision}: is for resnet50; {backbone.name} runs in float32, leave it out")


class Extractor:
    """A backbone made ready for one device: ``extractor(crops (B, S, S, 3) uint8 RGB) -> (B, F) float32``, S its
    crop_size, F its feature_size.

    On a CPU, onnxruntime runs it on as many threads as torch has: the fastest float32 there is, within 1e-5 of the
    plain module's features relative to the largest. On a GPU it is the plain module in true float32 (TF32 off), so
    that features do not depend on where they were made.

    Faster ones, only for those who ask for them (``deviation`` tells how far off features are): ``precision``
    "bfloat16", on chips with instructions for it about twice as fast; "int8", on CPUs three times and more: it runs
    ``network``, which glot.features.backbones.onnx_network.quantised made of this backbone. BlazePose is for one thread of a CPU and in
    float32, whatever the device.
    """

    def __init__(
        self, backbone: Backbone, *, device: str = "cpu", precision: str = "float32", network: bytes = b""
    ) -> None:
        assert precision in PRECISIONS
        self.device, self.precision = torch.device(device), precision
        self.session: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
        if backbone.module is None:
            check_precision(backbone, precision)
            landmarks = Landmarks()
            self.session = lambda crops: landmarks(crops).features
            return
        if self.device.type == "cpu" and precision != "bfloat16":
            self.session = Session(network or onnx_of(backbone))
            return
        if precision == "int8":
            raise InputError("--precision int8: is for CPUs; on a GPU there is bfloat16")
        self.module = _folded(backbone.module) if self.device.type == "cpu" else copy.deepcopy(backbone.module)
        layout = torch.channels_last if precision == "bfloat16" else torch.preserve_format
        dtype: torch.dtype = getattr(torch, precision)
        self.module.to(self.device, dtype, memory_format=layout)  # type: ignore[call-overload]
        torch.backends.cudnn.allow_tf32 = False

    @torch.no_grad()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.session is not None:
            return self.session(crops)
        pixels = torch.from_numpy(crops)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # or the copy is not asynchronous
        images = normalise(pixels.to(self.device, non_blocking=True))
        if self.precision == "bfloat16":
            images = images.to(torch.bfloat16, memory_format=torch.channels_last)
        return self.module(images).float().cpu().numpy()


def onnx_of(backbone: Backbone) -> bytes:
    """The backbone as a model file for onnxruntime."""
    assert backbone.module is not None, f"{backbone.name} is no module of torch"
    return to_onnx(_folded(backbone.module), backbone.feature_size)


def deviation(exact: Extractor, other: Extractor, crops: NDArray[np.uint8]) -> float:
    """How far the features of one extractor are from those of another: the norm of the difference by that of the
    features, the mean feature taken off them."""
    wanted = exact(crops)
    return float(np.linalg.norm(other(crops) - wanted) / np.linalg.norm(wanted - wanted.mean(0)))


def _folded(module: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions."""
    module = copy.deepcopy(module)
    for block in list(module.modules()):
        for number in "123":
            if isinstance(norm := getattr(block, f"bn{number}", None), nn.BatchNorm2d):
                setattr(block, f"conv{number}", fuse_conv_bn_eval(getattr(block, f"conv{number}"), norm))
                setattr(block, f"bn{number}", nn.Identity())
        if isinstance(shortcut := getattr(block, "downsample", None), nn.Sequential):
            block.downsample = fuse_conv_bn_eval(*shortcut)
    return module


def _random_resnet50(*, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.resnet50(weights=None)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, whatever container it came in."""
    if not path.is_file():
        raise InputError(f"--weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _load_torch(path)
    except InputError:
        raise
    except Exception as error:  # cut, foreign or hostile: a reader can fail anywhere, and all of it means one thing
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"--weights {path}: not readable as weights ({reason}); fetch the file again") from None
    for key in ("model", "state_dict"):  # SPIN's checkpoint, torchvision's training script; else a bare state dict
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise InputError(f"--weights {path}: holds a {type(content).__name__}, not the weights of a ResNet-50")
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def _load_torch(path: Path) -> Any:
    """torch.load without running anything; numpy numbers and arrays beside the weights may be there, nothing else."""
    allowed: list[Any] = [np.ndarray, np.dtype]
    allowed += [type(np.dtype(kind)) for kind in ("b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")]
    rebuild, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    for home in ("numpy.core", "numpy._core"):  # before and since numpy 2
        allowed += [(rebuild, f"{home}.multiarray._reconstruct"), (scalar, f"{home}.multiarray.scalar")]
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a foreign file gets one line, and it is ours
        return torch.load(path, map_location="cpu", weights_only=True)


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copies the trunk's tensors (conv1, bn1, layer1..4) into the module; everything else in the file is left."""
    for key, target in module.state_dict().items():
        if key.split(".")[0] == "fc" or key.endswith("num_batches_tracked"):
            continue
        if key not in state:
            raise InputError(f"--weights {path}: no {key} in it, so not the weights of a ResNet-50")
        if state[key].shape != target.shape:
            found, wanted = tuple(state[key].shape), tuple(target.shape)
            raise InputError(f"--weights {path}: {key} is {found}, a ResNet-50 has {wanted}")
        if not torch.isfinite(state[key].float()).all():
            raise InputError(f"--weights {path}: {key} holds NaN or infinite values; fetch the file again")
        target.copy_(state[key])
