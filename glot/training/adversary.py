"""Predicted and real motions in; the adversarial loss of the model, and the discriminator's own step, out.

Parts of a batch: DDP's workers, and what a worker takes one after the other. Losses are sums over motions, divided by
the mean number of motions of a part, so that the mean over all parts is that of the whole batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from glot.config import Recipe
from glot.models.adversarial_loss import body_pose_of, discriminator_losses, generator_loss
from glot.models.parts.motion_discriminator import MotionDiscriminator
from glot.models.smpl_params import SMPLParams
from glot.training.worker_means import mean_over_workers


class Adversary:
    """The motion discriminator of a training run on one worker, and its optimiser.

    A step: ``generator_term`` for every part of the batch, whose gradient the model gets; then ``gradients``; then
    ``step``, when all losses are known to be finite.

    ``motions(step)``: this worker's real motions of a step, axis-angles of joints 1 ... 23 (n, T, 69).
    """

    def __init__(self, recipe: Recipe, motions: Callable[[int], Tensor], device: torch.device) -> None:
        self.config, self.motions, self.device = recipe.discriminator, motions, device
        torch.manual_seed(recipe.seed)
        self.discriminator = MotionDiscriminator(recipe.discriminator).to(device).train()
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )
        self.predicted: list[Tensor] = []  # motions of the step so far

    def generator_term(self, motion: SMPLParams, count: Tensor) -> Tensor:
        """The weighted adversarial loss of the predicted motions (B, T, ...) of a part."""
        poses = body_pose_of(motion)
        self.predicted.append(poses.detach())
        self.discriminator.requires_grad_(False)
        return self.config.weight * generator_loss(self.discriminator, poses, count=count)

    def gradients(self, step: int, count: Tensor) -> dict[str, Tensor]:
        """Sets the discriminator's gradients for the motions of this step, means over workers; returns its terms."""
        self.discriminator.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        real = self.motions(step).to(self.device)
        real_count = mean_over_workers(torch.tensor(float(len(real)), device=self.device))
        predicted = torch.cat(self.predicted)
        of_real, of_predicted = discriminator_losses(
            self.discriminator, predicted, real, count=count * len(self.predicted), real_count=real_count
        )
        self.predicted = []
        of_real, of_predicted = self.config.weight * of_real, self.config.weight * of_predicted
        (of_real + of_predicted).backward()
        parameters = list(self.discriminator.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        shared = mean_over_workers(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, values in zip(gradients, shared.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))
        return {"discriminator/real": of_real.detach(), "discriminator/predicted": of_predicted.detach()}

    def gradient_norm(self) -> Tensor:
        """The norm of the discriminator's gradient; it is not finite where a number of it is not."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.discriminator.parameters() if p.grad is not None])

    def step(self, share: float) -> None:
        """Takes the step. ``share``: the model's rate in this epoch as a part of its largest."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * share
        self.optimiser.step()

    def state(self) -> dict[str, Any]:
        """What a checkpoint that training continues from stores."""
        return {"weights": self.discriminator.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what ``state`` returned."""
        self.discriminator.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
