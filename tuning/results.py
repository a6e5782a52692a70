"""Trials of a sweep in; tables beside the paper's numbers, a Markdown page and the best trial out."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from glot.scoring.metric_names import METRICS
from tuning.outcomes import FAILED, FINISHED, STOPPED, Outcome
from tuning.spaces import Axis, Errors, Space, Value, shown

BEST = "pa_mpjpe"  # the metric by which trials are compared
TABLE_WIDTH = 150  # characters, unless $COLUMNS gives another width


@dataclass(frozen=True)
class Row:
    """A point: errors of its finished trials by metric (one for each seed), the paper's, notes on its other trials.

    A metric that the validation set does not allow has no errors.
    """

    point: dict[str, Value]
    errors: dict[str, list[float]]
    paper: Errors | None
    notes: str = ""

    def mean(self, metric: str) -> float:
        """The mean over seeds; NaN without a finished trial."""
        return fmean(self.errors[metric]) if self.errors.get(metric) else math.nan

    def deviation(self, metric: str) -> float:
        """The sample standard deviation over seeds; NaN with fewer than two."""
        return stdev(self.errors[metric]) if len(self.errors.get(metric, ())) > 1 else math.nan

    def published(self, metric: str) -> float:
        """The paper's error; NaN if it has none."""
        value: float | None = getattr(self.paper, metric) if self.paper else None
        return math.nan if value is None else value

    def difference(self, metric: str) -> float:
        """Our mean minus the paper's error; NaN without one of them."""
        return self.mean(metric) - self.published(metric)


@dataclass(frozen=True)
class Sweep:
    """All that the page of a sweep shows."""

    space: Space
    outcomes: Sequence[Outcome]
    data: str  # the data of the errors, in words
    about: dict[str, str]  # further facts about the sweep: recipe, settings, features, …

    def rows(self) -> list[Row]:
        """A row for each point, sorted by the axes: numbers by value, words in the order of the axis."""
        points: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            points.setdefault(json.dumps(outcome.point), []).append(outcome)
        rows = []
        for trials in points.values():
            done = [trial for trial in trials if trial.outcome == FINISHED]
            # A validation set without SMPL parameters has no MPVPE.
            errors = {m: [t.metrics[f"val_{m}"] for t in done if f"val_{m}" in t.metrics] for m in METRICS}
            others = [trial for trial in trials if trial.outcome != FINISHED]
            notes = "; ".join(
                f"seed {trial.seed} {trial.outcome} {trial.reason.split(';')[0][:80]}".strip() for trial in others
            )
            rows.append(Row(trials[0].point, errors, self.space.row(trials[0].point), notes))
        return sorted(rows, key=lambda row: [_order(axis, row.point[axis.field]) for axis in self.space.axes])

    def best(self) -> Outcome | None:
        """The finished trial with the least PA-MPJPE."""
        done = [each for each in self.outcomes if each.outcome == FINISHED and f"val_{BEST}" in each.metrics]
        return min(done, key=lambda outcome: outcome.metrics[f"val_{BEST}"], default=None)

    def seeds(self) -> int:
        """The largest number of finished trials of a point."""
        return max((len(row.errors[BEST]) for row in self.rows()), default=0)

    def title(self) -> str:
        """The space and its fields, as a heading."""
        return f"{self.space.name}: {', '.join(axis.field for axis in self.space.axes)}"

    def counts(self) -> str:
        """For example: 15 trials: 12 finished, 3 stopped early."""
        counts = {name: sum(trial.outcome == name for trial in self.outcomes) for name in (FINISHED, STOPPED, FAILED)}
        parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"{len(self.outcomes)} trial{'s' if len(self.outcomes) != 1 else ''}: {parts or 'none over'}"


def number(value: float, deviation: float = math.nan) -> str:
    """A mean as text: 81.4, 81.4 ± 0.3, or a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if math.isnan(deviation) else f"{value:.1f} ± {deviation:.1f}"


def cells(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """The table's head and rows: the swept values, then for each metric our error, the paper's and the difference."""
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
                line.append(number(row.published(metric)))
                line.append("–" if math.isnan(difference) else f"{difference:+.1f}")
        body.append(line + ([row.notes] if notes else []))
    return head + (["notes"] if notes else []), body


def plain_table(sweep: Sweep) -> dict[str, Any]:
    """The table as numbers, {columns, data}: the form that MLflow shows as a table."""
    columns = [axis.field for axis in sweep.space.axes]
    for metric in METRICS:
        columns += [f"{metric}", f"{metric}_deviation", f"{metric}_paper", f"{metric}_difference"]
    rows = []
    for row in sweep.rows():
        line: list[Value | None] = [row.point[axis.field] for axis in sweep.space.axes]
        for metric in METRICS:
            values = (row.mean(metric), row.deviation(metric), row.published(metric), row.difference(metric))
            line += [None if math.isnan(value) else round(value, 3) for value in values]
        rows.append([*line, len(row.errors[BEST])])
    return {"columns": [*columns, "seeds"], "data": rows}


def csv_table(sweep: Sweep) -> str:
    """The table as numbers, as CSV."""
    table, text = plain_table(sweep), io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table["columns"])
    writer.writerows(table["data"])
    return text.getvalue()


def markdown(sweep: Sweep, picture: str = "") -> str:
    """The page of a sweep. ``picture`` is the file of its picture, for a link."""
    head, body = cells(sweep)
    lines = [f"# {sweep.title()}", "", f"{sweep.counts()}. Errors in mm (Accel in mm/frame²) on {sweep.data}."]
    if sweep.seeds() > 1:
        lines.append(f"Mean ± standard deviation over {sweep.seeds()} seeds.")
    if sweep.space.paper:
        lines.append(
            f"The paper's errors ({sweep.space.table}) are on 3DPW's test split after its whole training: another "
            "dataset and another budget. Compare the shapes of the curves, not the numbers."
        )
    lines += ["", "| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
    lines += ["| " + " | ".join(line) + " |" for line in body]
    lines += ["", f"![{sweep.title()}]({picture})", ""] if picture else [""]
    if best := sweep.best():
        lines += [
            f"Best: {sweep.space.label(best.point)}, seed {best.seed}, "
            f"PA-MPJPE {best.metrics[f'val_{BEST}']:.1f} mm after epoch {best.metrics.get('epoch', 0):.0f}.",
            "",
        ]
    lines += ["| | |", "|---|---|"] + [f"| {name} | {value} |" for name, value in sweep.about.items() if value]
    return "\n".join(lines) + "\n"


def print_table(sweep: Sweep) -> None:
    """Prints the table, with the paper's errors beside ours."""
    head, body = cells(sweep)
    paper = f" | paper: {sweep.space.table}, 3DPW (another dataset)" if sweep.space.paper else ""
    table = Table(title=f"{sweep.title()}: ours on {sweep.data}{paper}")
    for title in head:
        table.add_column(title, justify="right", style="dim" if title == "paper" else None)
    for line in body:
        table.add_row(*line)
    Console(width=None if os.environ.get("COLUMNS") else TABLE_WIDTH).print(table)


def _order(axis: Axis, value: Value) -> float:
    """The key by which rows are sorted along an axis."""
    if not isinstance(value, str | bool):
        return float(value)
    return float(axis.values.index(value)) if value in axis.values else 0.0
