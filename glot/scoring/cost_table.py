"""A checkpoint in; a table of its parameters and multiply-accumulates out, beside the paper's Table 10."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from glot.model_configs import GLoTConfig
from glot.models.cost import PAPER_MACS, cost_of
from glot.models.glot import GLoT
from glot.models.inference import load_model
from glot.models.smpl_params import ESTIMATE


def show_cost(checkpoint: Path | None) -> None:
    """Prints the cost of a checkpoint's model, or of the paper's model if there is no checkpoint."""
    paper_model = GLoT.from_mean(GLoTConfig(), torch.zeros(ESTIMATE))
    model = load_model(checkpoint).model if checkpoint else paper_model
    cost, frames = cost_of(model), model.config.frames
    table = Table(title="what the model costs, without backbone and body")
    table.add_column("")
    table.add_column("millions", justify="right")
    for name, count in cost.parameters.items():
        table.add_row(f"parameters: {name}", f"{count / 1e6:.2f}")
    table.add_row("parameters", f"{cost.total / 1e6:.2f}", style="bold")
    table.add_row(f"MACs of a window, all its {frames} frames", f"{cost.window / 1e6:.1f}", style="bold")
    table.add_row("MACs of a frame in a long track", f"{cost.sliding / 1e6:.1f}", style="bold")
    for name, macs in PAPER_MACS.items():
        table.add_row(f"MACs of a window, {name} in the paper's Table 10", f"{macs:.1f}", style="dim")
    Console().print(table)
    print("counted: matrix products, including those of attention; not norms, activations, sums, backbone or body")
