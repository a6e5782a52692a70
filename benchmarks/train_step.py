"""The speed of a training step of 64 windows against the plain formulation's, at equal loss and gradients.

Prints a table and writes benchmarks/out/train_step.json with ``speedup``, a ratio of medians.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from figures import OUT, write_figures
from plain import forward, models
from timing import median_seconds

from glot import cli
from glot.config import LossConfig, ModelConfig
from glot.errors import InputError
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.losses import Targets, glot_loss

WINDOWS_2D, WINDOWS_3D = 38, 26  # windows of 2D and 3D datasets in a batch of table1_3dpw


def random_batch(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Features (64, T, F), the noise that selects the masked frames, and random targets."""
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
    return torch.randn(batch, frames, config.feature_size), torch.rand(batch, frames), targets


def step(loss_of: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss_of().backward()
    optimiser.step()


def differences(
    losses: dict[str, Callable[[], torch.Tensor]], ours: torch.nn.Module, plain: torch.nn.Module
) -> tuple[float, float]:
    """The relative difference of the losses, and the largest one of the gradients. InputError if one is above 1e-4."""
    values = {}
    for name, loss_of in losses.items():
        loss = loss_of()
        loss.backward()
        values[name] = loss.item()
    of_loss = abs(values["ours"] / values["plain"] - 1)
    of_gradients = 0.0
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if mine.grad is None or theirs.grad is None:
            raise InputError(f"{name} has no gradient in one of the two models")
        of_gradients = max(of_gradients, float((mine.grad - theirs.grad).norm() / theirs.grad.norm()))
    if of_loss > 1e-4 or of_gradients > 1e-4:
        raise InputError(
            f"not the same step: losses {of_loss:.1e} apart, gradients up to {of_gradients:.1e} (relative)"
        )
    return of_loss, of_gradients


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Steps of each formulation.")] = 7,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "train_step.json",
) -> None:
    """Time forward, loss, backward and optimiser of both, after a check that loss and gradients are equal."""
    # Without dropout, so that the two can be compared.
    config = ModelConfig(dropout=0, drop_path=0, regressor_dropout=0, hscr_dropout=0)
    body, plain_body, ours = models(config, threads=threads)
    plain = copy.deepcopy(ours.train())
    features, noise, targets = random_batch(config)

    def our_loss() -> torch.Tensor:
        return glot_loss(ours(features, noise), targets, body=body, config=LossConfig())[0]

    def plain_loss() -> torch.Tensor:
        output = forward(plain, features, noise, frames=plain.middle_frames)
        return glot_loss(output, targets, body=plain_body, config=LossConfig())[0]  # type: ignore[arg-type]

    losses: dict[str, Callable[[], torch.Tensor]] = {"plain": plain_loss, "ours": our_loss}
    of_loss, of_gradients = differences(losses, ours, plain)
    ways = {
        "plain": partial(step, plain_loss, torch.optim.Adam(plain.parameters(), lr=1e-6)),
        "ours": partial(step, our_loss, torch.optim.Adam(ours.parameters(), lr=1e-6, fused=True)),
    }
    rounds = cli.progress(range(repeats + 1), total=repeats + 1, what="steps")
    median = median_seconds(ways, rounds, warm_up=1)
    figures = {
        "speedup": median["plain"] / median["ours"],
        "plain_ms": median["plain"] * 1e3,
        "ours_ms": median["ours"] * 1e3,
        "loss_relative_difference": of_loss,
        "gradient_relative_difference": of_gradients,
        "threads": threads,
        "windows": WINDOWS_2D + WINDOWS_3D,
    }
    print(
        f"a step of {figures['windows']} windows on {threads} threads, ms: "
        + "  ".join(f"{name} {value * 1e3:.0f}" for name, value in median.items())
    )
    write_figures(out, figures)


if __name__ == "__main__":
    cli.run(main)
