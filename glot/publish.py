"""A checkpoint in, one of half its size to pass on out: weights in float16, everything else as it was."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from glot import cli
from glot.models.checkpoint import load_checkpoint, save_checkpoint


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, e.g. runs/first/best.")],
    out: Annotated[Path, typer.Option(help="Folder to make; one of that name is replaced.")],
) -> None:
    """Write a checkpoint in float16, to pass on. Every command reads it; weights are rounded by 0.05 % at most.

    Example: `python -m glot.publish --checkpoint runs/first/best --out my_model`
    """
    saved = load_checkpoint(checkpoint)
    parts = {name: saved.info[name] for name in ("body", "features", "metrics", "step")}
    save_checkpoint(out, model=saved.model, recipe=saved.recipe, dtype=torch.float16, **parts)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


def command() -> None:
    cli.run(main)


if __name__ == "__main__":
    command()
