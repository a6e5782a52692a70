"""The speed of evaluation against the plain formulation's, for 1, 8 and 64 windows at once, at equal joints.

Prints a table and writes benchmarks/out/evaluate.json with ``speedup_batch1``, ``…8``, ``…64``: ratios of medians.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from figures import OUT, write_figures
from plain import PlainBody, evaluate, models, with_plain_dropout
from timing import median_seconds

from glot import cli
from glot.errors import InputError
from glot.human.body import Body
from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT
from glot.models.prediction.sliding import SlidingGLoT

BATCHES = (1, 8, 64)


def plain(model: GLoT, body: PlainBody, windows: torch.Tensor) -> torch.Tensor:
    return evaluate(model, body, windows)[1]


def ours(sliding: SlidingGLoT, body: Body, rows: torch.Tensor) -> torch.Tensor:
    params = sliding(rows)
    return body.joints14(params.rotmats, params.betas)


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of 64 windows; smaller batches repeat more.")] = 9,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "evaluate.json",
) -> None:
    """Time the 14 joints of the middle frames of windows one frame apart, after a check that both agree."""
    config = GLoTConfig()
    body, plain_body, model = models(config, threads=threads)
    plain_model = with_plain_dropout(model.eval())
    sliding = SlidingGLoT(model)

    figures: dict[str, float] = {"threads": threads}
    with torch.inference_mode():
        for batch in BATCHES:
            rows = torch.randn(batch + config.frames - 1, config.feature_size)
            windows = rows.unfold(0, config.frames, 1).transpose(1, 2).contiguous()
            ways: dict[str, Callable[[], torch.Tensor]] = {
                "plain": partial(plain, plain_model, plain_body, windows),
                "ours": partial(ours, sliding, body, rows),
            }
            difference = float((ways["plain"]() - ways["ours"]()).abs().max())
            if difference > 1e-4:
                raise InputError(f"not the same joints: up to {difference * 1000:.3f} mm apart")
            median = median_seconds(ways, range(repeats * (1 if batch == 64 else 5)), before=3)
            figures[f"speedup_batch{batch}"] = median["plain"] / median["ours"]
            figures |= {f"{name}_ms_batch{batch}": value * 1e3 for name, value in median.items()}
            figures[f"difference_m_batch{batch}"] = difference
            print(
                f"{batch:3d} windows: plain {median['plain'] * 1e3:7.1f} ms, ours {median['ours'] * 1e3:7.1f} ms, "
                f"{figures[f'speedup_batch{batch}']:.2f} times as fast"
            )
    write_figures(out, figures, show=False)


if __name__ == "__main__":
    cli.run(main)
