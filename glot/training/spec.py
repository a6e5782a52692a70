"""What a training run has to do (TrainSpec, the options of ``glot.train_ray``) and what each worker is given.

Nothing here imports torch, Ray or MLflow.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from glot.config import Recipe
from glot.errors import InputError
from glot.features.options import BodyOption, FeaturesOption
from glot.home import check_job_paths, features_folder, runs_folder
from glot.models.spec import is_open_checkpoint
from glot.recipes import RECIPES_IN_SHORT, recipe_named
from glot.training.batch_split import check_split
from glot.training.feature_sets import feature_lineage
from glot.training.record.mlflow_store import chosen_uri

CONTINUE = 75  # exit code of a run that stopped for lack of time: start the same command again (EX_TEMPFAIL)

ExperimentOption = Annotated[str, typer.Option(help="MLflow experiment.")]
VAEOption = Annotated[
    Path | None,
    typer.Option(
        help="Motion VAE for MEVA: a folder that python -m glot.train_vae made, or MEVA's published "
        "model_best.pth.tar. It stays as it is in training."
    ),
]
NO_VAE = (
    "warning: MEVA is trained without --vae, so its coarse motion comes from random weights; python -m glot.train_vae "
    "trains a motion VAE"
)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A training run: what to train, on which features, with how many workers, and where its files go.

    Raises InputError for a value that cannot be right. ``check_places`` checks that the feature sets are there;
    ``glot.training.driver.prepare`` checks that all files fit together.
    """

    features: FeaturesOption = field(default_factory=features_folder)
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/runs/RECIPE",
            help="Folder for the checkpoints and the state of this run. One folder holds one run.",
        ),
    ] = None
    recipe: Annotated[str, typer.Option(help=f"What to train: {RECIPES_IN_SHORT}.")] = "open_sample"
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="1 if there is one, without --workers",
            help="Number of GPUs; each has one DDP worker (nccl). 0: train on CPUs.",
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option(min=0, help="Number of DDP workers on CPUs (gloo), not together with --gpus. 0: one worker."),
    ] = 0
    settings: Annotated[tuple[str, ...], typer.Option("--set", help="field=value of the recipe; may be repeated.")] = ()
    body: BodyOption = None
    spin_regressor: Annotated[
        Path | None,
        typer.Option(help="SPIN's spin_model_checkpoint.pth.tar: the iterative regressor starts from its weights."),
    ] = None
    start: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint whose weights training starts from: a folder, a published .pth.tar, or 'open' for the "
            "shipped model."
        ),
    ] = None
    vae: VAEOption = None
    mlflow: Annotated[
        str, typer.Option(show_default="sqlite in OUT/../mlflow.db", help="MLflow tracking URI, or 'none'.")
    ] = ""
    experiment: ExperimentOption = "glot"
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in OUT; start one if there is none.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier run left in OUT, and start.")] = False
    save_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints that --resume continues from; 0: one every epoch.")
    ] = 0
    max_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="Stop with a checkpoint after this time, when the current step has ended; the exit code is then "
            f"{CONTINUE}. 0: no limit. Set it some minutes below the time limit of the job, so that there is time to "
            "save.",
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        recipe = recipe_named(self.recipe, self.settings)
        check_common_options(self)
        if self.gpus and self.workers:
            raise InputError(
                f"--gpus {self.gpus} --workers {self.workers}: give one of them; a worker holds either a GPU or a CPU "
                "core"
            )
        for name in ("gpus", "workers", "save_every", "max_seconds"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
        check_split(recipe.data, self.worker_count, parts=recipe.accumulate)
        if self.spin_regressor is not None and not self.spin_regressor.is_file():
            raise InputError(f"--spin-regressor {self.spin_regressor}: there is no such file; fetch SPIN's checkpoint")
        if self.start is not None and not is_open_checkpoint(self.start) and not self.start.exists():
            raise InputError(f"--start {self.start}: there is no such checkpoint; give a folder, a .pth.tar or 'open'")
        if self.vae is not None:
            if recipe.model.kind != "meva":
                raise InputError(f"--vae {self.vae}: is for MEVA (--set model=meva), not for {recipe.model.kind}")
            if self.start is not None:
                raise InputError(f"--start {self.start} --vae {self.vae}: give one; MEVA's checkpoint holds its VAE")
            check_vae_there(self.vae)

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe with the settings applied."""
        return recipe_named(self.recipe, self.settings)

    @property
    def run_folder(self) -> Path:
        """``out``, or its default."""
        return self.out or runs_folder() / self.recipe

    @property
    def worker_count(self) -> int:
        """DDP workers: one for each GPU, or those on CPUs; one when neither is given."""
        return self.gpus or self.workers or 1

    @property
    def tracking_uri(self) -> str:
        """The MLflow store of the run; "" for none."""
        return chosen_uri(self.mlflow, self.run_folder)

    def check_places(self) -> None:
        """InputError naming all options with a relative path in a Ray job, or all feature sets that are missing."""
        start = None if self.start is None or is_open_checkpoint(self.start) else self.start
        check_job_paths(
            {
                "--features": self.features,
                "--out": self.run_folder,
                "--body": self.body,
                "--spin-regressor": self.spin_regressor,
                "--start": start,
                "--vae": self.vae,
            }
        )
        feature_lineage(self.chosen_recipe, self.features)


def check_vae_there(vae: Path) -> None:
    """InputError where nothing is at ``vae``."""
    if not vae.exists():
        raise InputError(
            f"--vae {vae}: there is no such motion VAE; train one (python -m glot.train_vae), or give MEVA's published "
            "model_best.pth.tar"
        )


def check_common_options(spec: Any) -> None:
    """InputError for wrong values of the options that training runs, sweeps and reports of sweeps share."""
    if getattr(spec, "resume", False) and getattr(spec, "fresh", False):
        raise InputError("--resume --fresh: give one of them")
    if not spec.experiment:
        raise InputError("--experiment: the name is empty; give one, or leave --experiment out")
    if spec.out is not None and spec.out.is_file():
        raise InputError(f"--out {spec.out}: is a file; give a folder")
    body = getattr(spec, "body", None)
    if body is not None and not body.exists():
        raise InputError(f"--body {body}: there is no such file or folder; give SMPL's, or leave --body out")


@dataclass(frozen=True)
class MlflowLabels:
    """How a run appears in MLflow. The defaults are those of ``glot.train_ray``."""

    name: str = ""  # "": the name of the run's folder
    parent: str = ""  # id of the run that it is nested under
    upload: bool = True  # whether the best checkpoint is copied into MLflow


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker needs to know. Paths are absolute, because workers start in a folder of their own."""

    recipe: Recipe
    features: Path
    lineage: dict[str, Any]  # what the features were made with (glot.training.feature_sets)
    out: Path
    body: Path | None = None  # None: the open body
    spin_regressor: Path | None = None
    start: Path | None = None  # checkpoint whose weights training starts from
    vae: Path | None = None  # MEVA's motion VAE
    threads: int = 1
    save_every: int = 0  # steps between checkpoints; 0: after every epoch
    stop_at: float = float("inf")  # seconds since 1970, by the clock of rank 0
