"""A GLoT output and its targets in; the loss and its named terms out (paper equations 6 to 9, official weights).

B windows, T frames, K frames of one branch: all T of the global branch, the supervised middle ones of the local branch.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glot.config import LossConfig
from glot.human.body import Body
from glot.human.camera import project
from glot.human.joints import COMMON14_IN_SPIN49, L_HIP, R_HIP
from glot.models.glot import GLoTOutput
from glot.models.smpl_params import SMPLParams


@dataclass
class Targets:
    """The labels of B windows of T frames. 3D values may be anything where their weight is 0; 2D values are finite."""

    keypoints2d: Tensor  # (B, T, 49, 3): x, y in [-1, 1] of the crop, confidence
    joints3d: Tensor  # (B, T, 49, 3) m
    rotmats: Tensor  # (B, T, 24, 3, 3)
    betas: Tensor  # (B, T, 10)
    w_3d: Tensor  # (B, T): 1 where joints3d is known
    w_smpl: Tensor  # (B, T): 1 where rotmats and betas are known
    is_3d: Tensor  # (B,) bool: False for windows of 2D sets, which only the 2D terms see

    def to(self, device: Any) -> "Targets":
        """The same targets on another device."""
        return Targets(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def frames(self, window: slice) -> "Targets":
        """The targets of the frames in ``window``."""
        framed = {f.name: getattr(self, f.name)[:, window] for f in fields(self) if f.name != "is_3d"}
        return Targets(**framed, is_3d=self.is_3d)


class Counts(NamedTuple):
    """Numbers of frames of one branch, 0-d float tensors."""

    every: Tensor
    knows_3d: Tensor
    knows_smpl: Tensor
    supervised_3d: Tensor  # of those that know 3D


def frame_counts(targets: Targets, mask: Tensor, *, local_frames: int) -> Tensor:
    """(1 or 2 branches, 4): the numbers of frames that the terms are means over, see ``Counts``.

    ``mask`` (B, T): frames hidden from the encoder; ``local_frames``: K of the local branch, 0 without one. The counts
    are known before the model has run. Where several workers share a batch, or a worker takes it in several parts, the
    loss of every part gets the mean of all parts' counts.
    """
    return torch.stack(
        [
            torch.stack(_counts(of_branch, supervised))
            for _, of_branch, supervised in _parts(targets, mask, local_frames)
        ]
    )


def glot_loss(
    output: GLoTOutput, targets: Targets, *, body: Body, config: LossConfig, counts: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total and its weighted terms, "global/…" and "local/…", which sum to it (detached, for logging).

    Terms are means over the frames that have the label. The parts of a batch (DDP's workers, accumulation) have
    different numbers of them. ``counts`` are then the means of all parts' ``frame_counts``, so that the mean of the
    parts' losses, and its gradient, is that of the whole batch.

    The global branch is supervised on the frames that were hidden from it, or on all of them where none was (official
    code multiplies by the mask, so that a mask ratio of 0 would train nothing). A term without any target is 0.
    ValueError where output and targets have different numbers of windows or frames.
    """
    batch, frames = output.global_.betas.shape[:2]
    if targets.keypoints2d.shape[:2] != (batch, frames):
        raise ValueError(f"targets of {tuple(targets.keypoints2d.shape[:2])} windows and frames, not {(batch, frames)}")
    branches = {"global": output.global_}
    if output.has_local:
        branches["local"] = output.local
    # One evaluation of the body for both branches: (B, T + K, 49, 3).
    rotmats = torch.cat([params.rotmats for params in branches.values()], dim=1)
    betas = torch.cat([params.betas for params in branches.values()], dim=1)
    joints = body.joints(rotmats.flatten(0, 1), betas.flatten(0, 1)).unflatten(0, (batch, -1))
    points = {"global": joints[:, :frames], "local": joints[:, frames:]}

    local_frames = output.local.betas.shape[1] if output.has_local else 0
    if counts is None:
        counts = frame_counts(targets, output.mask, local_frames=local_frames)
    terms: dict[str, Tensor] = {}
    for (name, of_branch, supervised), frames_of in zip(
        _parts(targets, output.mask, local_frames), counts, strict=True
    ):
        terms |= _branch(branches[name], points[name], of_branch, supervised, config, Counts(*frames_of), name)
    total = torch.stack(list(terms.values())).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def _parts(targets: Targets, mask: Tensor, local_frames: int) -> list[tuple[str, Targets, Tensor]]:
    """For each branch: its name, the targets of its K frames, and (B, K) 1 where a frame is supervised."""
    supervised = (mask | ~mask.any()).float()
    parts = [("global", targets, supervised)]
    if local_frames:
        first = mask.shape[1] // 2 - local_frames // 2
        middle = targets.frames(slice(first, first + local_frames))
        parts.append(("local", middle, torch.ones_like(supervised[:, :local_frames])))
    return parts


