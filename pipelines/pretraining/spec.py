"""The options of pretrain_backbone, checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import runs_folder
from pipelines.motions.spec import KINDS
from pipelines.scenes.spec import check_range, check_sources

MEGAPIXELS = 4000.0  # megapixels of crops that a run trains on
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class PretrainSpec:
    """What to pretrain on, how long, and where it goes. Raises InputError for values that cannot be used."""

    out: Annotated[
        Path,
        typer.Option(
            help="Folder for renders, checkpoints and weights. An unfinished run in it is continued.",
            show_default="$GLOT_HOME/runs/backbone",
        ),
    ] = field(default_factory=lambda: runs_folder() / "backbone")
    images: Annotated[
        int, typer.Option(help="Number of pictures to render; each takes 30 ms of a core and 25 KB.", min=100)
    ] = 24_000
    hours: Annotated[
        float | None,
        typer.Option(
            help="Longest time of the training; its schedule is shortened to fit.", show_default="the whole recipe"
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same renders, crops and initial weights.", min=0)
    ] = 0
    device: Annotated[str, typer.Option(help="cpu or cuda. On a GPU batches are larger.")] = "cpu"
    motions: Annotated[
        Path | None, typer.Option(help=f"Motion capture: {KINDS}.", show_default="the shipped clips")
    ] = None
    body: Annotated[
        Path | None, typer.Option(help="SMPL file, or a folder with SMPL's files.", show_default="the open body")
    ] = None
    workers: Annotated[
        int | None, typer.Option(help="Number of processes and threads.", show_default="one per core", min=1)
    ] = None
    megapixels: Annotated[
        float,
        typer.Option(
            help="Crops to train on, in millions of pixels. 4000 take about two hours on two cores.", min=0.001
        ),
    ] = MEGAPIXELS
    precision: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16.", show_default="bfloat16 where the processor has instructions for it"),
    ] = None
    start: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: safetensors of another run. The first layers are kept, the heads are new, and "
            "all crops are 224 px."
        ),
    ] = None
    save_minutes: Annotated[float, typer.Option(help="Minutes between checkpoints.", min=0.0)] = 4.0

    def __post_init__(self) -> None:
        check_range("--images", self.images, least=100)
        if self.hours is not None and not self.hours > 0:
            raise InputError(f"--hours {self.hours}: must be more than 0; leave it out for the whole recipe")
        check_range("--seed", self.seed, least=0)
        if self.device not in DEVICES:
            raise InputError(f"--device {self.device}: no such device; give {' or '.join(DEVICES)}")
        check_range("--megapixels", self.megapixels, least=0.001)
        if self.precision not in (None, *PRECISIONS):
            raise InputError(f"--precision {self.precision}: no such precision; give {' or '.join(PRECISIONS)}")
        if self.start is not None and not self.start.is_file():
            raise InputError(f"--start {self.start}: no such file; give the resnet50.safetensors of another run")
        check_range("--save-minutes", self.save_minutes, least=0)
        check_sources(motions=self.motions, body=self.body, workers=self.workers)
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out}: exists and is not a folder; choose another")
