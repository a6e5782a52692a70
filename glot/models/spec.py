"""Checkpoints as options of commands, and the options of ``official`` and ``publish``; nothing here imports torch."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import body_folder, features_folder, home, runs_folder

OPEN_CHECKPOINT = "open"  # the name of the checkpoint that comes with the project


def default_checkpoint() -> Path:
    """The best checkpoint of ``python -m glot.train_ray`` without options."""
    return runs_folder() / "open_sample" / "best"


def is_open_checkpoint(path: Path) -> bool:
    """Whether an option names the checkpoint that comes with the project."""
    return str(path) == OPEN_CHECKPOINT


def missing_checkpoint(path: Path, features: Path) -> list[tuple[str, str]]:
    """[] where the checkpoint is there, else what is missing and the command to make it, for missing_error."""
    if is_open_checkpoint(path) or path.exists():
        return []
    place = "" if features == features_folder() else f" --features {shlex.quote(str(features))}"
    return [(f"--checkpoint {path}: there is no such folder; train one with", f"python -m glot.train_ray{place}")]


@dataclass(frozen=True, kw_only=True)
class PublishSpec:
    """Which checkpoint is written in float16, and where. InputError for a checkpoint that is not there."""

    checkpoint: Annotated[
        Path, typer.Option(help="Folder of a checkpoint, e.g. runs/first/best, or a published .pth.tar file.")
    ]
    out: Annotated[Path, typer.Option(help="Folder to make. An existing folder of this name is replaced.")]

    def __post_init__(self) -> None:
        if not self.checkpoint.is_file():
            _check_checkpoint(self.checkpoint)
        if self.out.is_file():
            raise InputError(f"--out {self.out}: is a file; give a folder")


@dataclass(frozen=True, kw_only=True)
class OfficialSpec:
    """Which checkpoint is written in the official layout, with which body, and where.

    InputError for a checkpoint or a body that is not there; ``with_body`` fills in the default body.
    """

    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint of this project, e.g. runs/first/best.")]
    out: Annotated[Path, typer.Option(help="The file to write, e.g. model_best.pth.tar.")]
    body: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/body",
            help="SMPL file, or a folder with SMPL's files. The written file contains SMPL, as official files do.",
        ),
    ] = None

    def __post_init__(self) -> None:
        _check_checkpoint(self.checkpoint)
        if self.body is not None and not self.body.exists():
            raise InputError(f"--body {self.body}: there is no such body file or folder; give SMPL's")
        if self.out.is_dir():
            raise InputError(f"--out {self.out}: is a folder; give the name of a file")

    def with_body(self) -> "OfficialSpec":
        """The same with the body filled in; InputError where there is none."""
        body = self.body or body_folder()
        if body is None:
            raise InputError(
                f"--body is missing, and there is no SMPL in {home() / 'body'}; download SMPL_NEUTRAL.pkl "
                "(smplify.is.tue.mpg.de) and put it there"
            )
        return replace(self, body=body)


def _check_checkpoint(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"--checkpoint {folder}: there is no such folder; train a model with python -m glot.train_ray")
