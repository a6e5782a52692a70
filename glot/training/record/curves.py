"""The metrics of a training run's epochs in, a table and a picture of its curves out."""

import csv
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

from glot.location import write_whole

LOSS, VALIDATION = "train_", "val_"  # prefixes of metrics
NOT_LOSSES = ("train_gradient_norm",)


def write_table(epochs: list[dict[str, float]], path: Path) -> None:
    """A CSV file with a row for each epoch and a column for each metric."""
    columns = sorted({name for row in epochs for name in row} - {"epoch", "step"})
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ["epoch", "step", *columns])
    table.writeheader()
    table.writerows(epochs)
    write_whole(path, text.getvalue().encode())


def plot(epochs: list[dict[str, float]], path: Path) -> None:
    """A PNG of the loss terms and the validation errors over epochs, side by side."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(15, 5), constrained_layout=True)
    names = {name: None for row in epochs for name in row}
    numbers = [row["epoch"] for row in epochs]
    terms = [name.removeprefix(LOSS) for name in names if name.startswith(LOSS) and name not in NOT_LOSSES]
    kinds = list(dict.fromkeys(term.rpartition("/")[2] for term in terms if term != "loss"))
    for term in terms:
        branch, _, kind = term.rpartition("/")
        style: dict = {"color": "black", "linewidth": 2}
        if branch:  # the colour shows the term, the line style shows the branch
            style = {"color": f"C{kinds.index(kind)}", "linestyle": "--" if branch == "local" else "-"}
        left.plot(numbers, [row.get(f"{LOSS}{term}") for row in epochs], label=term, **style)
    for name in names:
        if name.startswith(VALIDATION):
            right.plot(numbers, [row.get(name) for row in epochs], "o-", label=name.removeprefix(VALIDATION))
    left.set(title="training loss, weighted terms", xlabel="epoch", yscale="log")
    right.set(title="validation errors, mm (accel: mm/frame²)", xlabel="epoch", ylim=(0, None))
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    pyplot.close(figure)
    write_whole(path, picture.getvalue())
