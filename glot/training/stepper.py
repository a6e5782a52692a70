"""A batch in, an optimiser step out: forward, loss, backward, step, on one worker of a run.

The number of a step decides its dropout, its learning rate, its windows and their hidden frames (the last two in
glot.training.sampler). A step that is computed again gives the same result.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glot.config import Recipe
from glot.human.body import Body
from glot.models.losses import Targets
from glot.models.objectives import Objective, objective_of
from glot.models.temporal_model import TemporalModel
from glot.training.adversary import Adversary
from glot.training.sampler import Batch
from glot.training.schedule import LearningRate
from glot.training.worker_means import mean_over_workers


class NotFinite(ArithmeticError):
    """A step that was not taken, because its loss or the norm of its gradient is NaN or infinite."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__(f"the loss is {values['loss']}, the norm of the gradient {values['gradient_norm']}")
        self.values = values  # the loss, its terms and the norm of the gradient


@dataclass
class Stepper:
    """Takes the optimiser steps of one worker of a run."""

    recipe: Recipe
    model: TemporalModel
    trained: nn.Module  # the model as DDP and torch.compile made it
    optimiser: torch.optim.Optimizer
    objective: Objective
    rate: LearningRate
    device: torch.device
    rank: int = 0
    adversary: Adversary | None = None

    def __call__(self, step: int, parts: list[Batch], *, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Takes step number ``step`` (0-based) on this worker's share of the batch.

        Returns the loss, its terms and the norm of the gradient, over all workers, and whether any worker asked with
        ``stop`` to end the run after this step. Raises NotFinite on all workers, with weights and optimisers as they
        were, where the loss or the gradient of any worker is not finite.
        """
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + self.rank)  # dropout
        losses = self._gradients(step, parts)
        # After DDP has averaged the gradients, so that all workers clip them in the same way.
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        norms = [norm, self.adversary.gradient_norm()] if self.adversary else [norm]
        flag = torch.full((), float(stop), device=self.device)
        shared = mean_over_workers(torch.stack([*losses.values(), flag, *norms])).tolist()
        stopping, *norms_of_all = shared[len(losses) :]
        values = dict(zip(losses, shared, strict=False)) | {"gradient_norm": float(norm)}
        # The norm sums squares. So it is also infinite where a number is finite, but too large for Adam to square.
        if not all(map(math.isfinite, (values["loss"], *norms_of_all))):
            raise NotFinite(values)
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)
        rate = self.rate(step // self.recipe.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if self.adversary:
            self.adversary.step(rate / self.recipe.lr)
        return values, stopping > 0

    def _gradients(self, step: int, parts: list[Batch]) -> dict[str, Tensor]:
        """Sets the gradients of the parameters; returns this worker's loss and its terms, means over its parts."""
        self.trained.train()
        moved = [(p.features.to(self.device), p.targets.to(self.device), p.mask_noise.to(self.device)) for p in parts]
        part_counts = torch.stack([self._counts(targets, mask_noise) for _, targets, mask_noise in moved])
        counts = mean_over_workers(part_counts.mean(0))
        self.optimiser.zero_grad(set_to_none=True)
        values: list[Tensor] = []
        names: list[str] = []
        for number, part in enumerate(moved, 1):
            # DDP averages the gradients of the workers once a step, with the last part.
            no_sync: Any = nullcontext if number == len(moved) else getattr(self.trained, "no_sync", nullcontext)
            with no_sync():
                loss, terms = self._loss(*part, counts)
                (loss / len(moved)).backward()
            values.append(torch.stack([loss.detach(), *terms.values()]))
            names = ["loss", *terms]
        found = dict(zip(names, torch.stack(values).mean(0), strict=True))
        return found | (self.adversary.gradients(step, counts[-1, 0]) if self.adversary else {})

    def _loss(
        self, features: Tensor, targets: Targets, mask_noise: Tensor, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            output = self.objective.forward(self.trained, features, mask_noise)
        if not self.adversary:
            return self.objective.loss(output, targets, mask_noise, counts)
        loss, terms = self.objective.loss(output, targets, mask_noise, counts[:-1])
        motion = self.objective.motion(output)
        assert motion is not None, "glot.config.Recipe allows a discriminator only where there are motions"
        adversarial = self.adversary.generator_term(motion, counts[-1, 0])
        return loss + adversarial, terms | {"motion/adversarial": adversarial.detach()}

    def _counts(self, targets: Targets, mask_noise: Tensor) -> Tensor:
        """The numbers that the loss terms of a part are means over; with an adversary, the last row is of windows."""
        counts = self.objective.counts(targets, mask_noise)
        if not self.adversary:
            return counts
        return torch.cat((counts, counts.new_full((1, counts.shape[1]), float(len(mask_noise)))))


def make_stepper(
    recipe: Recipe,
    model: TemporalModel,
    optimiser: torch.optim.Optimizer,
    body: Body,
    device: torch.device,
    *,
    trained: nn.Module | None = None,
    rate: LearningRate | None = None,
    rank: int = 0,
    adversary: Adversary | None = None,
) -> Stepper:
    """The stepper of a model with the objective that belongs to it; ``trained`` is the model itself by default."""
    selects = device.type == "cpu" and not recipe.compile
    objective = objective_of(model, body, recipe.loss, selects=selects, with_motion=adversary is not None)
    rate = rate or LearningRate(recipe)
    return Stepper(
        recipe, model, model if trained is None else trained, optimiser, objective, rate, device, rank, adversary
    )
