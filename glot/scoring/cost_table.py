"""A checkpoint in; a table of its parameters and multiply-accumulates out, beside the paper's Table 10.

Without a checkpoint: a table of the five models in the sizes of their releases.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from glot.model_configs import MODELS
from glot.models.architectures import ARCHITECTURES
from glot.models.cost import PAPER_MACS, cost_of, shapes_alone
from glot.models.inference import load_model

HEADS = ("parameters", "frozen", "frames", "MACs of\na window", "the same in\nTable 10", "MACs of a\nframe")
COUNTED = (
    "MACs are multiply-accumulates of matrix products, including those of attention; not of norms, activations, sums, "
    "the backbone or the body. A window of GLoT is one of 64 that are predicted together, those of others are alone."
)
OF_A_FRAME = "The last column is for a frame of a long track, whose windows share what they can."
PUBLISHED = (
    "In Table 10, MPS-Net also makes the bodies of all 16 frames, for its discriminator, and the regressors of TCMR "
    "and MPS-Net multiply a feature three times, ours once. Most of MEVA's frozen part is its autoencoder of motions."
)


def show_cost(checkpoint: Path | None) -> None:
    """Prints the cost of a checkpoint's model, or of all five models if there is no checkpoint."""
    if checkpoint is None:
        Console(highlight=False).print(_all_models(), COUNTED, OF_A_FRAME, PUBLISHED, sep="\n")
    else:
        Console(highlight=False).print(_one_model(checkpoint), COUNTED, sep="\n")


def _all_models() -> Table:
    table = Table(title="what the models cost, in millions, without backbone and body")
    table.add_column("")
    for title in HEADS:
        table.add_column(title, justify="right")
    for kind, configured in MODELS.items():
        config, title = configured(), ARCHITECTURES[kind].title
        cost = cost_of(shapes_alone(config))
        table.add_row(
            title,
            f"{cost.total / 1e6:.2f}",
            f"{cost.frozen / 1e6:.2f}" if cost.frozen else "-",
            str(config.frames),
            f"{cost.window / 1e6:.1f}",
            f"{PAPER_MACS[title]:.1f}" if title in PAPER_MACS else "-",
            f"{cost.sliding / 1e6:.1f}",
        )
    return table


def _one_model(checkpoint: Path) -> Table:
    model = load_model(checkpoint).model
    cost = cost_of(model)
    table = Table(title=f"what this {model.title} costs, without backbone and body")
    table.add_column("")
    table.add_column("millions", justify="right")
    for name, count in cost.parameters.items():
        table.add_row(f"parameters: {name}", f"{count / 1e6:.2f}")
    table.add_row("parameters", f"{cost.total / 1e6:.2f}", style="bold")
    if cost.frozen:
        table.add_row("of these frozen", f"{cost.frozen / 1e6:.2f}")
    table.add_row(f"MACs of a window of {model.config.frames} frames", f"{cost.window / 1e6:.1f}", style="bold")
    table.add_row("MACs of a frame in a long track", f"{cost.sliding / 1e6:.1f}", style="bold")
    for name, macs in PAPER_MACS.items():
        table.add_row(f"MACs of a window, {name} in the paper's Table 10", f"{macs:.1f}", style="dim")
    return table
