"""What a training run of the motion VAE has to do (TrainVAESpec, the options of ``glot.train_vae``). Nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from glot.errors import InputError
from glot.features.motion_sets import OPEN_MOTIONS, make_command, motion_file
from glot.features.options import FeaturesOption
from glot.home import check_job_paths, features_folder, missing_error, runs_folder
from glot.location import file_exists

VARIANTS = ("latent_only", "with_first_pose")
ROUNDS, LONGEST_ROUND = 20, 1000  # the errors are computed so often in a run, and at least after so many steps


@dataclass(frozen=True, kw_only=True)
class TrainVAESpec:
    """A training run: which motions, how long, where its files go. InputError for a value that cannot be right."""

    features: FeaturesOption = field(default_factory=features_folder)
    motions: Annotated[
        tuple[str, ...],
        typer.Option(help="Set of real motions in NAME/motion below --features. May be repeated."),
    ] = (OPEN_MOTIONS,)
    variant: Annotated[
        str,
        typer.Option(
            help="Where the first pose of a motion comes from: latent_only (the vector; the published weights) or "
            "with_first_pose (the motion itself; the paper)."
        ),
    ] = "latent_only"
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/runs/vae_VARIANT", help="Folder for the files of this run; the result is OUT/best."
        ),
    ] = None
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            help="Optimiser steps. The release takes 1,000 epochs of 500,000 windows, about a million steps. The rate "
            "is constant for the first half, and then falls linearly.",
        ),
    ] = 300
    batch: Annotated[
        int, typer.Option(min=1, help="Windows of 90 frames in a step. The release: 512, with_first_pose 400.")
    ] = 64
    lr: Annotated[
        float, typer.Option(help="Learning rate of Adam. The release: 1e-4, with_first_pose 3e-4.", min=0)
    ] = 1e-3
    latent: Annotated[int, typer.Option(min=2, help="Numbers of a motion's vector; the model's model.latent.")] = 512
    hidden: Annotated[int, typer.Option(min=1, help="Hidden width; the model's model.vae_hidden.")] = 1024
    long_only: Annotated[
        bool,
        typer.Option(
            "--long-only", help="Leave out motions of less than 90 frames, which are otherwise played forth and back."
        ),
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="What all that is random is drawn with.")] = 1
    gpus: Annotated[
        int | None, typer.Option(min=0, max=1, show_default="1 if there is one", help="0: train on the CPU.")
    ] = None
    threads: Annotated[
        int,
        typer.Option(min=1, help="CPU threads. With more threads than idle cores, the training is many times slower."),
    ] = 1
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in OUT; start one if there is none.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier run left in OUT, and start.")] = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InputError(f"--variant {self.variant}: choose one of {', '.join(VARIANTS)}")
        for name, least in (("steps", 1), ("batch", 1), ("latent", 2), ("hidden", 1), ("seed", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)}: must be {least} or more")
        if self.latent % 2:
            raise InputError(f"--latent {self.latent}: must be even, each direction of the encoder gives half of it")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"--lr {self.lr}: must be more than 0")
        if self.gpus not in (None, 0, 1):
            raise InputError(f"--gpus {self.gpus}: the motion VAE is trained on one GPU, or with 0 on the CPU")
        if not self.motions or len({*self.motions}) < len(self.motions):
            raise InputError(f"--motions {' '.join(self.motions)}: give each set once")
        if self.resume and self.fresh:
            raise InputError("--resume --fresh: give one of them")
        if self.out is not None and self.out.is_file():
            raise InputError(f"--out {self.out}: is a file; give a folder")

    @property
    def run_folder(self) -> Path:
        """``out``, or its default."""
        return self.out or runs_folder() / f"vae_{self.variant}"

    @property
    def files(self) -> dict[str, Path]:
        """The files of the motion sets, by name."""
        return {name: motion_file(self.features, name) for name in self.motions}

    @property
    def round_steps(self) -> int:
        """Steps from one computation of the errors, with a checkpoint, to the next."""
        return min(max(self.steps // ROUNDS, 1), LONGEST_ROUND)

    @property
    def identity(self) -> dict[str, Any]:
        """The options that make a run in the same folder a different one."""
        names = ("variant", "steps", "batch", "lr", "latent", "hidden", "long_only", "seed")
        return {name: getattr(self, name) for name in names}

    def check_places(self) -> None:
        """InputError naming all options with a relative path in a Ray job, or all motion sets that are missing."""
        check_job_paths({"--features": self.features, "--out": self.run_folder})
        things = [
            (f"{file}: no such set of real motions; make it with", make_command(self.features, name))
            for name, file in self.files.items()
            if not file_exists(file)
        ]
        if things:
            raise missing_error(things)
