"""Trials of a sweep in; what people look at out: a table beside the paper's, a picture, Markdown, the best point."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from glot.scoring.metric_names import METRICS, UNITS
from tuning.spaces import Errors, Space, Value, shown
from tuning.study import FAILED, FINISHED, STOPPED, Outcome

BEST = "pa_mpjpe"


@dataclass(frozen=True)
class Row:
    """A point: errors of its finished trials by metric, one a seed, the paper's, and what there is to say."""

    point: dict[str, Value]
    errors: dict[str, list[float]]
    paper: Errors | None
    notes: str = ""

    def mean(self, metric: str) -> float:
        """Over seeds; NaN without a finished trial."""
        return fmean(self.errors[metric]) if self.errors.get(metric) else math.nan

    def deviation(self, metric: str) -> float:
        """Sample standard deviation over seeds; NaN with fewer than two."""
        return stdev(self.errors[metric]) if len(self.errors.get(metric, ())) > 1 else math.nan

    def difference(self, metric: str) -> float:
        """Ours minus the paper's."""
        return self.mean(metric) - getattr(self.paper, metric) if self.paper else math.nan


@dataclass(frozen=True)
class Sweep:
    """All that a report says of a sweep."""

    space: Space
    outcomes: Sequence[Outcome]
    data: str  # what the errors are of
    about: dict[str, str]  # recipe, settings, features, …

    def rows(self) -> list[Row]:
        """A row a point; those of a list of values in its order, others as they were tried."""
        points: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            points.setdefault(json.dumps(outcome.point), []).append(outcome)
        rows = []
        for trials in points.values():
            done = [trial for trial in trials if trial.outcome == FINISHED]
            errors = {metric: [trial.metrics[f"val_{metric}"] for trial in done] for metric in METRICS}
            odd = [trial for trial in trials if trial.outcome != FINISHED]
            notes = "; ".join(f"seed {one.seed} {one.outcome} {one.reason.split(';')[0][:80]}".strip() for one in odd)
            rows.append(Row(trials[0].point, errors, self.space.row(trials[0].point), notes))

        def place(row: Row) -> list[float]:
            found = []
            for axis in self.space.axes:
                value = row.point[axis.field]
                word = isinstance(value, str | bool)
                found.append(float(axis.values.index(value) if word and value in axis.values else 0 if word else value))
            return found

        return sorted(rows, key=place)

    def best(self) -> Outcome | None:
        """The finished trial with the least PA-MPJPE."""
        done = [outcome for outcome in self.outcomes if outcome.outcome == FINISHED]
        return min(done, key=lambda outcome: outcome.metrics[f"val_{BEST}"], default=None)

    def seeds(self) -> int:
        """Seeds a point, at most."""
        return max((len(row.errors[BEST]) for row in self.rows()), default=0)

    def title(self) -> str:
        """Which sweep."""
        return f"{self.space.name}: {', '.join(axis.field for axis in self.space.axes)}"

    def counts(self) -> str:
        """15 trials: 12 finished, 3 stopped early"""
        by = {how: sum(trial.outcome == how for trial in self.outcomes) for how in (FINISHED, STOPPED, FAILED)}
        said = ", ".join(f"{count} {how}" for how, count in by.items() if count)
        return f"{len(self.outcomes)} trial{'s' if len(self.outcomes) != 1 else ''}: {said or 'none over'}"


def number(value: float, deviation: float = math.nan) -> str:
    """81.4, 81.4 ± 0.3, or a dash."""
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if math.isnan(deviation) else f"{value:.1f} ± {deviation:.1f}"


def cells(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """The table's head and its rows: the swept values, then ours, the paper's and the difference of every metric."""
    paper = bool(sweep.space.paper)
    head = [axis.name for axis in sweep.space.axes]
    for title in METRICS.values():
        head += [title] + (["paper", "diff."] if paper else [])
    notes = any(row.notes for row in sweep.rows())
    body = []
    for row in sweep.rows():
        line = [shown(row.point[axis.field]) for axis in sweep.space.axes]
        for metric in METRICS:
            line.append(number(row.mean(metric), row.deviation(metric)))
            if paper:
                difference = row.difference(metric)
                line.append(number(getattr(row.paper, metric)) if row.paper else "–")
                line.append("–" if math.isnan(difference) else f"{difference:+.1f}")
        body.append(line + ([row.notes] if notes else []))
    return head + (["notes"] if notes else []), body


def plain_table(sweep: Sweep) -> dict[str, Any]:
    """The table as numbers, by columns and rows: what MLflow shows as an artifact."""
    columns = [axis.field for axis in sweep.space.axes]
    for metric in METRICS:
        columns += [f"{metric}", f"{metric}_deviation", f"{metric}_paper", f"{metric}_difference"]
    rows = []
    for row in sweep.rows():
        line: list[Value | None] = [row.point[axis.field] for axis in sweep.space.axes]
        for metric in METRICS:
            theirs = getattr(row.paper, metric) if row.paper else math.nan
            values = (row.mean(metric), row.deviation(metric), theirs, row.difference(metric))
            line += [None if math.isnan(value) else round(value, 3) for value in values]
        rows.append([*line, len(row.errors[BEST])])
    return {"columns": [*columns, "seeds"], "data": rows}


def csv_table(sweep: Sweep) -> str:
    """The same table for spreadsheets."""
    table, text = plain_table(sweep), io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table["columns"])
    writer.writerows(table["data"])
    return text.getvalue()


