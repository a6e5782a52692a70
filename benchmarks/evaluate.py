"""How much faster evaluation is than the plain formulation's, at 1, 8 and 64 windows at once and equal joints.

Prints a table and writes benchmarks/out/evaluate.json with ``speedup_batch1``, ``…8``, ``…64``; interleaved, medians.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from plain import PlainBody, body_with_pose_blendshapes, evaluate

from glot import cli
from glot.config import ModelConfig
from glot.errors import InputError
from glot.human.body import Body
from glot.models.glot import GLoT
from glot.models.sliding import SlidingGLoT

BATCHES = (1, 8, 64)
OUT = Path(__file__).parent / "out" / "evaluate.json"


def plain(model: GLoT, body: PlainBody, windows: torch.Tensor) -> torch.Tensor:
    return evaluate(model, body, windows)[1]


def ours(sliding: SlidingGLoT, body: Body, rows: torch.Tensor) -> torch.Tensor:
    params = sliding(rows)
    return body.joints14(params.rotmats, params.betas)


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Of 64 windows each; small batches repeat more.")] = 9,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Times the 14 joints of the middle frames of windows one frame apart, after checking that both agree."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    body = body_with_pose_blendshapes()
    config = ModelConfig()
    model = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam).eval()
    plain_body, sliding = PlainBody(body), SlidingGLoT(model)

    figures: dict[str, float] = {"threads": threads}
    with torch.inference_mode():
        for batch in BATCHES:
            rows = torch.randn(batch + config.frames - 1, config.feature_size)
            windows = rows.unfold(0, config.frames, 1).transpose(1, 2).contiguous()
            ways: dict[str, Callable[[], torch.Tensor]] = {
                "plain": partial(plain, model, plain_body, windows),
                "ours": partial(ours, sliding, body, rows),
            }
            apart = float((ways["plain"]() - ways["ours"]()).abs().max())
            if apart > 1e-4:
                raise InputError(f"not the same joints: {apart * 1000:.3f} mm apart")
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(repeats * (1 if batch == 64 else 5)):
                for name, way in ways.items():
                    start = time.perf_counter()
                    way()
                    seconds[name].append(time.perf_counter() - start)
            median = {name: statistics.median(times) for name, times in seconds.items()}
            figures[f"speedup_batch{batch}"] = median["plain"] / median["ours"]
            figures |= {f"{name}_ms_batch{batch}": value * 1e3 for name, value in median.items()}
            figures[f"difference_m_batch{batch}"] = apart
            print(
                f"{batch:3d} windows: plain {median['plain'] * 1e3:7.1f} ms, ours {median['ours'] * 1e3:7.1f} ms, "
                f"{figures[f'speedup_batch{batch}']:.2f} times as fast"
            )
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
