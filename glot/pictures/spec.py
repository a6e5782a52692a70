"""The options of the commands render (RenderSpec) and view (ViewSpec), checked before anything heavy is imported."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.features.dataset_folders import command_for, dataset_folder
from glot.features.options import BodyOption, FeaturesOption, missing_features
from glot.home import check_job_paths, features_folder, missing_error, runs_folder
from glot.models.spec import default_checkpoint, is_open_checkpoint, missing_checkpoint

MOST_COLUMNS = 40  # of the picture of several models


def default_out() -> Path:
    return runs_folder() / "pictures"


@dataclass(frozen=True, kw_only=True)
class RenderSpec:
    """Which track of which features is drawn, with which model, and where the pictures go.

    Raises InputError for an invalid value. ``check_places`` looks for the files.
    """

    checkpoints: Annotated[
        tuple[Path, ...],
        typer.Argument(
            show_default=False,
            metavar="CHECKPOINT",
            help="With --compare: two or more checkpoints to draw side by side, each as --checkpoint takes it.",
        ),
    ] = ()
    checkpoint: Annotated[
        Path,
        typer.Option(
            show_default="$GLOT_HOME/runs/open_sample/best",
            help="Folder of a checkpoint, e.g. runs/first/best; a published .pth.tar; or 'open', the shipped model.",
        ),
    ] = field(default_factory=default_checkpoint)
    features: FeaturesOption = field(default_factory=features_folder)
    root: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/data/DATASET; data/sample for 3dpw where there is no data/3dpw",
            help="Folder of the pictures or videos that the features were extracted from.",
        ),
    ] = None
    out: Annotated[
        Path, typer.Option(show_default="$GLOT_HOME/runs/pictures", help="Folder for TRACK.png and TRACK.mp4.")
    ] = field(default_factory=default_out)
    dataset: Annotated[str, typer.Option(help="Dataset of the features.")] = "3dpw"
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test"
    track: Annotated[str, typer.Option(help="Track to draw.", show_default="the track of median PA-MPJPE")] = ""
    body: BodyOption = None
    max_frames: Annotated[int, typer.Option(min=1, help="Largest number of frames in the video.")] = 600
    attention: Annotated[
        bool, typer.Option("--attention", help="Instead, draw which frames the global branch attends to.")
    ] = False
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Instead, draw the models of the checkpoints named after it side by side; or, where none are, the "
            "bodies before and after the local branch's correction.",
        ),
    ] = False
    names: Annotated[
        str,
        typer.Option(
            show_default="the models' titles",
            help="Captions of these checkpoints, with commas between them, e.g. 'TCMR,GLoT'.",
        ),
    ] = ""
    moments: Annotated[
        str,
        typer.Option(
            help="Columns of the picture of several models: how many, chosen where the models differ most; or the "
            "frames themselves, e.g. 12,40,77."
        ),
    ] = "5"
    frame: Annotated[
        int | None,
        typer.Option(show_default="the middle of the track", help="Frame in the middle of the window of --attention."),
    ] = None

    def __post_init__(self) -> None:
        for name in ("dataset", "split"):
            if not getattr(self, name):
                raise InputError(f"--{name}: is empty; give the name of a {name}, or leave --{name} out")
        if self.max_frames < 1:
            raise InputError(f"--max-frames {self.max_frames}: must be 1 or more")
        if self.out.is_file():
            raise InputError(f"--out {self.out}: cannot be written, it is a file; give a folder")
        check_body_option(self.body)
        check_several(self)

    @property
    def captions(self) -> tuple[str, ...]:
        """``names`` one by one; () where the models' titles are to be taken."""
        return tuple(name.strip() for name in self.names.split(",")) if self.names else ()

    @property
    def columns(self) -> int | tuple[int, ...]:
        """``moments``: how many, or the frames themselves. InputError where it is neither."""
        frames = "," in self.moments
        try:
            numbers = tuple(dict.fromkeys(int(number) for number in self.moments.strip(", ").split(",")))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < (0 if frames else 1):
            raise InputError(f"--moments {self.moments}: give a number, e.g. 5, or frames, e.g. 12,40,77")
        if (len(numbers) if frames else numbers[0]) > MOST_COLUMNS:
            raise InputError(f"--moments {self.moments}: a picture has at most {MOST_COLUMNS} columns; give fewer")
        return numbers if frames else numbers[0]

    @property
    def picture_root(self) -> Path:
        """``root``, or its default."""
        if self.root is not None:
            return self.root
        return dataset_folder(self.dataset)

    def check_places(self) -> None:
        """InputError naming everything that is missing, or every relative path in a Ray job."""
        named = {f"checkpoint {number}": path for number, path in enumerate(self.checkpoints, 1)}
        named = named or {"--checkpoint": self.checkpoint}
        paths = {option: None if is_open_checkpoint(path) else path for option, path in named.items()}
        paths |= {"--features": self.features, "--root": self.picture_root}
        check_job_paths(paths | {"--out": self.out, "--body": self.body})
        absent = [missing for path in named.values() for missing in missing_checkpoint(path, self.features)]
        absent += missing_features(self.features, self.dataset, self.split)
        root = self.picture_root
        if not root.is_dir():
            what = f"--root {root}: there is no such folder; it is where the dataset's pictures are"
            absent.append((what, command_for(self.dataset)))
        if absent:
            raise missing_error(absent)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """The bodies and the video that the viewer shows, and the address of its page."""

    results: Annotated[Path, typer.Argument(help="Folder of one video's results, or one person's .npz or .parquet.")]
    video: Annotated[Path | None, typer.Option(help="The video. Without it, only the bodies are shown.")] = None
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder. Without it, the open body is used.")] = None
    host: Annotated[
        str, typer.Option(help="Address that the page is served at; 0.0.0.0 lets others in the network see it.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page, or the next free port.")] = 8080

    def __post_init__(self) -> None:
        if not self.results.exists():
            raise InputError(f"{self.results}: there is no such file or folder; python -m glot.predict makes one")
        if self.video is not None and not self.video.is_file():
            raise InputError(f"--video {self.video}: there is no such file; give the video of these results")
        check_body_option(self.body)
        if not self.host:
            raise InputError("--host: is empty; give an address, e.g. 127.0.0.1")
        if not 1 <= self.port <= 65535:
            raise InputError(f"--port {self.port}: must be from 1 to 65535")


