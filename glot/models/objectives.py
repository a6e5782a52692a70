"""A model's output and its targets in; the loss that it is trained with, and the named terms of the loss, out.

An objective knows how its model is called in training, too. B windows, T frames, K supervised bodies of a window.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from glot.config import LossConfig
from glot.human.body import Body
from glot.human.camera import project
from glot.models.glot import GLoT, GLoTOutput
from glot.models.losses import (
    Counts,
    Targets,
    both_centred,
    counts_of,
    frame_counts,
    frame_terms,
    glot_loss,
    needed_frames,
)
from glot.models.mps_net import MPSNet
from glot.models.peer_model import PeerOutput
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel


class Objective(ABC):
    """What a model is trained with.

    The parts of a batch (DDP's workers, accumulation) have different numbers of labels. ``counts`` is then the mean of
    the numbers of all parts, so that the mean of their losses is that of the whole batch.
    """

    @abstractmethod
    def counts(self, targets: Targets, mask_noise: Tensor) -> Tensor:
        """The numbers of frames that the terms of these windows are means over."""

    @abstractmethod
    def forward(self, trained: nn.Module, features: Tensor, mask_noise: Tensor) -> Any:
        """The model's output. ``trained``: the model as DDP and torch.compile made it."""

    @abstractmethod
    def loss(
        self, output: Any, targets: Targets, mask_noise: Tensor, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its weighted terms, which sum to it (detached)."""

    def motion(self, output: Any) -> SMPLParams | None:
        """The bodies of all frames (B, T) that the motion discriminator sees; None where there are none."""
        return None


class GLoTObjective(Objective):
    """The loss of both branches (glot.models.losses). ``selects``: whether estimates and bodies of frames that no loss
    term needs are left out. Their number changes in every step: a GPU would wait for it."""

    def __init__(self, model: GLoT, body: Body, config: LossConfig, *, selects: bool) -> None:
        self.model, self.body, self.config, self.selects = model, body, config, selects

    def counts(self, targets: Targets, mask_noise: Tensor) -> Tensor:
        local = self.model.config.local_supervised_frames if self.model.correction is not None else 0
        return frame_counts(targets, self._mask(mask_noise), local_frames=local)

    def forward(self, trained: nn.Module, features: Tensor, mask_noise: Tensor) -> GLoTOutput:
        output: GLoTOutput = trained(features, mask_noise, self._needed(mask_noise))
        return output

    def loss(
        self, output: GLoTOutput, targets: Targets, mask_noise: Tensor, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        needed = self._needed(mask_noise)
        return glot_loss(output, targets, body=self.body, config=self.config, counts=counts, needed=needed)

    def _mask(self, mask_noise: Tensor) -> Tensor:
        """(B, T): the frames that this noise hides from the encoder."""
        motion = self.model.motion
        masking = motion.kept < self.model.config.frames
        return motion.choose(mask_noise)[1] if masking else torch.zeros_like(mask_noise).bool()

    def _needed(self, mask_noise: Tensor) -> Tensor | None:
        return needed_frames(self._mask(mask_noise), self.config) if self.selects else None


class SupervisedObjective(Objective):
    """The loss of TCMR, MPS-Net, VIBE and MEVA: each supervised body against the labels of its frame, no velocities."""

    def __init__(self, model: TemporalModel, body: Body, config: LossConfig, *, with_motion: bool) -> None:
        self.frames, self.body, self.config = list(model.supervised_frames), body, config
        # Only MPS-Net computes other bodies for the discriminator than those that it is supervised on.
        self.more = {"motion": True} if with_motion and isinstance(model, MPSNet) else {}

    def counts(self, targets: Targets, mask_noise: Tensor) -> Tensor:
        chosen = targets.frames(self.frames)
        return torch.stack(counts_of(chosen, torch.ones_like(chosen.w_3d)))[None]

    def forward(self, trained: nn.Module, features: Tensor, mask_noise: Tensor) -> PeerOutput:
        output: PeerOutput = trained(features, **self.more)
        return output

    def loss(
        self, output: PeerOutput, targets: Targets, mask_noise: Tensor, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = supervised_terms(output.params, targets.frames(self.frames), self.body, self.config, Counts(*counts[0]))
        return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}

    def motion(self, output: PeerOutput) -> SMPLParams | None:
        return output.motion


def supervised_terms(
    params: SMPLParams, targets: Targets, body: Body, config: LossConfig, counts: Counts | None = None
) -> dict[str, Tensor]:
    """The four weighted terms of K bodies of each window and the labels of their frames (VIBE, section 3.1).

    Means over the frames that have the label; a term without any is 0. (The released code fails without 3D joints.)
    """
    joints = body.joints(params.rotmats.flatten(0, 1), params.betas.flatten(0, 1)).unflatten(0, params.cam.shape[:2])
    every = torch.ones_like(targets.w_3d)
    points, centred = project(joints, params.cam), both_centred(joints, targets)
    terms = frame_terms(params, points, centred, targets, every, config, counts or counts_of(targets, every))
    return {f"frames/{name}": term for name, term in terms.items()}


def objective_of(
    model: TemporalModel, body: Body, config: LossConfig, *, selects: bool = False, with_motion: bool = False
) -> Objective:
    """The objective that a model is trained with. ``with_motion``: together with a motion discriminator."""
    if isinstance(model, GLoT):
        return GLoTObjective(model, body, config, selects=selects)
    return SupervisedObjective(model, body, config, with_motion=with_motion)
