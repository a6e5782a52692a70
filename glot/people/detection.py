"""A picture in; boxes of its people and their scores out, by BlazePose's detector or one of torchvision's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from glot.errors import InputError
from glot.features.backbones.blazepose import Detections, Detector
from glot.models.checkpoint import read_torch_file

# picture (H, W, 3) RGB -> boxes (n, 4: left, top, width, height px) and scores (n,)
PersonDetector = Callable[[NDArray[np.uint8]], Detections]

PERSON = 1  # number of the class "person" in COCO
LEAST_SCORE = 0.5
NETWORKS = (
    torchvision.models.detection.fasterrcnn_resnet50_fpn,
    torchvision.models.detection.fasterrcnn_resnet50_fpn_v2,
    torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn,
    torchvision.models.detection.ssdlite320_mobilenet_v3_large,
)


def load_detector(weights: Path | None, *, tiles: int = 0) -> PersonDetector:
    """BlazePose's detector if ``weights`` is None, else the torchvision network that the weights belong to.

    BlazePose was made for one or a few people who fill a good part of the picture; with ``tiles`` it also looks at
    parts of the picture (see glot.features.backbones.blazepose.Detector). torchvision's networks find small people and
    crowds, too; without a GPU they are several times slower. InputError for a file with other weights.
    """
    if weights is None:
        return Detector(tiles=tiles)
    return TorchvisionDetector(weights)


class TorchvisionDetector:
    """``detector(frame (H, W, 3) uint8 RGB) -> Detections``: people of score 0.5 and more, the highest score first."""

    def __init__(self, weights: Path) -> None:
        self.network = _network_of(read_torch_file(weights), weights)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(self.device)

    @torch.no_grad()
    def __call__(self, frame_rgb: NDArray[np.uint8]) -> Detections:
        image = torch.from_numpy(frame_rgb).to(self.device).permute(2, 0, 1).float() / 255
        (found,) = self.network([image])
        kept = (found["labels"] == PERSON) & (found["scores"] >= LEAST_SCORE)
        corners = found["boxes"][kept].cpu().numpy()
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return Detections(boxes.astype(np.float32), found["scores"][kept].cpu().numpy())


def _network_of(state: object, path: Path) -> nn.Module:
    """The network with these weights, recognised by the names and shapes of the tensors."""
    if isinstance(state, dict):
        found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in state.items()}
        for build in NETWORKS:
            with torch.device("meta"):
                wanted = build(weights=None, weights_backbone=None).state_dict()
            if found == {name: tuple(tensor.shape) for name, tensor in wanted.items()}:
                network = build(weights=None, weights_backbone=None)
                network.load_state_dict(state)
                return network.eval().requires_grad_(False)
    names = ", ".join(build.__name__ for build in NETWORKS)
    raise InputError(f"--detector-weights {path}: not the weights of one of torchvision's {names}, trained on COCO")
