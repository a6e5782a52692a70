"""The whole pipeline on open data, with the commands that a user would run: nothing in, pictures and a summary out.

Every stage is a command; a stage that has finished is not run again. ``summary.json`` holds the errors on the test
split, the amount of data, and the seconds that every stage took.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from glot import cli
from glot.errors import InputError
from glot.features.dataset_folders import SAMPLE_FILE
from glot.home import runs_folder
from glot.location import write_json
from glot.scoring.metric_names import METRICS
from glot.training.record.mlflow_store import default_uri, ui_command

ROOT = Path(__file__).resolve().parent.parent
BASELINES = {"mean_pose": "mean pose", "linear_probe": "linear probe, frame by frame", "untrained": "GLoT, untrained"}


@dataclass(frozen=True, kw_only=True)
class DemoSpec:
    """Where the demo's files go, and how many workers train. Raises InputError for values that cannot be used."""

    out: Annotated[
        Path, typer.Option(help="Folder for all files of the demo.", show_default="$GLOT_HOME/runs/demo")
    ] = field(default_factory=lambda: runs_folder() / "demo")
    workers: Annotated[int, typer.Option(min=1, help="Number of DDP workers for training.")] = 2

    def __post_init__(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out}: exists and is not a folder; choose another")
        if self.workers < 1:
            raise InputError(f"--workers {self.workers}: must be at least 1")


@dataclass(frozen=True)
class Stage:
    """A command, what it does in words, and the file that exists when it has finished."""

    name: str
    description: str
    arguments: list[str]
    product: Path

    @property
    def command(self) -> str:
        """The line as a user would type it."""
        return shlex.join(["python", *self.arguments])


def stages(out: Path, *, workers: int) -> list[Stage]:
    """The stages of the demo in ``out``, in order. ``workers`` is the number of DDP workers."""
    data, features, train = out / "data", out / "features", out / "train"
    test_split = ["--features", str(features), "--dataset", "3dpw", "--split", "test"]
    mlflow = default_uri(out)
    return [
        Stage(
            "sample",
            "render people who move by real motion capture, in 3DPW's layout",
            ["pipelines/make_sample.py", "--out", str(data)],
            data / SAMPLE_FILE,
        ),
        Stage(
            "extract",
            "crop people and extract ResNet-50 features with Ray Data",
            [
                *("pipelines/extract_features.py", "--dataset", "3dpw", "--root", str(data), "--split", "all"),
                *("--out", str(features)),
            ],
            features / "3dpw" / "test" / "manifest.json",
        ),
        Stage(
            "train",
            f"train GLoT with Ray Train, {workers} DDP workers, starting from the shipped model",
            [
                *("-m", "glot.train_ray", "--recipe", "open_sample", "--features", str(features), "--out", str(train)),
                *("--start", "open", "--set", "lr=0.00001", "--set", "epochs=4", "--set", "warmup_epochs=1"),
                *("--workers", str(workers), "--mlflow", mlflow, "--resume"),
            ],
            train / "best" / "config.json",
        ),
        Stage(
            "evaluate",
            "evaluate on clips that are not trained on",
            [
                *("-m", "glot.evaluate", "--checkpoint", str(train / "best"), *test_split, "--untrained", "--probe"),
                *("--json", str(out / "evaluation.json")),
            ],
            out / "evaluation.json",
        ),
        Stage(
            "sweep",
            "sweep the mask ratio with Ray Tune (the paper's Table 4, four values, short runs)",
            [
                *("-m", "tuning.search", "--space", "mask_ratio", "--values", "0,0.25,0.5,0.75"),
                *("--features", str(features), "--out", str(out / "sweep"), "--mlflow", mlflow),
                *("--set", "epochs=3", "--set", "data.batch_size=16", "--resume"),
            ],
            out / "sweep" / "report.csv",
        ),
        Stage(
            "render",
            "draw the predicted bodies over a held-out clip",
            [
                *("-m", "glot.render", "--checkpoint", str(train / "best"), *test_split),
                *("--root", str(data), "--out", str(out / "pictures")),
            ],
            out / "pictures" / "render.json",
        ),
    ]


