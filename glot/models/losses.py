"""A GLoT output and its targets in; the loss and its named terms out (paper equations 6 to 9, official weights).

B windows, T frames, K frames of a branch. The global branch has all T frames, the local branch the middle ones.
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
    """The labels of B windows of T frames. 3D labels may be NaN where they do not count; 2D labels are finite."""

    keypoints2d: Tensor  # (B, T, 49, 3): x, y in [-1, 1] of the crop, confidence
    joints3d: Tensor  # (B, T, 49, 3) m
    rotmats: Tensor  # (B, T, 24, 3, 3)
    betas: Tensor  # (B, T, 10)
    w_3d: Tensor  # (B, T): 1 where joints3d is a label
    w_smpl: Tensor  # (B, T): 1 where rotmats and betas are labels
    is_3d: Tensor  # (B,) bool: False for windows of 2D sets, which only the 2D terms see
    joints3d_valid: Tensor | None = None  # (B, T, 49) bool: which joints of joints3d are known; None: all of them

    def to(self, device: Any) -> "Targets":
        """The same targets on another device."""
        return Targets(**{name: values.to(device) for name, values in self._given().items()})

    def frames(self, window: slice | list[int]) -> "Targets":
        """The targets of the frames in ``window``; a list may name a frame several times."""
        framed = {name: values[:, window] for name, values in self._given().items() if name != "is_3d"}
        return Targets(**framed, is_3d=self.is_3d)

    @property
    def known_3d(self) -> Tensor:
        """(B, T) bool: True where all 14 joints of the 3D terms are known.

        A frame in which one of them is unknown is no label, as in evaluation, which does not score such a frame.
        """
        if self.joints3d_valid is None:
            return torch.ones_like(self.w_3d, dtype=torch.bool)
        return self.joints3d_valid[..., COMMON14_IN_SPIN49].all(-1)

    def _given(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Counts(NamedTuple):
    """Numbers of frames of one branch, 0-d float tensors."""

    every: Tensor  # all frames
    with_3d: Tensor  # frames with 3D joints as labels
    with_smpl: Tensor  # frames with SMPL parameters as labels
    supervised_3d: Tensor  # supervised frames with 3D joints as labels


def frame_counts(targets: Targets, mask: Tensor, *, local_frames: int) -> Tensor:
    """(1 or 2 branches, 4): the numbers of frames that the terms are means over, see ``Counts``.

    ``mask`` (B, T): frames hidden from the encoder; ``local_frames``: K of the local branch, 0 if there is no local
    branch. The counts do not depend on the model's output. Where workers share a batch, or a worker takes it in several
    parts, the loss of each part takes the mean of the counts of all parts.
    """
    branches = _supervision(targets, mask, local_frames)
    return torch.stack([torch.stack(counts_of(labels, supervised)) for _, labels, supervised in branches])


def needed_frames(mask: Tensor, config: LossConfig) -> Tensor:
    """The frames whose global estimate the loss depends on (B, T) bool, for the frames hidden from the encoder.

    A velocity also depends on the next frame, and an acceleration on the frames before and after.
    """
    supervised = mask | ~mask.any()
    if config.velocity3d_mask == "official":
        return torch.ones_like(mask)
    needed = supervised.clone()
    if config.use_accel:
        needed[:, 2:] |= supervised[:, 1:-1]
        needed[:, :-2] |= supervised[:, 1:-1]
    else:
        needed[:, 1:] |= supervised[:, :-1]
    return needed


def glot_loss(
    output: GLoTOutput,
    targets: Targets,
    *,
    body: Body,
    config: LossConfig,
    counts: Tensor | None = None,
    needed: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total and its weighted terms, "global/…" and "local/…", which sum to it (detached, for logging).

    Terms are means over the frames that have the label. The parts of a batch (DDP's workers, accumulation) have
    different numbers of such frames. ``counts`` is then the mean of the ``frame_counts`` of all parts, so that the mean
    of the parts' losses, and its gradient, is that of the whole batch.

    The global branch is supervised on its hidden frames, or on all frames where none is hidden (the official code
    multiplies by the mask, so a mask ratio of 0 would train nothing). A term without any target is 0. ``needed``
    (B, T) saves time: the global branch's body is computed only in these frames, see ``needed_frames``. ValueError
    where output and targets have different numbers of windows or frames.
    """
    batch, frames = output.global_.betas.shape[:2]
    if targets.keypoints2d.shape[:2] != (batch, frames):
        raise ValueError(f"targets of {tuple(targets.keypoints2d.shape[:2])} windows and frames, not {(batch, frames)}")
    branches = {"global": output.global_}
    if output.has_local:
        branches["local"] = output.local
    joints = _joints_of(branches, body, needed)

    local_frames = output.local.betas.shape[1] if output.has_local else 0
    if counts is None:
        counts = frame_counts(targets, output.mask, local_frames=local_frames)
    terms: dict[str, Tensor] = {}
    supervision = _supervision(targets, output.mask, local_frames)
    for (name, labels, supervised), frames_of in zip(supervision, counts, strict=True):
        terms |= _branch_terms(branches[name], joints[name], labels, supervised, config, Counts(*frames_of), name)
    total = torch.stack(list(terms.values())).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def _joints_of(branches: dict[str, SMPLParams], body: Body, needed: Tensor | None) -> dict[str, Tensor]:
    """The joints (B, K, 49, 3) of each branch; zeros where the global branch is not needed. One call of the body."""
    rotmats = [params.rotmats.flatten(0, 1) for params in branches.values()]
    betas = [params.betas.flatten(0, 1) for params in branches.values()]
    every = len(betas[0])
    rows = None if needed is None else needed.flatten().nonzero().squeeze(1)
    if rows is not None:
        rotmats[0], betas[0] = rotmats[0].index_select(0, rows), betas[0].index_select(0, rows)
    found = body.joints(torch.cat(rotmats), torch.cat(betas))
    joints = list(found.split([len(values) for values in betas]))
    if rows is not None:
        joints[0] = found.new_zeros(every, *found.shape[1:]).index_copy(0, rows, joints[0])
    windows = len(branches["global"].betas)
    return {name: part.unflatten(0, (windows, -1)) for name, part in zip(branches, joints, strict=True)}


