"""The options of everything that turns videos into bodies, checked without importing torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS, BackboneChoice, is_weights_file, kind_names
from glot.models.spec import OPEN_CHECKPOINT

OPEN = Path(OPEN_CHECKPOINT)  # stands for the model that comes with the project
FITS = ("limbs", "camera", "none")


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """How videos become bodies. The results in a folder are all made with the same options.

    Raises InputError for an invalid value or a missing file.
    """

    checkpoint: Annotated[
        Path,
        typer.Option(help="The model: a checkpoint's folder; a published .pth.tar file; or 'open', the shipped model."),
    ] = OPEN
    body: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/body if the model was made with SMPL, else the open body",
            help="SMPL's file, or the folder with its files.",
        ),
    ] = None
    backbone: Annotated[
        str, typer.Option(help=f"The network that makes features of the crops: {', '.join(kind_names())}.")
    ] = "blazepose"
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights for resnet50, or 'random'; published checkpoints need SPIN's weights. For hmr2: its "
            "checkpoint. For blazepose: another of its landmark networks."
        ),
    ] = None
    crop_rule: Annotated[
        str | None,
        typer.Option(
            show_default="wham",
            help="For hmr2, how people are cropped, as for the features that the model was trained on.",
        ),
    ] = None
    detector_weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of a torchvision person detector (Faster R-CNN, SSDlite), to use instead of BlazePose's "
            "detector."
        ),
    ] = None
    tiles: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also detect small people, in overlapping squares: this many along the longer side. 0: no squares.",
        ),
    ] = 0
    tracks: Annotated[
        Path | None,
        typer.Option(
            help="Tracks to use instead of a detector: boxes of people as JSON or MOT's text, a file or a folder."
        ),
    ] = None
    fit: Annotated[
        str,
        typer.Option(
            help="What is fitted to BlazePose's 2D landmarks: limbs (poses and places of the bodies); camera (only "
            "their places); or none (the model's output is not changed)."
        ),
    ] = "limbs"
    focal: Annotated[float | None, typer.Option(help="Focal length in px. Default: the picture's diagonal.")] = None
    smooth: Annotated[bool, typer.Option("--smooth", help="Smooth the bodies with the one-euro filter.")] = False
    pkl: Annotated[
        bool, typer.Option("--pkl", help="Also write people.pkl, with the keys of VIBE's and TCMR's demos.")
    ] = False
    bvh: Annotated[bool, typer.Option("--bvh", help="Also write a .bvh file for each person.")] = False
    gltf: Annotated[bool, typer.Option("--gltf", help="Also write people.glb: all people, animated.")] = False
    film: Annotated[
        bool, typer.Option(help="Draw overlay.mp4. Drawing takes much of the time; --no-film skips it.")
    ] = True

    def __post_init__(self) -> None:
        file = self.choice.file
        if file is not None and not file.exists():
            raise InputError(f"--backbone {self.backbone}: there is no file {file}")
        if self.fit not in FITS:
            raise InputError(f"--fit {self.fit}: choose one of {', '.join(FITS)}")
        if self.tiles < 0:
            raise InputError(f"--tiles {self.tiles}: give 0 or more")
        if self.focal is not None and not self.focal > 0:
            raise InputError(f"--focal {self.focal:g}: must be more than 0 px")
        if self.checkpoint != OPEN and not self.checkpoint.exists():
            raise InputError(
                f"--checkpoint {self.checkpoint}: there is no such folder; train one with python -m glot.train_ray"
            )
        for option in ("body", "weights", "detector_weights", "tracks"):
            path = getattr(self, option)
            if option == "weights" and not is_weights_file(path):
                continue
            if path is not None and not path.exists():
                raise InputError(f"--{option.replace('_', '-')} {path}: there is no such file or folder")

    @property
    def choice(self) -> BackboneChoice:
        """The chosen backbone; InputError for options that do not go together."""
        return BackboneChoice(self.backbone, self.weights, self.crop_rule)

    def absolute(self) -> "CaptureOptions":
        """Only these options, without the options of a subclass, with absolute paths: for workers in other folders."""
        options = {option.name: getattr(self, option.name) for option in fields(CaptureOptions)}
        for name, value in options.items():
            if isinstance(value, Path) and value not in (OPEN, RANDOM_WEIGHTS):
                options[name] = value.absolute()
        options["backbone"] = self.choice.absolute_name
        return CaptureOptions(**options)