def run_stage(stage: Stage, record: Path) -> float:
    """Runs a stage, unless the file ``record`` lists the same command as finished. Returns the seconds it took.

    Raises InputError if the command fails.
    """
    done = json.loads(record.read_text()) if record.is_file() else {}
    earlier = done.get(stage.name)
    if earlier and earlier["command"] == stage.command and stage.product.exists():
        print(f"== {stage.name}: already done, in {earlier['seconds']:.0f} s", flush=True)
        return earlier["seconds"]
    print(f"== {stage.name}: {stage.description}\n   {stage.command}", flush=True)
    start = time.monotonic()
    finished = subprocess.run([sys.executable, *stage.arguments], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if finished.returncode:
        raise InputError(
            f"the demo's stage {stage.name!r} ended with exit code {finished.returncode}; its message is above"
        )
    seconds = time.monotonic() - start
    done[stage.name] = {"command": stage.command, "seconds": round(seconds, 1)}
    write_json(record, done)
    print(f"   {seconds:.0f} s", flush=True)
    return seconds


def summarise(out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json, from the files that the stages have written."""
    evaluation = json.loads((out / "evaluation.json").read_text())
    manifests = [json.loads(path.read_text()) for path in sorted((out / "features" / "3dpw").glob("*/manifest.json"))]
    rows = {"test": evaluation["corrected"], **{name: evaluation[name] for name in BASELINES}}
    return {
        **{name: {metric: round(row[metric], 2) for metric in METRICS if metric in row} for name, row in rows.items()},
        "frames": sum(manifest["rows"] for manifest in manifests),
        "tracks": sum(manifest["tracks"] for manifest in manifests),
        "sweep_runs": len((out / "sweep" / "report.csv").read_text().splitlines()) - 1,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def show(summary: dict[str, Any], out: Path) -> None:
    """Prints the table of errors, and what to look at next."""
    table = Table(title="held-out clips of the open sample, mm (never comparable with 3DPW)")
    table.add_column("")
    for title in METRICS.values():
        table.add_column(title, justify="right")
    for name, title in (BASELINES | {"test": "GLoT, trained"}).items():
        table.add_row(
            title, *(f"{summary[name][metric]:.1f}" if metric in summary[name] else "-" for metric in METRICS)
        )
    Console(width=100).print(table)
    seconds = sum(summary["seconds"].values())
    print(f"{summary['frames']} frames of {summary['tracks']} people, {seconds / 60:.1f} minutes in all")
    pictures = sorted((out / "pictures").glob("*.png")) + sorted((out / "pictures").glob("*.mp4"))
    for picture in pictures:
        print(f"picture: {picture}")
    print(f"runs and sweep: {ui_command(default_uri(out))}")
    print("                then open http://127.0.0.1:5000")


def main(spec: DemoSpec) -> None:
    """Run the whole pipeline on open data: sample, features, training, evaluation, sweep, pictures.

    Started again, it continues where it stopped: stages that have finished are not run again.
    """
    out = spec.out if Path.cwd() == ROOT else spec.out.resolve()  # the stages run in ROOT
    out.mkdir(parents=True, exist_ok=True)
    setup = ROOT / ".venv" / "setup_seconds"
    seconds = {"setup": float(setup.read_text())} if setup.is_file() else {}
    for stage in stages(out, workers=spec.workers):
        seconds[stage.name] = run_stage(stage, out / "stages.json")
    summary = summarise(out, seconds)
    write_json(out / "summary.json", summary)
    show(summary, out)


def command() -> None:
    """Entry point of ``make demo``."""
    cli.run(main)


if __name__ == "__main__":
    command()