def check_several(spec: RenderSpec) -> None:
    """InputError unless the options that are about several models belong together."""
    paths, captions = spec.checkpoints, spec.captions
    named = " ".join(map(str, paths))
    if captions and not paths:
        raise InputError(f"--names {spec.names}: is for several models; name their checkpoints with --compare")
    if not paths:
        return
    if not spec.compare:
        raise InputError(f"{named}: to draw checkpoints side by side, add --compare; to draw one, use --checkpoint")
    if len(paths) < 2:
        other = "runs/first/best" if is_open_checkpoint(paths[0]) else "open"
        raise InputError(f"--compare {named}: is one checkpoint; name two or more, e.g. --compare {named} {other}")
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InputError(f"--compare {named}: {twice[0]} is named twice; name each checkpoint once")
    if spec.checkpoint != default_checkpoint():
        raise InputError(f"--checkpoint {spec.checkpoint}: leave it out, or name it after --compare with the others")
    if spec.attention:
        raise InputError("--attention: draws one model; leave it out, or leave out the checkpoints after --compare")
    if captions and (len(captions) != len(paths) or len(set(captions)) < len(paths) or not all(captions)):
        raise InputError(f"--names {spec.names}: {len(paths)} checkpoints need {len(paths)} different names")
    _ = spec.columns  # InputError for moments that cannot be read


def check_body_option(body: Path | None) -> None:
    if body is not None and not body.exists():
        raise InputError(f"--body {body}: there is no such file or folder; give SMPL's, or leave --body out")