def _supervision(targets: Targets, mask: Tensor, local_frames: int) -> list[tuple[str, Targets, Tensor]]:
    """For each branch: its name, the targets of its K frames, and (B, K) 1 where a frame is supervised."""
    supervised = (mask | ~mask.any()).float()
    branches = [("global", targets, supervised)]
    if local_frames:
        first = mask.shape[1] // 2 - local_frames // 2
        middle = targets.frames(slice(first, first + local_frames))
        branches.append(("local", middle, torch.ones_like(supervised[:, :local_frames])))
    return branches


def counts_of(targets: Targets, supervised: Tensor) -> Counts:
    """The numbers of frames of a branch whose ``supervised`` frames (B, K) are 1."""
    with_3d, with_smpl = _labelled(targets)
    every = torch.tensor(float(with_3d.numel()), device=with_3d.device)
    return Counts(every, with_3d.sum().float(), with_smpl.sum().float(), (supervised * with_3d).sum())


def _labelled(targets: Targets) -> tuple[Tensor, Tensor]:
    """(B, K) bool, twice: the frames with 3D joints and the frames with SMPL parameters as labels."""
    is_3d = targets.is_3d[:, None]
    return is_3d & targets.w_3d.bool() & targets.known_3d, is_3d & targets.w_smpl.bool()


def _branch_terms(
    params: SMPLParams,
    joints: Tensor,
    targets: Targets,
    supervised: Tensor,
    config: LossConfig,
    counts: Counts,
    name: str,
) -> dict[str, Tensor]:
    """The six terms of one branch. ``joints`` (B, K, 49, 3); ``supervised`` (B, K) is 1 on supervised frames."""
    points, centred = project(joints, params.cam), both_centred(joints, targets)
    terms = frame_terms(params, points, centred, targets, supervised, config, counts)
    terms |= _velocity_terms(joints, points, centred, targets, supervised, config, counts)
    return {f"{name}/{term}": value for term, value in terms.items()}


