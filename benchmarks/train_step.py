"""The speed of a training step of 64 windows against the plain formulation's, at equal loss and gradients.

Once without dropout: forward, loss, backward and optimiser. Once as it is trained: with dropout, drop-path and a limit
of the gradient; ours is then the step of glot.training.stepper. For the check that both are equal, both drop the same;
for the timing, each draws for itself. Prints the times and writes benchmarks/out/train_step.json with ``speedup``
(without dropout) and ``speedup_as_trained``, ratios of medians.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from figures import OUT, write_figures
from plain import PlainBody, forward, models, with_plain_dropout
from same_draws import SameDraws
from timing import median_seconds

from glot import cli
from glot.config import Recipe
from glot.errors import InputError
from glot.human.body import Body
from glot.human.rotation import axis_angle_to_rotmat
from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT
from glot.models.losses import Targets, glot_loss, needed_frames
from glot.recipes import table1_3dpw
from glot.training.sampler import Batch
from glot.training.stepper import make_stepper

WINDOWS_2D, WINDOWS_3D = 38, 26  # windows of 2D and 3D datasets in a batch of table1_3dpw
AS_TRAINED = replace(table1_3dpw(), clip_norm=1.0)
EXACT = replace(AS_TRAINED, model=GLoTConfig(dropout=0, drop_path=0, regressor_dropout=0, hscr_dropout=0))


def random_batch(config: GLoTConfig) -> Batch:
    """Features (64, T, F), random targets, and the noise that selects the masked frames."""
    batch, frames = WINDOWS_2D + WINDOWS_3D, config.frames
    targets = Targets(
        keypoints2d=torch.rand(batch, frames, 49, 3) * 2 - 1,
        joints3d=torch.randn(batch, frames, 49, 3) * 0.3,
        rotmats=axis_angle_to_rotmat(0.3 * torch.randn(batch, frames, 24, 3)),
        betas=torch.randn(batch, frames, 10),
        w_3d=torch.ones(batch, frames),
        w_smpl=torch.ones(batch, frames),
        is_3d=torch.arange(batch) >= WINDOWS_2D,
    )
    targets.keypoints2d[..., 2] = 1
    return Batch(torch.randn(batch, frames, config.feature_size), targets, torch.rand(batch, frames))


@dataclass(frozen=True)
class Pair:
    """A model and its plain formulation, with the same weights, in training mode; and a batch for both."""

    recipe: Recipe
    batch: Batch
    body: Body
    plain_body: PlainBody
    ours: GLoT
    plain: GLoT

    @classmethod
    def of(cls, recipe: Recipe, *, threads: int) -> "Pair":
        """Random weights and a random batch of seed 0."""
        body, plain_body, ours = models(recipe.model, threads=threads)
        return cls(recipe, random_batch(recipe.model), body, plain_body, ours.train(), with_plain_dropout(ours))

    def copies(self) -> "Pair":
        """The same with other models of equal weights."""
        return replace(self, ours=copy.deepcopy(self.ours), plain=copy.deepcopy(self.plain))

    def needed(self) -> torch.Tensor:
        """The frames whose estimates the loss depends on, as in training."""
        return needed_frames(self.ours.motion.choose(self.batch.mask_noise)[1], self.recipe.loss)

    def our_loss(self) -> torch.Tensor:
        features, targets, noise = self.batch
        needed = self.needed()
        output = self.ours(features, noise, needed)
        return glot_loss(output, targets, body=self.body, config=self.recipe.loss, needed=needed)[0]

    def plain_loss(self) -> torch.Tensor:
        features, targets, noise = self.batch
        output = forward(self.plain, features, noise, frames=self.plain.middle_frames)
        return glot_loss(output, targets, body=self.plain_body, config=self.recipe.loss)[0]  # type: ignore[arg-type]


def step(loss_of: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer, clip_norm: float = 0) -> float:
    """An optimiser step; returns the loss."""
    optimiser.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    if clip_norm:
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip_norm)
    optimiser.step()
    return loss.item()


def steps(pair: Pair) -> dict[str, Callable[[], float]]:
    """A step of each formulation without dropout. They return the loss."""
    return {
        "plain": partial(step, pair.plain_loss, torch.optim.Adam(pair.plain.parameters(), lr=1e-6)),
        "ours": partial(step, pair.our_loss, torch.optim.Adam(pair.ours.parameters(), lr=1e-6, fused=True)),
    }


def steps_as_trained(pair: Pair) -> dict[str, Callable[[], float]]:
    """A step of each formulation with dropout, drop-path and a limit of the gradient. They return the loss."""
    optimiser = torch.optim.Adam(pair.plain.parameters(), lr=1e-6)
    stepper = make_stepper(
        pair.recipe,
        pair.ours,
        torch.optim.Adam(pair.ours.parameters(), lr=1e-6, fused=True),
        pair.body,
        torch.device("cpu"),
    )
    return {
        "plain": partial(step, pair.plain_loss, optimiser, pair.recipe.clip_norm),
        "ours": lambda: stepper(0, [pair.batch])[0]["loss"],
    }


def differences(pair: Pair, ways: dict[str, Callable[[], float]]) -> tuple[float, float]:
    """The relative difference of the losses, and the largest one of the gradients. InputError if one is above 1e-4."""
    losses = {name: way() for name, way in ways.items()}
    of_loss = abs(losses["ours"] / losses["plain"] - 1)
    of_gradients = 0.0
    for (name, mine), theirs in zip(pair.ours.named_parameters(), pair.plain.parameters(), strict=True):
        if mine.grad is None or theirs.grad is None:
            raise InputError(f"{name} has no gradient in one of the two models")
        of_gradients = max(of_gradients, float((mine.grad - theirs.grad).norm() / theirs.grad.norm()))
    if of_loss > 1e-4 or of_gradients > 1e-4:
        raise InputError(
            f"not the same step: losses {of_loss:.1e} apart, gradients up to {of_gradients:.1e} (relative)"
        )
    return of_loss, of_gradients


def compare(name: str, pair: Pair, ways_of: Callable[[Pair], dict[str, Callable[[], float]]], repeats: int) -> dict:
    """The figures of a comparison, whose names end with ``name``."""
    checked = pair.copies()
    needed = pair.needed()
    needed[:, pair.ours.middle_frames] = True
    SameDraws(checked.plain, checked.ours, needed.flatten().nonzero().squeeze(1))
    of_loss, of_gradients = differences(checked, ways_of(checked))
    rounds = cli.progress(range(repeats + 1), total=repeats + 1, what=f"steps{name.replace('_', ' ')}")
    median = median_seconds(ways_of(pair), rounds, warm_up=1)
    return {
        f"speedup{name}": median["plain"] / median["ours"],
        f"plain_ms{name}": median["plain"] * 1e3,
        f"ours_ms{name}": median["ours"] * 1e3,
        f"loss_relative_difference{name}": of_loss,
        f"gradient_relative_difference{name}": of_gradients,
    }


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Steps of each formulation.")] = 7,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "train_step.json",
) -> None:
    """Time steps of both, after a check that loss and gradients are equal."""
    figures = compare("", Pair.of(EXACT, threads=threads), steps, repeats)
    figures |= compare("_as_trained", Pair.of(AS_TRAINED, threads=threads), steps_as_trained, repeats)
    figures |= {"threads": threads, "windows": WINDOWS_2D + WINDOWS_3D}
    for name, what in (("", "without dropout"), ("_as_trained", "as it is trained")):
        print(
            f"a step of {figures['windows']} windows on {threads} threads {what}: "
            f"plain {figures[f'plain_ms{name}']:.0f} ms, ours {figures[f'ours_ms{name}']:.0f} ms"
        )
    write_figures(out, figures)


if __name__ == "__main__":
    cli.run(main)
