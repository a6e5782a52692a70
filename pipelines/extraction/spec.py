"""The options of extract_features as one dataclass, checked without importing torch, Ray or a decoder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError, NotNowError
from glot.features.backbones.backbone_kinds import BackboneChoice, check_precision, is_weights_file, kind_names
from glot.home import check_job_paths, data_folder, features_folder
from glot.location import file_exists, is_remote, location
from pipelines.decoders.clips import PREPROCESSING
from pipelines.decoders.registry import DATASETS, VIDEO

ALL_SPLITS = "all"
OCCLUDERS_PER = ("frame", "track")
DEVICES = ("auto", "cpu", "gpu", "both")
DTYPES = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class ExtractSpec:
    """What to extract, with which networks, and where the feature sets go.

    Raises InputError for a value that cannot be right, or a file that does not exist.
    ``pipelines.extraction.datasets.chosen_datasets`` fills in the options that are left out.
    """

    dataset: Annotated[
        str | None,
        typer.Option(
            show_default="every dataset in $GLOT_HOME/data", help=f"What the root holds: {', '.join(DATASETS)}."
        ),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            parser=location,
            show_default="$GLOT_HOME/data/DATASET",
            help="The dataset's folder. For 3dpw: the folder that contains imageFiles/ and sequenceFiles/. Videos may "
            "also lie in an object store: s3://bucket/videos.",
        ),
    ] = None
    out: Annotated[
        Path,
        typer.Option(
            parser=location,
            show_default="$GLOT_HOME/features",
            help="Feature sets go to OUT/DATASET/SPLIT/: a folder, or a URI such as s3://bucket/features.",
        ),
    ] = field(default_factory=features_folder)
    split: Annotated[str, typer.Option(help="One split, such as train, validation or test; or all.")] = "all"
    backbone: Annotated[
        str,
        typer.Option(
            help=f"The network: {', '.join(kind_names())}; `python -m glot.info backbones` says what each needs. "
            "BlazePose was trained on real people and needs no GPU."
        ),
    ] = "resnet50"
    weights: Annotated[
        Path | None,
        typer.Option(
            show_default="SPIN's or HMR2's in $GLOT_HOME/body, else the open ones of resnet50",
            help="Weights for resnet50: safetensors, a torchvision state dict, or SPIN's checkpoint; or the word "
            "random, for a random network to try the pipeline with. For hmr2: its checkpoint. For blazepose: another "
            "of its landmark networks.",
        ),
    ] = None
    crop_rule: Annotated[
        str | None,
        typer.Option(
            show_default="wham",
            help="For hmr2, how people are cropped: wham (1.2 times the box's longer side); 4dhumans (the box is "
            "widened to 192:256); gvhmr (the same, then 1.2 times).",
        ),
    ] = None
    first_guess: Annotated[
        bool,
        typer.Option(
            "--first-guess",
            help="For hmr2: also keep its guess of the body, as columns; evaluation shows it beside models.",
        ),
    ] = False
    body: Annotated[
        Path | None,
        typer.Option(
            show_default="SMPL in $GLOT_HOME/body, else the open body",
            help="Body model for the 3D joints: SMPL's .pkl, its .npz, or the folder with them.",
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="The most workers at a time. 0: one for each GPU or CPU core, also of nodes that come later.",
        ),
    ] = 0
    devices: Annotated[
        str,
        typer.Option(
            help="Where the network runs: cpu, gpu, or both, for a cluster that has CPUs to spare beside its GPUs. "
            "auto: on GPUs if the cluster has any."
        ),
    ] = "auto"
    gpu_share: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="GPUs that one worker takes. 0.5: two workers share a GPU.")
    ] = 1.0
    feature_dtype: Annotated[
        str,
        typer.Option(
            help="float32; or float16, half the disk space: a feature then changes by at most 0.05 % of its value."
        ),
    ] = "float32"
    batch_size: Annotated[int, typer.Option(min=1, help="Number of crops in one forward pass.")] = 8
    precision: Annotated[
        str,
        typer.Option(
            help="float32; bfloat16, about twice as fast on chips with instructions for it; or int8, three times as "
            "fast or more on CPUs. The last two change the features a little, and the command prints by how much."
        ),
    ] = "float32"
    allow_skips: Annotated[
        bool, typer.Option(help="Exit with code 0 even if pictures or sequences could not be read.")
    ] = False
    preprocessing: Annotated[
        str,
        typer.Option(
            help="corrected; or reference, which repeats the faults of the published inputs (shifted boxes, crops at "
            "another scale than their 2D targets, float16 targets, ...) for comparison with models trained on them."
        ),
    ] = "corrected"
    occluders: Annotated[
        Path | None,
        typer.Option(
            help="Folder of Pascal VOC (VOCdevkit/VOC2012). Its objects are pasted over the crops; labels do not "
            "change. People among its objects are pasted only with --preprocessing reference. Such a set needs a "
            "separate --out."
        ),
    ] = None
    occluders_per: Annotated[
        str | None,
        typer.Option(
            help="frame: new objects in every frame, as published. track: objects pass by along a track. Default: "
            "track, or frame with --preprocessing reference."
        ),
    ] = None
    tracks: Annotated[
        Path | None,
        typer.Option(
            parser=location,
            help="For --dataset video: where the people are, as JSON or in the MOT format. A file, or a folder with a "
            "file for each video. Default: one person, who fills the picture.",
        ),
    ] = None
    jitter: Annotated[
        bool,
        typer.Option(
            "--jitter",
            help="Shift and scale the boxes as a person detector would, to train models for videos. Such a set needs "
            "a separate --out.",
        ),
    ] = False
    status: Annotated[
        bool, typer.Option("--status", help="Only say how far the sets are, also while a job is at work on them.")
    ] = False
    retry_skipped: Annotated[
        bool, typer.Option("--retry-skipped", help="Also try again what was skipped because it is damaged.")
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Only do what is left of earlier runs; do not look for new or changed sources."
        ),
    ] = False
    seed: Annotated[int, typer.Option(help="Seed of --occluders and --jitter; the same seed gives the same crops.")] = 0

    def __post_init__(self) -> None:
        check_job_paths(
            {
                "--root": self.root or data_folder(),
                "--out": self.out,
                "--occluders": self.occluders,
                "--tracks": self.tracks,
            }
        )
        self._check_dataset()
        self._check_network()
        self._check_occluders()
        self._check_files()

    @property
    def choice(self) -> BackboneChoice:
        """The chosen backbone; InputError for options that do not go together."""
        return BackboneChoice(self.backbone, self.weights, self.crop_rule, self.first_guess)

    def _check_dataset(self) -> None:
        names = ", ".join(DATASETS)
        if self.dataset is None:
            if self.root is not None:
                raise InputError(f"--root {self.root}: give --dataset, too; it says what the folder holds: {names}")
            splits = tuple(dict.fromkeys(split for dataset in DATASETS.values() for split in dataset.splits))
        elif self.dataset not in DATASETS:
            raise InputError(f"--dataset {self.dataset}: not known; there is {names}")
        else:
            splits = DATASETS[self.dataset].splits
        if self.split not in (ALL_SPLITS, *splits):
            have = f"{self.dataset} has" if self.dataset else "the datasets have"
            raise InputError(f"--split {self.split}: {have} {', '.join(splits)}; or give {ALL_SPLITS}")
        if self.tracks is not None and self.dataset != VIDEO:
            raise InputError(f"--tracks {self.tracks}: is only for --dataset {VIDEO}; other datasets have their boxes")
        if self.preprocessing not in PREPROCESSING:
            raise InputError(f"--preprocessing {self.preprocessing}: there is {' and '.join(PREPROCESSING)}")

    def _check_network(self) -> None:
        check_precision(self.choice.kind, self.precision)
        if self.preprocessing == "reference" and self.choice.kind.name != "resnet50":
            raise InputError(
                "--preprocessing reference: repeats the published inputs, which SPIN's resnet50 made; leave it out "
                f"with {self.backbone}"
            )
        if self.workers < 0:
            raise InputError(f"--workers {self.workers}: give 1 or more; 0 means one for each GPU or CPU core")
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: give 1 or more")
        if self.devices not in DEVICES:
            raise InputError(f"--devices {self.devices}: there is {', '.join(DEVICES)}")
        if self.feature_dtype not in DTYPES:
            raise InputError(f"--feature-dtype {self.feature_dtype}: there is {' and '.join(DTYPES)}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give 0 or more")

    def _check_occluders(self) -> None:
        if self.occluders_per is not None and self.occluders is None:
            raise InputError(f"--occluders-per {self.occluders_per}: there is nothing to paste without --occluders")
        if self.occluders_per is not None and self.occluders_per not in OCCLUDERS_PER:
            raise InputError(f"--occluders-per {self.occluders_per}: there is {' and '.join(OCCLUDERS_PER)}")
        if self.occluders is not None and self.split == ALL_SPLITS:
            raise InputError(
                "--occluders: name one --split, such as train; errors on covered test pictures measure something else"
            )

    def _check_files(self) -> None:
        root = None if self.root is None or is_remote(self.root) else self.root  # a store is asked when it is listed
        if root is not None and not root.exists():
            raise InputError(f"--root {self.root}: there is no such folder")
        if root is not None and not root.is_dir():
            raise InputError(f"--root {self.root}: is a file; give the folder that contains it")
        files = {"--body": self.body, "--occluders": self.occluders, "--tracks": self.tracks}
        if is_weights_file(self.weights):
            files["--weights"] = self.weights
        if self.choice.file is not None:
            files["--backbone"] = self.choice.file
        for option, path in files.items():
            if path is not None and not _exists(path):
                raise InputError(f"{option} {path}: there is no such file or folder")


def _exists(path: Path) -> bool:
    try:
        return file_exists(path) or path.exists()
    except OSError as error:
        raise NotNowError(f"{path}: cannot be looked for now ({error})") from None