def _counts(targets: Targets, supervised: Tensor) -> Counts:
    knows_3d = targets.is_3d[:, None] & targets.w_3d.bool()
    knows_smpl = targets.is_3d[:, None] & targets.w_smpl.bool()
    every = torch.tensor(float(knows_3d.numel()), device=knows_3d.device)
    return Counts(every, knows_3d.sum().float(), knows_smpl.sum().float(), (supervised * knows_3d).sum())


def _branch(
    params: SMPLParams,
    joints: Tensor,
    targets: Targets,
    supervised: Tensor,
    config: LossConfig,
    counts: Counts,
    name: str,
) -> dict[str, Tensor]:
    """The six terms of one branch; ``supervised`` (B, K) is 1 on the frames that count."""
    points = project(joints, params.cam)
    known, confidence = targets.keypoints2d[..., :2], targets.keypoints2d[..., 2]
    knows_3d = targets.is_3d[:, None] & targets.w_3d.bool()
    knows_smpl = targets.is_3d[:, None] & targets.w_smpl.bool()
    body14, known14 = joints[..., COMMON14_IN_SPIN49, :], targets.joints3d[..., COMMON14_IN_SPIN49, :]
    centred, known_centred = _root_centred(body14), _root_centred(known14)

    everywhere = torch.ones_like(knows_3d)
    weights2d = supervised[..., None] * confidence  # (B, K, 49)
    terms = {
        "keypoints2d": config.keypoints2d * _mean_square(points, known, everywhere, weights2d, counts.every),
        "joints3d": config.joints3d * _mean_square(centred, known_centred, knows_3d, supervised, counts.knows_3d),
        "pose": config.pose * _mean_square(params.rotmats, targets.rotmats, knows_smpl, supervised, counts.knows_smpl),
        "shape": config.shape * _mean_square(params.betas, targets.betas, knows_smpl, supervised, counts.knows_smpl),
    }

    def change(x: Tensor) -> Tensor:
        return _differences(x, use_accel=config.use_accel)

    # Official code weights a 2D velocity by the confidence of its own frame alone, not of the next; kept.
    velocity2d = _mean_square(change(points), change(known), everywhere, weights2d, counts.every)
    terms["velocity2d"] = config.velocity2d * velocity2d
    if config.velocity3d_root == "centred":
        body14, known14 = centred, known_centred
    if config.velocity3d_mask == "official":
        share = counts.supervised_3d / counts.knows_3d.clamp(min=1)
        plain = torch.ones_like(supervised)
        velocity3d = share * _mean_square(change(body14), change(known14), knows_3d, plain, counts.knows_3d)
    else:
        # A difference counts where all frames that it is taken from are known.
        together = supervised * _has_neighbours(knows_3d, use_accel=config.use_accel)
        velocity3d = _mean_square(change(body14), change(known14), knows_3d, together, counts.knows_3d)
    terms["velocity3d"] = config.velocity3d * velocity3d
    return {f"{name}/{term}": value for term, value in terms.items()}


def _mean_square(predicted: Tensor, target: Tensor, known: Tensor, weights: Tensor, count: Tensor) -> Tensor:
    """Sum over the ``known`` (B, K) frames of weights x squared error, divided by their ``count``.

    0, and still part of the graph, if there are none. Official code averages over all known frames, not over the
    supervised ones; kept.
    """
    known = known.view(*known.shape, *[1] * (predicted.ndim - 2))
    weights = weights.view(*weights.shape, *[1] * (predicted.ndim - weights.ndim))
    counted = known & (weights != 0)
    # Unknown targets are left out before squaring, because they may be NaN.
    error = torch.where(counted, predicted - target, 0.0)
    per_frame = predicted[0, 0].numel()
    return (weights * error.square()).sum() / (count * per_frame).clamp(min=1)


def _root_centred(joints14: Tensor) -> Tensor:
    """(..., 14, 3) relative to the middle of the hips."""
    right, left = joints14[..., R_HIP, :], joints14[..., L_HIP, :]
    return joints14 - ((right + left) / 2).unsqueeze(-2)


def _differences(x: Tensor, *, use_accel: bool) -> Tensor:
    """x[t + 1] - x[t], or x[t + 1] - 2 x[t] + x[t - 1]; (B, K, ...) with zeros where a neighbour is missing."""
    none = torch.zeros_like(x[:, :1])
    if x.shape[1] == 1:
        return none
    if use_accel:
        return torch.cat((none, x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2], none), dim=1)
    return torch.cat((x[:, 1:] - x[:, :-1], none), dim=1)


def _has_neighbours(known: Tensor, *, use_accel: bool) -> Tensor:
    """(B, K) bool: True where every frame of the difference at that frame is known."""
    none = torch.zeros_like(known[:, :1])
    both = known & torch.cat((known[:, 1:], none), dim=1)
    return both & torch.cat((none, known[:, :-1]), dim=1) if use_accel else both
