"""The options of ``glot.evaluate`` as one dataclass, checked without importing torch."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.features.options import BodyOption, FeaturesOption, missing_features
from glot.features.windows import PROTOCOLS
from glot.home import body_folder, check_job_paths, features_folder, missing_error
from glot.models.spec import default_checkpoint, is_open_checkpoint, missing_checkpoint

BOTH = "both"
TABLE_FORMATS = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec:
    """Which checkpoint is evaluated, on which feature set, by which protocols, and where the numbers go.

    Raises InputError for a value that cannot be right. ``with_places`` fills in the default checkpoint and checks that
    the feature set and the checkpoint are there.
    """

    checkpoint: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/runs/open_sample/best",
            help="A checkpoint's folder, a published .pth.tar, or 'open' for the shipped model.",
        ),
    ] = None
    features: FeaturesOption = field(default_factory=features_folder)
    dataset: Annotated[str, typer.Option(help="The dataset to evaluate on.")] = "3dpw"
    split: Annotated[str, typer.Option(help="The split of that dataset.")] = "test"
    protocol: Annotated[str, typer.Option(help=f"{', '.join(PROTOCOLS)}, or both.")] = BOTH
    body: BodyOption = None
    untrained: Annotated[
        bool,
        typer.Option(
            "--untrained",
            help="Also evaluate the same model with random weights. Training starts from these, except with --start, "
            "--spin-regressor or a recipe that whitens.",
        ),
    ] = False
    gendered: Annotated[
        bool,
        typer.Option(
            "--gendered",
            help="Also evaluate against ground truth with SMPL_MALE or SMPL_FEMALE of --body, by each person's gender.",
        ),
    ] = False
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Also evaluate a linear map from each frame's features, fitted on the train split."
        ),
    ] = False
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this JSON file.")] = None
    table: Annotated[
        Path | None, typer.Option(help="Write the errors of each track to this file (.csv or .parquet).")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Number of windows in one forward pass.")] = 64
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="Only count the parameters and multiply-accumulates (paper's Table 10) of --checkpoint, or of "
            "all five models if no checkpoint is given.",
        ),
    ] = False

    def __post_init__(self) -> None:
        for name in ("dataset", "split"):
            if not getattr(self, name):
                raise InputError(f"--{name}: an empty name; give one, e.g. {'3dpw' if name == 'dataset' else 'test'}")
        if self.protocol not in (*PROTOCOLS, BOTH):
            raise InputError(f"--protocol {self.protocol}: must be one of {', '.join(PROTOCOLS)}, {BOTH}")
        if self.table is not None and self.table.suffix not in TABLE_FORMATS:
            raise InputError(f"--table {self.table}: must end in {' or '.join(TABLE_FORMATS)}")
        for option, path in (("--table", self.table), ("--json", self.json_file)):
            if path is not None and path.is_dir():
                raise InputError(f"{option} {path}: is a folder; give the name of a file")
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: must be at least 1")
        if self.body is not None and not self.body.exists():
            raise InputError(f"--body {self.body}: there is no such body file or folder; give SMPL's, or leave it out")
        folder = self.body or body_folder()
        if self.gendered and (folder is None or not folder.is_dir()):
            raise InputError("--gendered needs --body FOLDER with SMPL_NEUTRAL, SMPL_MALE and SMPL_FEMALE")

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols to evaluate by. Baselines are evaluated by the first."""
        return PROTOCOLS if self.protocol == BOTH else (self.protocol,)

    @property
    def feature_set(self) -> Path:
        """The folder of the feature set."""
        return self.features / self.dataset / self.split

    def with_places(self) -> "EvaluateSpec":
        """The same with the checkpoint filled in.

        Raises InputError naming all options with a relative path in a Ray job, or everything that is missing (the
        feature set, the checkpoint) with the commands that make it.
        """
        checkpoint = self.checkpoint or default_checkpoint()
        check_job_paths(
            {
                "--features": self.features,
                "--checkpoint": None if is_open_checkpoint(checkpoint) else checkpoint,
                "--body": self.body,
                "--json": self.json_file,
                "--table": self.table,
            }
        )
        absent = missing_features(self.features, self.dataset, self.split)
        absent += missing_checkpoint(checkpoint, self.features)
        if absent:
            raise missing_error(absent)
        return replace(self, checkpoint=checkpoint)
