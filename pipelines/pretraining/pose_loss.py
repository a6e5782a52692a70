"""Outputs of PoseNet and their targets in, the weighted terms of the loss out. B crops, J joints."""

import torch
import torch.nn.functional as F
from torch import Tensor

from glot.human.rotation import rot6d_to_rotmat
from pipelines.pretraining.pose_net import MAPS


def pose_loss(out: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weighted terms of the loss, which is their sum. ``target`` is what ``collate`` returns.

    Errors of positions have long tails, so their terms are L1. The terms of rotations and shape are squares.
    """
    points, truth = out["keypoints2d"], target["keypoints2d"]
    visible = truth[..., 2]
    weight = 0.3 + 0.7 * visible  # hidden joints can be guessed, but not well
    inside = (truth[..., :2].abs() < 1).all(-1)
    near = weight * (truth[..., :2].abs() < 1.5).all(-1)
    distance = (points[..., :2] - truth[..., :2]).abs().sum(-1)
    rotmats = rot6d_to_rotmat(out["rot6d"])
    terms = {
        "keypoints2d": (distance * near).sum() / near.sum().clamp(min=1),
        "visible": 0.05 * F.binary_cross_entropy_with_logits(points[..., 2], visible),
        "joints3d": 5 * (out["joints3d"] - target["joints3d"]).abs().sum(-1).mean(),
        "rotmats": (rotmats - target["rotmats"]).square().sum((-1, -2)).mean(),
        "betas": 0.03 * (out["betas"] - target["betas"]).square().mean(),
    }
    for name in MAPS:
        if name in out:
            entropy = heatmap_cross_entropy(out[name], truth[..., :2])
            terms[name] = 0.3 * (entropy * weight * inside).sum() / (weight * inside).sum().clamp(min=1)
    return terms


def heatmap_cross_entropy(logits: Tensor, points: Tensor) -> Tensor:
    """(B, J) cross-entropy in nats between heatmaps (B, J, h, w) of logits and points (B, J, 2) in crop units.

    The target of a point is spread over the four nearest cells, bilinearly.
    """
    height, width = logits.shape[-2:]
    log_probabilities = logits.flatten(2).log_softmax(-1)
    total = torch.zeros_like(log_probabilities[..., 0])
    place = (points + 1) / 2 * torch.tensor([width, height], device=points.device) - 0.5
    low = place.floor()
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner = low + torch.tensor([right, down], device=points.device)
        weight = (1 - (place - corner).abs()).prod(-1)
        x, y = corner[..., 0].clamp(0, width - 1), corner[..., 1].clamp(0, height - 1)
        total = total - weight * log_probabilities.gather(-1, (y * width + x).long()[..., None]).squeeze(-1)
    return total
