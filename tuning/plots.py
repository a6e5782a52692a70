"""The results of a sweep in, its picture out: every metric over the fields that were swept."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from glot.scoring.metric_names import METRICS, UNITS
from tuning.results import BEST, Sweep
from tuning.spaces import shown


def plot(sweep: Sweep, path: Path) -> None:
    """A PNG of every metric over the fields that were swept. The paper's curve has its own axis beside ours."""
    axes = sweep.space.axes
    figure, panels = pyplot.subplots(1, 4, figsize=(18, 4.6), constrained_layout=True)
    figure.suptitle(f"{sweep.title()}  ({sweep.data})", fontsize=11)
    if len(axes) == 1:
        _curves(sweep, panels)
    elif len(axes) == 2:
        _families(sweep, panels)
    else:
        pyplot.close(figure)
        figure, panels = pyplot.subplots(
            1, len(axes), figsize=(4.5 * len(axes), 4.6), constrained_layout=True, sharey=True
        )
        figure.suptitle(f"{sweep.title()}  ({sweep.data})", fontsize=11)
        _clouds(sweep, panels)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _curves(sweep: Sweep, panels: Sequence[Axes]) -> None:
    """One field: a line over numbers, or points over words."""
    (axis,), rows = sweep.space.axes, sweep.rows()
    values = [row.point[axis.field] for row in rows]
    numeric = not any(isinstance(value, str | bool) for value in values)
    at: list[Any] = values if numeric else [shown(value) for value in values]
    handles: dict[str, Any] = {}
    for metric, panel in zip(METRICS, panels, strict=True):
        spread = [0 if math.isnan(row.deviation(metric)) else row.deviation(metric) for row in rows]
        line = panel.errorbar(
            at, [row.mean(metric) for row in rows], spread, marker="o", capsize=3, linestyle="-" if numeric else "none"
        )
        panel.set(title=METRICS[metric], xlabel=axis.field, ylabel=f"ours, {UNITS[metric]}")
        panel.yaxis.label.set_color("tab:blue")
        panel.grid(alpha=0.3)
        if axis.log:
            panel.set_xscale("log")
        elif numeric and len(set(at)) <= 8:
            panel.set_xticks(sorted(set(at)))
            panel.tick_params(axis="x", labelrotation=45 if len(set(at)) > 5 else 0)
        if not numeric:
            panel.margins(x=0.4 if len(at) <= 3 else 0.15)
            panel.tick_params(axis="x", labelrotation=45 if len(at) > 3 else 0)
        theirs = [(where, row.published(metric)) for where, row in zip(at, rows, strict=True)]
        theirs = [(where, error) for where, error in theirs if not math.isnan(error)]
        handles.setdefault("ours (left axis)", line)
        if theirs:
            right = panel.twinx()
            style: dict[str, Any] = {"marker": "s", "color": "tab:gray", "linestyle": "--" if numeric else "none"}
            (points,) = right.plot([where for where, _ in theirs], [error for _, error in theirs], **style)
            handles.setdefault(f"paper's {sweep.space.table}, 3DPW: another dataset (right axis)", points)
            right.set_ylabel(f"paper, {UNITS[metric]}", color="tab:gray")
    panels[0].figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False)


def _families(sweep: Sweep, panels: Sequence[Axes]) -> None:
    """Two fields: a line for each value of the first, over the second."""
    first, second = sweep.space.axes
    rows = sweep.rows()
    handles: dict[str, Any] = {}
    for metric, panel in zip(METRICS, panels, strict=True):
        for i, value in enumerate(dict.fromkeys(row.point[first.field] for row in rows)):
            family = [row for row in rows if row.point[first.field] == value]
            at = [row.point[second.field] for row in family]
            label = f"{first.name} {shown(value)}"
            spread = [0 if math.isnan(row.deviation(metric)) else row.deviation(metric) for row in family]
            handles[label] = panel.errorbar(
                at, [row.mean(metric) for row in family], spread, marker="o", capsize=3, color=f"C{i}", label=label
            )
        panel.set(title=METRICS[metric], xlabel=second.field, ylabel=UNITS[metric])
        panel.grid(alpha=0.3)
    panels[0].figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False
    )


def _clouds(sweep: Sweep, panels: Sequence[Axes]) -> None:
    """Three or more fields: PA-MPJPE over each of them, with Accel as the colour."""
    rows = [row for row in sweep.rows() if row.errors[BEST]]
    errors, colours = [row.mean(BEST) for row in rows], [row.mean("accel") for row in rows]
    cloud: Any = None
    for axis, panel in zip(sweep.space.axes, panels, strict=True):
        at: list[Any] = [row.point[axis.field] for row in rows]
        cloud = panel.scatter(at, errors, c=colours, cmap="viridis")
        panel.set(xlabel=axis.field, xscale="log" if axis.log else "linear")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("PA-MPJPE, mm")
    panels[0].figure.colorbar(cloud, ax=list(panels), label="Accel, mm/frame²")
