"""The options of glot.predict and pipelines/predict_videos, checked without importing torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.capture.capture_options import CaptureOptions
from glot.errors import InputError
from glot.home import check_job_paths, data_folder, missing_error, runs_folder
from glot.location import location


def bodies_folder() -> Path:
    """The default folder for bodies of videos."""
    return runs_folder() / "bodies"


@dataclass(frozen=True, kw_only=True)
class PredictSpec(CaptureOptions):
    """The options of glot.predict: for bodies of videos, or for SMPL parameters of a feature set."""

    video: Annotated[Path | None, typer.Argument(help="A video, or a folder with videos at any depth.")] = None
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/runs/bodies; with --features $GLOT_HOME/runs/bodies.parquet",
            help="For videos: the folder; each video gets OUT/NAME/. With --features: the .parquet file to write.",
        ),
    ] = None
    features: Annotated[
        Path | None,
        typer.Option(parser=location, help="Instead of a video: the folder or URI of feature sets, DIR/DATASET/SPLIT."),
    ] = None
    dataset: Annotated[str, typer.Option(help="With --features: the dataset.")] = "3dpw"
    split: Annotated[str, typer.Option(help="With --features: the split of the dataset.")] = "test"
    track: Annotated[str, typer.Option(help="With --features: predict only the track with this id.")] = ""
    batch_size: Annotated[int, typer.Option(min=1, help="With --features: number of windows in a forward pass.")] = 64

    def __post_init__(self) -> None:
        if (self.video is None) == (self.features is None):
            both = ", not both" if self.video else ""
            raise InputError(f"give either a video (or a folder of videos) or --features{both}")
        if self.features is not None and self.result.suffix != ".parquet":
            raise InputError(f"--out {self.result}: must end in .parquet")
        if self.video is not None and not self.video.exists():
            raise InputError(f"{self.video}: there is no such video or folder")
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: give 1 or more")
        super().__post_init__()

    @property
    def result(self) -> Path:
        """--out, or its default: a folder, or with --features a file."""
        default = bodies_folder() if self.features is None else bodies_folder().with_suffix(".parquet")
        return self.out or default


@dataclass(frozen=True, kw_only=True)
class PredictVideosSpec(CaptureOptions):
    """The options of pipelines/predict_videos: for bodies of all videos in a folder, several videos at once."""

    root: Annotated[
        Path | None,
        typer.Argument(show_default="$GLOT_HOME/data/video", help="A folder with videos at any depth."),
    ] = None
    out: Annotated[
        Path, typer.Option(show_default="$GLOT_HOME/runs/bodies", help="Each video gets a folder OUT/NAME/.")
    ] = field(default_factory=bodies_folder)
    workers: Annotated[
        int, typer.Option(min=0, help="Number of videos at once. 0: one for each GPU, else one for each CPU core.")
    ] = 0

    def __post_init__(self) -> None:
        check_job_paths({"ROOT": self.videos, "--out": self.out})
        if self.root is None and not self.videos.is_dir():
            raise missing_error(
                [
                    (
                        f"no ROOT, and no folder {self.videos}; name the folder of videos:",
                        "python pipelines/predict_videos.py ROOT",
                    )
                ]
            )
        if not self.videos.exists():
            raise InputError(f"{self.videos}: there is no such video or folder")
        if self.workers < 0:
            raise InputError(f"--workers {self.workers}: give 1 or more, or 0 for as many as fit")
        super().__post_init__()

    @property
    def videos(self) -> Path:
        """ROOT, or its default."""
        return self.root or data_folder() / "video"
