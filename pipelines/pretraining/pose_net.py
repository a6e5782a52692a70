"""Crops in; 2D keypoints, 3D joints, joint rotations, body shape and heatmaps out: a ResNet-50 with linear heads."""

import math

import torch
import torchvision
from torch import Tensor, nn

from glot.features.backbones.resnet50 import FEATURE_SIZE

HEADS = {"keypoints2d": (49, 3), "joints3d": (49, 3), "rot6d": (24, 6), "betas": (10,)}
MAPS = {"layer2": 512, "layer3": 1024, "layer4": FEATURE_SIZE}  # layers with heatmaps, and their channels


class PoseNet(nn.Module):
    """Normalised crops (B, 3, H, W) -> keypoints2d (B, 49, 3: x, y in crop units, logit of being visible), joints3d
    (B, 49, 3) m from the pelvis, rot6d (B, 24, 6) in the camera frame, betas (B, 10); in training also heatmaps of
    layers 2, 3 and 4 (B, 49, h, w), logits of where each joint is.

    The pooled features must tell where the joints are, which is learnt slowly. With heatmaps, the lower layers learn it
    faster.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torchvision.models.resnet50(weights=None)
        self.trunk.fc = nn.Identity()
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURE_SIZE, math.prod(size)) for name, size in HEADS.items()})
        self.maps = nn.ModuleDict({name: nn.Conv2d(size, 49, 1) for name, size in MAPS.items()})
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bn3.weight"):  # weak residual branches: at first, the net learns like a shallow one
                    parameter.fill_(0.25)
                elif name.startswith(("heads.", "maps.")):
                    parameter.normal_(std=0.01) if name.endswith("weight") else parameter.zero_()
            self.get_parameter("heads.rot6d.bias").copy_(torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        trunk, maps = self.trunk, {}
        x = trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images)))))
        for name in MAPS:
            x = trunk.get_submodule(name)(x)
            if self.training:
                maps[name] = self.maps[name](x)  # (B, 49, h, w)
        features = trunk.avgpool(x).flatten(1)
        return {name: self.heads[name](features).unflatten(-1, shape) for name, shape in HEADS.items()} | maps
