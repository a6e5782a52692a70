"""The numbers of an evaluation in; a table on the screen, a JSON file and a table of all tracks out."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from glot.errors import InputError
from glot.features.schema import Manifest
from glot.location import write_whole
from glot.scoring.evaluation import Evaluation
from glot.scoring.metric_names import METRICS, PREDICTED_ACCEL
from glot.scoring.paper_rows import PaperRow

TITLES = {
    "mean_pose": "mean pose",
    "linear_probe": "linear probe, no video",
    "untrained": "random weights",
    "first_guess": "the backbone's first guess, no video",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a checkpoint was evaluated on, and the errors that were found."""

    dataset: str
    split: str
    checkpoint: Path
    recipe: str
    step: int | None  # the checkpoint's training step; None for published checkpoints
    notes: list[str]  # what a user has to know about the model, one line each
    manifest: Manifest  # manifest of the feature set
    results: dict[str, Evaluation]  # errors of the checkpoint, by protocol; "gendered": against gendered bodies
    baselines: dict[str, Evaluation]  # errors of the baselines, by the keys of TITLES
    paper: PaperRow | None  # what the paper reports for this model on this dataset
    comparable: bool  # whether the paper used the same data and body

    @property
    def first(self) -> Evaluation:
        """The checkpoint's errors by the first protocol, the protocol of the baselines."""
        return next(iter(self.results.values()))


def show(report: Report) -> None:
    """Prints the table of all errors, and the tracks that were skipped."""
    first = report.first
    size = f"{first.frames} frames of {first.tracks} tracks"
    table = Table(title=f"{report.dataset}/{report.split}: {size}; mm, Accel mm/frame\u00b2")
    table.add_column("")
    for title in METRICS.values():
        table.add_column(title, justify="right")

    def row(name: str, metrics: dict[str, float], style: str = "") -> None:
        cells = [f"{metrics[key]:.1f}" if key in metrics else "-" for key in METRICS]
        table.add_row(name, *cells, style=style)

    for key, result in report.baselines.items():
        row(TITLES[key], result.metrics)
    for key, result in report.results.items():
        title = f"{first.protocol}, truth with gendered bodies" if key == "gendered" else key
        row(f"this checkpoint, {title}", result.metrics, "bold")
    if report.paper:
        source = report.paper.source
        note = f"{source}, official" if report.comparable else f"{source} on {report.dataset}, not comparable"
        row(note, report.paper.errors, "dim")
    Console().print(table)
    for note in report.notes:
        print(note)
    if report.paper and report.paper.note:
        print(report.paper.note)
    for key, result in report.results.items():
        if PREDICTED_ACCEL in result.metrics:
            print(f"mean acceleration of the predictions ({key}): {result.metrics[PREDICTED_ACCEL]:.1f} mm/frame\u00b2")
    for key, result in report.results.items():
        if result is not first and result.frames != first.frames:
            print(f"{key}: {result.frames} frames of {result.tracks} tracks")
        if result is first or result.skipped_tracks != first.skipped_tracks:
            _say_skipped(result.skipped_tracks, "" if result is first else f" by {key}")


def _say_skipped(tracks: list[str], by: str) -> None:
    if tracks:
        some = ", ".join(tracks[:5]) + (", ..." if len(tracks) > 5 else "")
        print(f"tracks skipped{by}, shorter than a window or without ground truth: {len(tracks)} ({some})")


def write_json(report: Report, path: Path) -> None:
    """All numbers as a JSON file."""
    _write(path, (json.dumps(as_dict(report), indent=1) + "\n").encode())


def write_tracks(report: Report, path: Path) -> None:
    """The errors of every track as a .csv or .parquet file, see ``_table_bytes``."""
    _write(path, _table_bytes(report.results, parquet=path.suffix == ".parquet"))


def as_dict(report: Report) -> dict[str, Any]:
    """What the JSON file holds."""
    manifest, first = report.manifest, report.first
    return {
        **{
            name: {
                **result.metrics,
                "frames": result.frames,
                "per_track": result.per_track,
                **_own_skipped(result, first),
            }
            for name, result in report.results.items()
        },
        **{name: result.metrics for name, result in report.baselines.items()},
        "frames": first.frames,
        "tracks": first.tracks,
        "skipped_tracks": first.skipped_tracks,
        "dataset": report.dataset,
        "split": report.split,
        "paper": report.paper.errors if report.paper else None,
        "comparable_with_paper": report.comparable,
        "checkpoint": {"folder": str(report.checkpoint), "recipe": report.recipe, "step": report.step},
        **({"notes": report.notes} if report.notes else {}),
        "features": {"backbone": manifest.backbone, "body": manifest.body, "key": manifest.key},
    }


def _own_skipped(result: Evaluation, first: Evaluation) -> dict[str, list[str]]:
    """The skipped tracks of a protocol that skips others than the first does."""
    return {} if result.skipped_tracks == first.skipped_tracks else {"skipped_tracks": result.skipped_tracks}


def _table_bytes(results: dict[str, Evaluation], *, parquet: bool) -> bytes:
    """One row per protocol and track: protocol, track_id, frames and every metric in mm."""
    names = ["protocol", "track_id", "frames", *METRICS]
    rows = [{"protocol": name, **row} for name, result in results.items() for row in result.per_track]
    if parquet:
        binary = io.BytesIO()
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), binary)
        return binary.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    """Writes a file in one step, and makes its folder; InputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
