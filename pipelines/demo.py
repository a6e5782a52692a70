"""The main job from nothing to pictures on open data, by running the same commands a user would.

Every stage is a command of its own; a stage that has ended is not run again. Out comes ``summary.json`` with the test
metrics, how much data there was, and the seconds of every stage.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from glot import cli
from glot.errors import InputError
from glot.scoring.metric_names import METRICS

ROOT = Path(__file__).resolve().parent.parent
BASELINES = {"mean_pose": "mean pose", "linear_probe": "linear probe, frame by frame", "untrained": "GLoT, untrained"}


@dataclass(frozen=True)
class Stage:
    """A command, what people are told it does, and the file that is there when it has ended."""

    name: str
    what: str
    arguments: list[str]
    product: Path

    @property
    def command(self) -> str:
        """The line as a user would type it."""
        return shlex.join(["python", *self.arguments])


def stages(out: Path, *, workers: int) -> list[Stage]:
    """The demo, in order."""
    data, features, train = out / "data", out / "features", out / "train"
    where = ["--features", str(features), "--dataset", "3dpw", "--split", "test"]
    mlflow = f"sqlite:///{out.resolve() / 'mlflow.db'}"
    return [
        Stage(
            "sample",
            "render people doing real motion capture, in 3DPW's layout",
            ["pipelines/make_sample.py", "--out", str(data)],
            data / "sample.json",
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
            f"train GLoT with Ray Train, {workers} DDP workers, from the shipped model on",
            [
                *("-m", "glot.train_ray", "--recipe", "open_sample", "--features", str(features), "--out", str(train)),
                *("--start", "open", "--set", "lr=0.00001", "--set", "epochs=4", "--set", "warmup_epochs=1"),
                *("--workers", str(workers), "--mlflow", mlflow, "--resume"),
            ],
            train / "best" / "config.json",
        ),
        Stage(
            "evaluate",
            "evaluate on clips that were never trained on",
            [
                *("-m", "glot.evaluate", "--checkpoint", str(train / "best"), *where, "--untrained", "--probe"),
                *("--json", str(out / "evaluation.json")),
            ],
            out / "evaluation.json",
        ),
        Stage(
            "sweep",
            "vary the mask ratio with Ray Tune (paper's Table 4, four values, short runs)",
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
                *("-m", "glot.render", "--checkpoint", str(train / "best"), *where),
                *("--root", str(data), "--out", str(out / "pictures")),
            ],
            out / "pictures" / "render.json",
        ),
    ]


def run_stage(stage: Stage, record: Path) -> float:
    """Seconds the stage took, now or when it was run before with the same command."""
    done = json.loads(record.read_text()) if record.is_file() else {}
    before = done.get(stage.name)
    if before and before["command"] == stage.command and stage.product.exists():
        print(f"== {stage.name}: done before in {before['seconds']:.0f} s", flush=True)
        return before["seconds"]
    print(f"== {stage.name}: {stage.what}\n   {stage.command}", flush=True)
    start = time.monotonic()
    ended = subprocess.run([sys.executable, *stage.arguments], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if ended.returncode:
        raise InputError(
            f"the demo's stage {stage.name!r} ended with exit code {ended.returncode}; its message is above"
        )
    seconds = time.monotonic() - start
    done[stage.name] = {"command": stage.command, "seconds": round(seconds, 1)}
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(done, indent=1) + "\n")
    os.replace(temporary, record)
    print(f"   {seconds:.0f} s", flush=True)
    return seconds


def summarise(out: Path, seconds: dict[str, float]) -> dict:
    """What summary.json says, from the files the stages left."""
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


def show(summary: dict, out: Path) -> None:
    """The table, and what to look at next."""
    table = Table(title="held-out clips of the open sample, mm (never comparable with 3DPW)")
    table.add_column("")
    for title in METRICS.values():
        table.add_column(title, justify="right")
    for name, title in (BASELINES | {"test": "GLoT, trained"}).items():
        table.add_row(
            title, *(f"{summary[name][metric]:.1f}" if metric in summary[name] else "-" for metric in METRICS)
        )
    Console(width=100).print(table)
    took = sum(summary["seconds"].values())
    print(f"{summary['frames']} frames of {summary['tracks']} people, {took / 60:.1f} minutes in all")
    pictures = sorted((out / "pictures").glob("*.png")) + sorted((out / "pictures").glob("*.mp4"))
    for picture in pictures:
        print(f"picture: {picture}")
    mlflow = Path(sys.executable).parent / "mlflow"
    print(f"runs and sweep: {mlflow} ui --backend-store-uri sqlite:///{out.resolve() / 'mlflow.db'}")
    print("                then open http://127.0.0.1:5000")


def main(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    workers: Annotated[int, typer.Option(min=1, help="DDP workers of the training.")] = 2,
) -> None:
    """Run the whole pipeline on open data: sample, features, training, evaluation, sweep, pictures.

    Started again, it goes on where it was; stages that have ended are not run again.
    """
    out.mkdir(parents=True, exist_ok=True)
    setup = ROOT / ".venv" / "setup_seconds"
    seconds = {"setup": float(setup.read_text())} if setup.is_file() else {}
    for stage in stages(out, workers=workers):
        seconds[stage.name] = run_stage(stage, out / "stages.json")
    summary = summarise(out, seconds)
    temporary = out / "summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=1) + "\n")
    os.replace(temporary, out / "summary.json")
    show(summary, out)


def command() -> None:
    """Entry point of ``make demo``."""
    cli.run(main)


if __name__ == "__main__":
    command()