def frame_terms(
    params: SMPLParams,
    points: Tensor,
    centred: tuple[Tensor, Tensor],
    targets: Targets,
    supervised: Tensor,
    config: LossConfig,
    counts: Counts,
) -> dict[str, Tensor]:
    """The weighted terms that compare single frames.

    ``points`` (B, K, 49, 2) are the projected joints; ``centred`` is what ``both_centred`` returns.
    """
    target2d, confidence = targets.keypoints2d[..., :2], targets.keypoints2d[..., 2]
    with_3d, with_smpl = _labelled(targets)
    everywhere = torch.ones_like(with_3d)
    weights2d = supervised[..., None] * confidence  # (B, K, 49)
    return {
        "keypoints2d": config.keypoints2d * _mean_square(points, target2d, everywhere, weights2d, counts.every),
        "joints3d": config.joints3d * _mean_square(*centred, with_3d, supervised, counts.with_3d),
        "pose": config.pose * _mean_square(params.rotmats, targets.rotmats, with_smpl, supervised, counts.with_smpl),
        "shape": config.shape * _mean_square(params.betas, targets.betas, with_smpl, supervised, counts.with_smpl),
    }


def _velocity_terms(
    joints: Tensor,
    points: Tensor,
    centred: tuple[Tensor, Tensor],
    targets: Targets,
    supervised: Tensor,
    config: LossConfig,
    counts: Counts,
) -> dict[str, Tensor]:
    """The weighted terms that compare neighbouring frames."""
    target2d, confidence = targets.keypoints2d[..., :2], targets.keypoints2d[..., 2]
    with_3d, _ = _labelled(targets)
    everywhere, weights2d = torch.ones_like(with_3d), supervised[..., None] * confidence

    def change(x: Tensor) -> Tensor:
        return _differences(x, use_accel=config.use_accel)

    # The official code weights the difference of two frames by the confidence of the first frame alone; kept.
    velocity2d = _mean_square(change(points), change(target2d), everywhere, weights2d, counts.every)
    joints14, target14 = centred
    if config.velocity3d_root == "official":
        joints14, target14 = joints[..., COMMON14_IN_SPIN49, :], targets.joints3d[..., COMMON14_IN_SPIN49, :]
    if config.velocity3d_mask == "official":
        # Officially, the next frame counts even where it is not a label; but its joints have to be known.
        share = counts.supervised_3d / counts.with_3d.clamp(min=1)
        known = _has_neighbours(targets.known_3d, use_accel=config.use_accel).float()
        velocity3d = share * _mean_square(change(joints14), change(target14), with_3d, known, counts.with_3d)
    else:
        # A difference counts if all its frames have labels.
        together = supervised * _has_neighbours(with_3d, use_accel=config.use_accel)
        velocity3d = _mean_square(change(joints14), change(target14), with_3d, together, counts.with_3d)
    return {"velocity2d": config.velocity2d * velocity2d, "velocity3d": config.velocity3d * velocity3d}


def both_centred(joints: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The 14 joints of the 3D terms (B, K, 14, 3), predicted and true, relative to the middle of the hips."""
    joints14, target14 = (values[..., COMMON14_IN_SPIN49, :] for values in (joints, targets.joints3d))
    return _root_centred(joints14), _root_centred(target14)


def _mean_square(predicted: Tensor, target: Tensor, labelled: Tensor, weights: Tensor, count: Tensor) -> Tensor:
    """Sum over the ``labelled`` (B, K) frames of weights x squared error, divided by their ``count``.

    If no frame is labelled, it is 0 and still part of the graph. Official code averages over all labelled frames, not
    over the supervised ones; kept.
    """
    labelled = labelled.view(*labelled.shape, *[1] * (predicted.ndim - 2))
    weights = weights.view(*weights.shape, *[1] * (predicted.ndim - weights.ndim))
    counted = labelled & (weights != 0)
    # Errors that do not count are set to 0 before they are squared, because targets without a label may be NaN.
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


def _has_neighbours(labelled: Tensor, *, use_accel: bool) -> Tensor:
    """(B, K) bool: True where every frame of the difference at that frame has a label."""
    none = torch.zeros_like(labelled[:, :1])
    both = labelled & torch.cat((labelled[:, 1:], none), dim=1)
    return both & torch.cat((none, labelled[:, :-1]), dim=1) if use_accel else both
