"""A backbone, a device and a precision in; a function from crops to features out."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone
from glot.features.backbones.blazepose import Landmarks
from glot.features.backbones.names import check_backbone
from glot.features.backbones.onnx_network import Session, to_onnx
from glot.features.backbones.resnet50 import folded
from glot.human.crop import normalise


class Extractor:
    """``extractor(crops (B, S, S, 3) uint8 RGB) -> (B, F) float32``; S is the backbone's crop_size, F its feature_size.

    On a CPU, onnxruntime runs the backbone with torch's number of threads: it is the fastest way in float32. Its
    features differ from those of the plain torch module by at most 1e-5 of the largest feature. On a GPU, the plain
    module runs in true float32 (TF32 off). So features do not depend on the machine that computes them.

    Two other values of ``precision`` are faster and change the features; ``deviation`` measures by how much.
    "bfloat16" is about twice as fast on chips with instructions for it. "int8" is for CPUs and at least three times as
    fast; it runs ``network``, which glot.features.backbones.onnx_network.quantised makes from the backbone.

    BlazePose always runs on one CPU thread in float32.
    """

    def __init__(
        self, backbone: Backbone, *, device: str = "cpu", precision: str = "float32", network: bytes = b""
    ) -> None:
        check_backbone(backbone.name, precision=precision)
        self.device, self.precision = torch.device(device), precision
        self.session: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
        if backbone.module is None:
            landmarks = Landmarks()
            self.session = lambda crops: landmarks(crops).features
            return
        if self.device.type == "cpu" and precision != "bfloat16":
            self.session = Session(network or onnx_of(backbone))
            return
        if precision == "int8":
            raise InputError("--precision int8: is for CPUs; use bfloat16 on a GPU")
        self.module = folded(backbone.module) if self.device.type == "cpu" else copy.deepcopy(backbone.module)
        layout = torch.channels_last if precision == "bfloat16" else torch.preserve_format
        dtype: torch.dtype = getattr(torch, precision)
        self.module.to(self.device, dtype, memory_format=layout)  # type: ignore[call-overload]
        torch.backends.cudnn.allow_tf32 = False

    @torch.no_grad()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.session is not None:
            return self.session(crops)
        images = normalise(torch.from_numpy(crops).to(self.device))
        if self.precision == "bfloat16":
            images = images.to(torch.bfloat16, memory_format=torch.channels_last)
        return self.module(images).float().cpu().numpy()


def onnx_of(backbone: Backbone) -> bytes:
    """The content of a model file with the backbone, for onnxruntime."""
    assert backbone.module is not None, f"{backbone.name} is no torch module"
    return to_onnx(folded(backbone.module), backbone.feature_size)


def deviation(exact: Extractor, other: Extractor, crops: NDArray[np.uint8]) -> float:
    """How far the features of ``other`` are from those of ``exact`` on ``crops`` (B, S, S, 3).

    The norm of the difference, divided by the norm of the exact features relative to their mean.
    """
    wanted = exact(crops)
    return float(np.linalg.norm(other(crops) - wanted) / np.linalg.norm(wanted - wanted.mean(0)))
