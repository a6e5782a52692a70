"""The command that writes a checkpoint in half its size, to pass on: weights in float16, everything else as it was."""

from glot import cli
from glot.models.spec import PublishSpec


def main(spec: PublishSpec) -> None:
    """Write a checkpoint in float16, to pass on. Every command reads it; weights are rounded by 0.05 % at most.

    A published .pth.tar of GLoT, TCMR, MPS-Net, VIBE or MEVA becomes a folder of this project.

    Example: `python -m glot.publish --checkpoint runs/first/best --out my_model`
    """
    import torch

    from glot.models.checkpoint import save_checkpoint
    from glot.models.inference import load_model

    saved = load_model(spec.checkpoint)
    info = {name: saved.info[name] for name in ("body", "features", "metrics")} | {"step": saved.info.get("step", 0)}
    save_checkpoint(spec.out, model=saved.model, recipe=saved.recipe, dtype=torch.float16, **info)
    size = sum(path.stat().st_size for path in spec.out.iterdir())
    print(f"{spec.out}: {size / 1e6:.1f} MB")


def command() -> None:
    """Entry point of ``python -m glot.publish``."""
    cli.run(main)


if __name__ == "__main__":
    command()
