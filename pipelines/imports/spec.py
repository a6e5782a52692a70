"""The options of import_features, checked as they are given. Imports nothing heavy."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import body_folder, features_folder, missing_error
from pipelines.decoders.clips import PREPROCESSING
from pipelines.imports.hmr2_layouts import HMR2_LAYOUTS, cache_of, set_of_name
from pipelines.imports.layouts import LAYOUTS, crop_scale_of

SPLITS = ("train", "validation", "test")
SMALLEST_CROP_SCALE = 0.1
DOWNLOAD = "fetch it from its project: the table of datasets in the README has the address"


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """What to import, and how. InputError where an option does not make sense."""

    dataset: Annotated[
        str,
        typer.Option(
            help=f"The dataset of the features: {', '.join(LAYOUTS)}; for those of WHAM and GVHMR, also "
            f"{', '.join(name for name in HMR2_LAYOUTS if name not in LAYOUTS)}.",
            show_default="as in the name of a file of WHAM",
        ),
    ] = ""
    split: Annotated[
        str,
        typer.Option(
            help='train, validation or test. The "val" files of MPI-INF-3DHP are its test split.',
            show_default="as in the name of a file of WHAM",
        ),
    ] = ""
    src: Annotated[
        Path,
        typer.Option(
            help="What to import: a *_db.pt of TCMR, VIBE or GLoT, or insta_train_db.h5; features of HMR2.0, which are "
            "a *_vit.pth of WHAM, or a file or a folder of GVHMR's imgfeats."
        ),
    ]
    labels: Annotated[
        tuple[Path, ...],
        typer.Option(
            help="A file of labels of GVHMR, such as test_3dpw_gt_labels.pt or preproc_test_kp2d_v0.pt. May be given "
            "several times.",
            show_default=False,
        ),
    ] = ()
    out: Annotated[
        Path,
        typer.Option(
            help="The feature set goes to OUT/DATASET/SPLIT/. OUT must be a folder, not a URI.",
            show_default="$GLOT_HOME/features",
        ),
    ] = field(default_factory=features_folder)
    crop_scale: Annotated[
        float | None,
        typer.Option(
            min=SMALLEST_CROP_SCALE,
            help="Scale at which the pictures were cropped. Default: the scale in the file's name (scale12, scale1, "
            "tight), else TCMR's scale: 1.3 for 3dpw and posetrack, 1.2 for the others. VIBE's 3dpw files need 1.2.",
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint that made the features: SPIN's, or HMR2.0's for those of WHAM and GVHMR. With it, the "
            "set can be used with sets that were extracted with this checkpoint, and models with --backbone."
        ),
    ] = None
    body: Annotated[
        Path | None,
        typer.Option(
            help="SMPL's files. With them, the set can be used with sets that were extracted with these files.",
            show_default="$GLOT_HOME/body, where it holds SMPL",
        ),
    ] = field(default_factory=body_folder)
    preprocessing: Annotated[
        str,
        typer.Option(
            help="corrected: 2D targets at the crop scale of the features, 3D joints relative to the hips, unknown "
            "joints left out. reference: as the published training code reads them, with 2D targets at scale 1.2, all "
            "in float16."
        ),
    ] = "corrected"
    allow_skips: Annotated[bool, typer.Option(help="Exit with code 0 even if rows could not be used.")] = False

    def __post_init__(self) -> None:
        for name, value in zip(("dataset", "split"), set_of_name(self.src), strict=True):
            if not getattr(self, name) and not value:
                raise InputError(f"--{name}: give it; only the names of WHAM's files, as 3dpw_train_vit.pth, say it")
            object.__setattr__(self, name, getattr(self, name) or value)
        layouts = HMR2_LAYOUTS if self.cache else LAYOUTS
        if self.dataset not in layouts:
            raise InputError(f"--dataset {self.dataset}: not known; choose one of {', '.join(layouts)}")
        if self.split not in SPLITS:
            raise InputError(f"--split {self.split}: not known; choose one of {', '.join(SPLITS)}")
        if self.preprocessing not in PREPROCESSING:
            raise InputError(f"--preprocessing {self.preprocessing}: choose {' or '.join(PREPROCESSING)}")
        if self.crop_scale is not None and self.dataset == "insta_variety":
            raise InputError("--crop-scale: the pictures of insta_variety are crops already; leave it out")
        if self.crop_scale is not None and not self.crop_scale >= SMALLEST_CROP_SCALE:
            raise InputError(f"--crop-scale {self.crop_scale}: must be at least {SMALLEST_CROP_SCALE}")
        if self.cache:
            self._check_cache()
        if self.labels and self.cache != "gvhmr":
            raise InputError(f"--labels {self.labels[0]}: is for features of GVHMR; leave it out")
        if self.out.is_file():
            raise InputError(f"--out {self.out}: is a file; give a folder")
        files = {
            f"--src {self.src}: there is no such file or folder": self.src.exists(),
            **{f"--labels {file}: there is no such file": file.is_file() for file in self.labels},
            f"--weights {self.weights}: there is no such file": self.weights is None or self.weights.is_file(),
            f"--body {self.body}: there is no such file or folder": self.body is None or self.body.exists(),
        }
        if absent := [(message, DOWNLOAD) for message, is_there in files.items() if not is_there]:
            raise missing_error(absent)

    def _check_cache(self) -> None:
        if self.crop_scale is not None:
            raise InputError("--crop-scale: the boxes of WHAM's and GVHMR's files are the crops; leave it out")
        if self.preprocessing != "corrected":
            raise InputError(f"--preprocessing {self.preprocessing}: is for files of TCMR, VIBE and GLoT; leave it out")
        if self.src.is_dir() and not any(self.src.rglob("*.pt")):
            raise InputError(f"--src {self.src}: no .pt files in this folder; give GVHMR's imgfeats/SET, or a file")

    @cached_property
    def cache(self) -> str:
        """Who made features of HMR2.0, wham or gvhmr; "" for a file of SPIN's features."""
        return cache_of(self.src)

    @property
    def folder(self) -> Path:
        """The folder of the feature set."""
        return self.out / self.dataset / self.split

    @property
    def feature_crop_scale(self) -> float:
        """The crop scale of the features."""
        if self.cache:
            return HMR2_LAYOUTS[self.dataset].crop_scale
        return self.crop_scale or crop_scale_of(self.src, self.dataset)
