"""Weights of torchvision's detectors are recognised, and of all detections only people are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from glot.errors import InputError
from glot.people.detection import load_detector

CLASSES = 91


def weights_that_see(category: int, path: Path) -> Path:
    """Untrained weights of SSDlite that detect everything as one of COCO's classes."""
    torch.manual_seed(0)
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with torch.no_grad():
        for block in network.head.classification_head.module_list:
            block[-1].bias.view(-1, CLASSES)[:] = -10
            block[-1].bias.view(-1, CLASSES)[:, category] = 10
    torch.save(network.state_dict(), path)
    return path


def test_only_people_are_kept(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    boxes, scores = load_detector(weights_that_see(1, tmp_path / "people.pth"))(picture)
    assert len(boxes) == len(scores) > 10
    assert boxes.dtype == scores.dtype == np.float32
    assert (np.diff(scores) <= 0).all() and scores.min() >= 0.5
    left, top, width, height = boxes.T
    assert (np.minimum(left, top) >= 0).all() and (np.minimum(width, height) > 0).all()
    assert (left + width).max() <= 200.01 and (top + height).max() <= 120.01
    boxes, _ = load_detector(weights_that_see(2, tmp_path / "bicycles.pth"))(picture)
    assert boxes.shape == (0, 4)


def test_files_with_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not the weights of one of torchvision's fasterrcnn_resnet50_fpn"):
        load_detector(tmp_path / "other.pth")
    with pytest.raises(InputError, match="there is no such file"):
        load_detector(tmp_path / "none.pth")
