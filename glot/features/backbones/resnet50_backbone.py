"""A ResNet-50 as a backbone: 224 px crops to 2048 features, in float32, bfloat16 or int8."""

import copy
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, Network
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS, BackboneChoice, BackboneKind
from glot.features.backbones.onnx_network import Session, quantised, to_onnx
from glot.features.backbones.resnet50 import FEATURE_SIZE, RANDOM_SEED, folded, load_resnet50, trunk_hash
from glot.human.crop import normalise
from glot.human.crop_rules import CropRule


class ResNet50(Backbone):
    """``module``: normalised crops (N, 3, 224, 224) float32 -> (N, 2048), in evaluation mode, without gradients.

    On a CPU, onnxruntime runs it: it is the fastest way in float32. Its features differ from those of the plain torch
    module by at most 1e-5 of the largest feature. On a GPU, the plain module runs in true float32 (TF32 off). So
    features do not depend on the machine that computes them. "bfloat16" is about twice as fast on chips with
    instructions for it. "int8" is for CPUs and at least three times as fast; see ``with_int8``.
    """

    def __init__(self, kind: BackboneKind, module: nn.Module, *, weights_name: str, seed: int | None = None) -> None:
        super().__init__(
            kind,
            weights_name=weights_name,
            hash=trunk_hash(module.state_dict()),
            feature_size=FEATURE_SIZE,
            crop_rule=CropRule(),
            seed=seed,
        )
        self.module, self.int8 = module, b""

    def network(self, *, device: str, precision: str) -> Network:
        if precision == "int8":
            if device != "cpu":
                raise InputError("--precision int8: is for CPUs; use bfloat16 on a GPU")
            assert self.int8, "int8 runs the network of with_int8"
            return Session(self.int8)
        if device == "cpu" and precision == "float32":
            return Session(self.to_onnx())
        module = folded(self.module) if device == "cpu" else copy.deepcopy(self.module)
        return _Module(module, torch.device(device), getattr(torch, precision))

    def to_onnx(self) -> bytes:
        """The content of a model file with the network, for onnxruntime."""
        return to_onnx(folded(self.module), self.feature_size)

    def int8_network(self, crops: NDArray[np.uint8]) -> bytes:
        """The content of a model file with the network in int8, calibrated on ``crops`` (N, 224, 224, 3)."""
        return quantised(self.to_onnx(), crops)

    def with_int8(self, network: bytes) -> "ResNet50":
        """The same with a network of ``int8_network`` for precision int8; it has another hash."""
        other = copy.copy(self)
        other.int8, other.hash = network, hashlib.sha256(self.hash.encode() + network).hexdigest()[:16]
        return other


class _Module:
    """Runs the torch module on a device in a type of numbers."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.layout = torch.channels_last if dtype == torch.bfloat16 else torch.preserve_format
        self.module = module.to(device, dtype, memory_format=self.layout)  # type: ignore[call-overload]
        torch.backends.cudnn.allow_tf32 = False

    @torch.no_grad()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = normalise(torch.from_numpy(crops).to(self.device))
        if self.dtype != torch.float32:
            images = images.to(self.dtype, memory_format=self.layout)
        features: NDArray[np.float32] = self.module(images).float().cpu().numpy()
        return features


def load(choice: BackboneChoice) -> ResNet50:
    """The ResNet-50 of a choice: with the weights in a file, the open ones, or random ones."""
    module, name = load_resnet50(choice.weights)
    return ResNet50(
        choice.kind, module, weights_name=name, seed=RANDOM_SEED if choice.weights == RANDOM_WEIGHTS else None
    )
