"""How much faster a training step of 64 windows is than the plain formulation's, at equal loss and gradients.

Prints a table and writes benchmarks/out/train_step.json with ``speedup``; interleaved repeats, medians.
"""

import copy
import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from plain import PlainBody, body_with_pose_blendshapes, forward

from glot import cli
from glot.config import LossConfig, ModelConfig
from glot.errors import InputError
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.glot import GLoT
from glot.models.losses import Targets, glot_loss

WINDOWS_2D, WINDOWS_3D = 38, 26  # of table1_3dpw
OUT = Path(__file__).parent / "out" / "train_step.json"


def random_batch(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Features (64, T, F), the noise that hides frames, and made-up targets."""
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


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Steps of each, taken in turns.")] = 7,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Times forward, loss, backward and optimiser of both, after checking that loss and gradients are equal."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    body = body_with_pose_blendshapes()
    # Without dropout, so that the two can be compared.
    config = ModelConfig(dropout=0, drop_path=0, regressor_dropout=0, hscr_dropout=0)
    ours = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam).train()
    plain, plain_body = copy.deepcopy(ours), PlainBody(body)
    features, noise, targets = random_batch(config)

    def our_loss() -> torch.Tensor:
        return glot_loss(ours(features, noise), targets, body=body, config=LossConfig())[0]

    def plain_loss() -> torch.Tensor:
        output = forward(plain, features, noise, frames=plain.middle_frames)
        return glot_loss(output, targets, body=plain_body, config=LossConfig())[0]  # type: ignore[arg-type]

    ways = {
        "plain": (plain, plain_loss, torch.optim.Adam(plain.parameters(), lr=1e-6)),
        "ours": (ours, our_loss, torch.optim.Adam(ours.parameters(), lr=1e-6, fused=True)),
    }
    losses = {}
    for name, (_, loss_of, _) in ways.items():
        loss = loss_of()
        loss.backward()
        losses[name] = loss.item()
    off = abs(losses["ours"] / losses["plain"] - 1)
    worst = 0.0
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if mine.grad is None or theirs.grad is None:
            raise InputError(f"{name} has no gradient in one of the two")
        worst = max(worst, float((mine.grad - theirs.grad).norm() / theirs.grad.norm()))
    if off > 1e-4 or worst > 1e-4:
        raise InputError(f"not the same step: loss {off:.1e} apart, gradients up to {worst:.1e} (relative)")

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in cli.progress(range(repeats + 1), total=repeats + 1, what="steps"):  # the first is warm-up
        for name, (_, loss_of, optimiser) in ways.items():
            start = time.perf_counter()
            optimiser.zero_grad(set_to_none=True)
            loss_of().backward()
            optimiser.step()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    figures = {
        "speedup": median["plain"] / median["ours"],
        "plain_ms": median["plain"] * 1e3,
        "ours_ms": median["ours"] * 1e3,
        "loss_relative_difference": off,
        "gradient_relative_difference": worst,
        "threads": threads,
        "windows": WINDOWS_2D + WINDOWS_3D,
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"a step of {figures['windows']} windows on {threads} threads, ms: "
        + "  ".join(f"{name} {value * 1e3:.0f}" for name, value in median.items())
    )
    print(out.read_text(), end="")


if __name__ == "__main__":
    cli.run(main)