def markdown(sweep: Sweep, picture: str = "") -> str:
    """A page about the sweep, with a link to its picture where there is one."""
    head, body = cells(sweep)
    lines = [f"# {sweep.title()}", "", f"{sweep.counts()}. Errors in mm (Accel in mm/frame²) on {sweep.data}."]
    if sweep.seeds() > 1:
        lines.append(f"Mean ± standard deviation over {sweep.seeds()} seeds.")
    if sweep.space.paper:
        lines.append(
            f"The paper's ({sweep.space.table}) are on 3DPW's test split after its whole training: another dataset and "
            "another budget. Compare how the curves go, not the numbers."
        )
    lines += ["", "| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
    lines += ["| " + " | ".join(line) + " |" for line in body]
    lines += ["", f"![{sweep.title()}]({picture})", ""] if picture else [""]
    if best := sweep.best():
        lines += [
            f"Best: {sweep.space.label(best.point)}, seed {best.seed}, "
            f"PA-MPJPE {best.metrics[f'val_{BEST}']:.1f} mm behind epoch {best.metrics.get('epoch', 0):.0f}.",
            "",
        ]
    lines += ["| | |", "|---|---|"] + [f"| {name} | {value} |" for name, value in sweep.about.items() if value]
    return "\n".join(lines) + "\n"


def plot(sweep: Sweep, path: Path) -> None:
    """Every metric against what was swept; the paper's curve beside ours, on an axis of its own."""
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
    """One field: a line over numbers, points over words."""
    (axis,), rows = sweep.space.axes, sweep.rows()
    numeric = all(isinstance(row.point[axis.field], int | float) and row.point[axis.field] is not True for row in rows)
    numeric = numeric and not any(isinstance(row.point[axis.field], bool) for row in rows)
    at: list[Any] = [row.point[axis.field] if numeric else shown(row.point[axis.field]) for row in rows]
    handles: list[Any] = []
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
            panel.margins(x=0.4)
        handles = [line]
        if any(row.paper for row in rows):
            right = panel.twinx()
            theirs = [(where, getattr(row.paper, metric)) for where, row in zip(at, rows, strict=True) if row.paper]
            style: dict[str, Any] = {"marker": "s", "color": "tab:gray", "linestyle": "--" if numeric else "none"}
            handles += right.plot(*zip(*theirs, strict=True), **style)
            right.set_ylabel(f"paper, {UNITS[metric]}", color="tab:gray")
    labels = ["ours (left axis)", f"paper's {sweep.space.table}, 3DPW: another dataset (right axis)"][: len(handles)]
    panels[0].figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)


def _families(sweep: Sweep, panels: Sequence[Axes]) -> None:
    """Two fields: a line for each value of the first, over the second."""
    first, second = sweep.space.axes
    rows = sweep.rows()
    handles: dict[str, Any] = {}
    for metric, panel in zip(METRICS, panels, strict=True):
        for i, value in enumerate(dict.fromkeys(row.point[first.field] for row in rows)):
            own = [row for row in rows if row.point[first.field] == value]
            at = [row.point[second.field] for row in own]
            label = f"{first.name} {shown(value)}"
            spread = [0 if math.isnan(row.deviation(metric)) else row.deviation(metric) for row in own]
            handles[label] = panel.errorbar(
                at, [row.mean(metric) for row in own], spread, marker="o", capsize=3, color=f"C{i}", label=label
            )
        panel.set(title=METRICS[metric], xlabel=second.field, ylabel=UNITS[metric])
        panel.grid(alpha=0.3)
    panels[0].figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False
    )


def _clouds(sweep: Sweep, panels: Sequence[Axes]) -> None:
    """More fields: PA-MPJPE over each of them, Accel as the colour."""
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
