"""A batch in, an optimiser step out: forward, loss, backward, step, on one worker of a run.

The number of a step decides its dropout, its learning rate, its windows and their hidden frames (the last two in
glot.training.sampler). A step that is computed again gives the same result.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glot.config import Recipe
from glot.human.body import Body
from glot.models.glot import GLoT
from glot.models.losses import Targets, frame_counts, glot_loss, needed_frames
from glot.training.sampler import Batch


class NotFinite(ArithmeticError):
    """A step that was not taken, because its loss or the norm of its gradient is NaN or infinite."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__(f"the loss is {values['loss']}, the norm of the gradient {values['gradient_norm']}")
        self.values = values  # the loss, its terms and the norm of the gradient


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Rate of an epoch (0-based): linear from a tenth to the maximum over the warm-up, then a cosine back to a tenth.

    It is for the batch of all workers together (``data.batch_size``), and does not depend on their number.
    """
    low, span, warmup = recipe.lr / 10, recipe.lr * 9 / 10, recipe.warmup_epochs
    if epoch < warmup:
        return low + span * epoch / warmup
    return low + span * (1 + math.cos(math.pi * (epoch - warmup) / (recipe.epochs - warmup))) / 2


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of the workers' values. Every worker has to call this."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


@dataclass
class Stepper:
    """Takes the optimiser steps of one worker of a run."""

    recipe: Recipe
    model: GLoT
    trained: nn.Module  # the model as DDP and torch.compile made it
    optimiser: torch.optim.Optimizer
    body: Body
    device: torch.device
    rank: int = 0

    def __call__(self, step: int, parts: list[Batch], *, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Takes step number ``step`` (0-based) on this worker's share of the batch.

        Returns the loss, its terms and the norm of the gradient, over all workers, and whether any worker asked with
        ``stop`` to end the run after this step. Raises NotFinite on all workers, with weights and optimiser as they
        were, where the loss or the gradient of any worker is not finite.
        """
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + self.rank)  # dropout
        losses = self._gradients(parts)
        # After DDP has averaged the gradients, so that all workers clip them in the same way.
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        flag = torch.full((), float(stop), device=self.device)
        shared = torch.stack([*losses.values(), norm, flag])
        *means, norm_of_all, stopping = mean_over_workers(shared).tolist()
        values = dict(zip(losses, means, strict=True)) | {"gradient_norm": float(norm)}
        # The norm sums squares. So it is also infinite where a number is finite, but too large for Adam to square.
        if not math.isfinite(values["loss"]) or not math.isfinite(norm_of_all):
            raise NotFinite(values)
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step // self.recipe.steps_per_epoch)
        self.optimiser.step()
        return values, stopping > 0

    def _gradients(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Sets the gradients of the parameters; returns this worker's loss and its terms, means over its parts."""
        self.trained.train()
        moved = [(p.features.to(self.device), p.targets.to(self.device), p.mask_noise.to(self.device)) for p in parts]
        masks = [self._mask(mask_noise) for _, _, mask_noise in moved]
        part_counts = torch.stack(
            [self._counts(targets, mask) for (_, targets, _), mask in zip(moved, masks, strict=True)]
        )
        counts = mean_over_workers(part_counts.mean(0))
        self.optimiser.zero_grad(set_to_none=True)
        values: list[Tensor] = []
        names: list[str] = []
        for number, ((features, targets, mask_noise), mask) in enumerate(zip(moved, masks, strict=True), 1):
            # DDP averages the gradients of the workers once a step, with the last part.
            no_sync: Any = nullcontext if number == len(moved) else getattr(self.trained, "no_sync", nullcontext)
            needed = needed_frames(mask, self.recipe.loss) if self._selects else None
            with no_sync():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                    output = self.trained(features, mask_noise, needed)
                loss, terms = glot_loss(
                    output, targets, body=self.body, config=self.recipe.loss, counts=counts, needed=needed
                )
                (loss / len(moved)).backward()
            values.append(torch.stack([loss.detach(), *terms.values()]))
            names = ["loss", *terms]
        return dict(zip(names, torch.stack(values).mean(0), strict=True))

    @property
    def _selects(self) -> bool:
        """Whether estimates and bodies of frames that no loss term needs are left out.

        Their number is another one in every step. A GPU would wait for it, and compiled code be made for it.
        """
        return self.device.type == "cpu" and not self.recipe.compile

    def _mask(self, mask_noise: Tensor) -> Tensor:
        """(B, T): the frames that this noise hides from the encoder."""
        motion = self.model.motion
        masking = motion.kept < self.recipe.model.frames
        return motion.choose(mask_noise)[1] if masking else torch.zeros_like(mask_noise).bool()

    def _counts(self, targets: Targets, mask: Tensor) -> Tensor:
        """The numbers of frames that the loss terms of a part are means over (glot.models.losses.frame_counts)."""
        local = self.recipe.model.local_supervised_frames if self.model.correction is not None else 0
        return frame_counts(targets, mask, local_frames=local)
