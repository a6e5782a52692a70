"""The options of ``tuning.search`` (SearchSpec) and of ``tuning.report`` (ReportSpec).

Imports neither torch nor Ray nor MLflow.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, cast

import typer

from glot.config import Recipe
from glot.errors import InputError
from glot.features.options import BodyOption, FeaturesOption
from glot.home import check_job_paths, features_folder, runs_folder
from glot.recipes import RECIPES_IN_SHORT, recipe_named
from glot.settings import check_setting
from glot.training.feature_sets import feature_lineage
from glot.training.record.mlflow_store import NONE, chosen_uri, database_of, default_uri
from glot.training.spec import ExperimentOption, VAEOption, check_common_options, check_vae_there
from tuning.spaces import SPACES, Point, Space, Value, settings_of, space_named, with_values

SEARCHES = ("grid", "random", "bayesian")
SEED_FIELD, MODEL_FIELD = "seed", "model"  # the fields of the recipe


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A sweep: the space, the search, the resources of a trial, and the folder of the files.

    Raises InputError for an invalid value, and for a value that makes an invalid recipe.
    """

    features: FeaturesOption = field(default_factory=features_folder)
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="$GLOT_HOME/runs/SPACE",
            help="Folder for the sweep's state and its trials. One folder holds one sweep.",
        ),
    ] = None
    space: Annotated[
        str, typer.Option(help=f"What to vary: {', '.join(SPACES)}; or a .yaml or .py file of your own.")
    ] = "mask_ratio"
    values: Annotated[
        str, typer.Option(help="Other values for a space of one field, separated by commas.", show_default=False)
    ] = ""
    search: Annotated[
        str,
        typer.Option(
            help="How points are chosen: grid (all combinations), random (drawn), or bayesian (Optuna's TPE)."
        ),
    ] = "grid"
    trials: Annotated[
        int,
        typer.Option(
            min=0, help="Number of points that a random or bayesian search tries; each is trained --seeds times."
        ),
    ] = 0
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Training runs of each point, with the seeds 1, 2, …; with --set seed=7, with 7, 8, …"
        ),
    ] = 1
    prune: Annotated[
        bool, typer.Option("--prune", help="Stop trials early that are worse than others at the same epoch (ASHA).")
    ] = False
    recipe: Annotated[
        str, typer.Option(help=f"Recipe of every trial, apart from the fields that vary: {RECIPES_IN_SHORT}.")
    ] = "open_sample"
    settings: Annotated[
        tuple[str, ...],
        typer.Option("--set", help="Set a field of the recipe for every trial: field=value. May be repeated."),
    ] = ()
    body: BodyOption = None
    vae: VAEOption = None
    mlflow: Annotated[str, typer.Option(show_default="sqlite in OUT/../mlflow.db", help="MLflow tracking URI.")] = ""
    experiment: ExperimentOption = "glot-search"
    workers_per_trial: Annotated[int, typer.Option(min=1, help="DDP workers of each trial, on CPUs.")] = 1
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0,
            show_default="1 if there is one, without --workers-per-trial",
            help="GPUs of each trial: a fraction of one (0.5: two trials share one), or a whole number (DDP). 0: train "
            "on CPUs.",
        ),
    ] = None
    concurrent: Annotated[int, typer.Option(min=0, help="Number of trials at a time. 0: as many as fit.")] = 0
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished sweep in OUT; start one if there is none.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the files of an earlier sweep in OUT, and start.")] = (
        False
    )
    swept: Space = field(init=False, repr=False)  # the space, with the values of --values

    def __post_init__(self) -> None:
        check_common_options(self)
        for name, least in (
            ("trials", 0),
            ("seeds", 1),
            ("workers_per_trial", 1),
            ("gpus_per_trial", 0),
            ("concurrent", 0),
        ):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')} {value}: must be {least} or more")
        object.__setattr__(self, "swept", with_values(space_named(self.space), self.values))
        self._check_search()
        self._check_recipes()
        if self.vae is not None:
            if not self.trains_meva:
                raise InputError(f"--vae {self.vae}: is for MEVA, and no trial of this sweep trains it")
            check_vae_there(self.vae)
        gpus = self.gpus_per_trial or 0
        if gpus > 1 and gpus != self.workers:
            raise InputError(f"--gpus-per-trial {gpus:g}: give a fraction of one GPU, or a whole number of them")
        if gpus and self.workers_per_trial > 1:
            raise InputError(
                f"--workers-per-trial {self.workers_per_trial}: is for CPUs; leave it out with --gpus-per-trial, which "
                "gives every GPU a worker"
            )
        if self.mlflow == NONE:
            raise InputError(f"--mlflow {NONE}: a sweep needs a store; give a URI, or leave --mlflow out")

    def _check_search(self) -> None:
        """InputError unless the space can be searched in this way."""
        if self.search not in SEARCHES:
            raise InputError(f"--search {self.search}: choose one of {', '.join(SEARCHES)}")
        if self.search == "grid":
            size = len(self.swept.grid())
            if self.trials and self.trials != size:
                raise InputError(
                    f"--trials {self.trials}: a grid tries all of its {size} points; --search random tries some"
                )
        elif not self.trials:
            raise InputError(f"--search {self.search}: give the number of points with --trials")

    def _check_recipes(self) -> None:
        """InputError unless every point of a grid is a recipe, and every value of a field that a search draws from."""
        for setting in self.settings:
            check_setting(recipe_named(self.recipe), setting)
            if setting.partition("=")[0] in [axis.field for axis in self.swept.axes]:
                raise InputError(f"--set {setting}: the sweep varies this field; leave the setting out")
        if self.seeds > 1 and self._varies_seed:
            raise InputError(f"--seeds {self.seeds}: the sweep varies the seed; leave --seeds out")
        if self.search == "grid":
            for point in self.swept.grid():
                self.recipe_at(point)
            return
        base = self.chosen_recipe
        for axis in self.swept.axes:
            for value in axis.values or (axis.low, axis.high):
                check_setting(base, *settings_of({axis.field: cast(Value, value)}))

    @property
    def trains_meva(self) -> bool:
        """Whether the model of any trial can be MEVA. The other models have no motion VAE."""
        drawn = [value for axis in self.swept.axes if axis.field == MODEL_FIELD for value in axis.values]
        points = self.swept.grid() if self.search == "grid" else [{}]
        return "meva" in (*drawn, *(self.recipe_at(point).model.kind for point in points))

    @property
    def _varies_seed(self) -> bool:
        return any(axis.field == SEED_FIELD for axis in self.swept.axes)

    def seeds_of(self, point: Point) -> tuple[int, ...]:
        """The seeds that a point is trained with: the seed of the point itself, or the recipe's and those after it."""
        if self._varies_seed:
            return (int(point[SEED_FIELD]),)
        first = self.chosen_recipe.seed
        return tuple(range(first, first + self.seeds))

    def recipe_at(self, point: Point) -> Recipe:
        """The recipe of the trials of a point, apart from their seed; InputError if the point makes no valid recipe."""
        try:
            return recipe_named(self.recipe, [*self.settings, *settings_of(point)])
        except InputError as error:
            which = f"the sweep's point {self.swept.label(point)}: " if point else ""
            raise InputError(f"{which}{error}") from None

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe of the first point of a grid; in a search, the recipe with the settings and without a point."""
        return self.recipe_at(self.swept.grid()[0]) if self.search == "grid" else self.recipe_at({})

    @property
    def sweep_folder(self) -> Path:
        """``out``, or its default."""
        return self.out or runs_folder() / self.swept.name

    @property
    def workers(self) -> int:
        """DDP workers of a trial. One means that the trial's own process trains."""
        gpus = self.gpus_per_trial or 0
        return int(gpus) if gpus > 1 else self.workers_per_trial

    @property
    def tracking_uri(self) -> str:
        """The MLflow store of the sweep."""
        return chosen_uri(self.mlflow, self.sweep_folder)

    def absolute(self, body: Path | None) -> "SearchSpec":
        """The same sweep with this body and with absolute paths, because trials start in a folder of their own."""
        return replace(
            self,
            features=self.features.resolve(),
            out=self.sweep_folder.resolve(),
            body=body.resolve() if body else None,
            vae=self.vae.resolve() if self.vae else None,
            mlflow=self.tracking_uri,
        )

    def check_places(self) -> None:
        """InputError naming all options with a relative path in a Ray job, or all feature sets that are missing."""
        check_job_paths(
            {"--features": self.features, "--out": self.sweep_folder, "--body": self.body, "--vae": self.vae}
        )
        for point in self.points_to_check():
            feature_lineage(self.recipe_at(point), self.features)

    def points_to_check(self) -> list[Point]:
        """A point of a grid for each choice of data and of the model.

        A search has one choice, that of the recipe without a point.
        """
        if self.search != "grid":
            return [{}]
        recipes = [(self.recipe_at(point), point) for point in self.swept.grid()]
        return list({(recipe.data, recipe.model.kind): point for recipe, point in recipes}.values())


@dataclass(frozen=True, kw_only=True)
class ReportSpec:
    """The sweeps in an MLflow store whose pages are written, and the folder for the pages."""

    mlflow: Annotated[
        str,
        typer.Option(show_default="sqlite in $GLOT_HOME/runs/mlflow.db", help="MLflow tracking URI."),
    ] = field(default_factory=lambda: default_uri(runs_folder()))
    out: Annotated[
        Path,
        typer.Option(show_default="$GLOT_HOME/runs/report", help="Folder for the pages, with a folder for each sweep."),
    ] = field(default_factory=lambda: runs_folder() / "report")
    experiment: ExperimentOption = "glot-search"
    sweep: Annotated[
        str,
        typer.Option(
            show_default="all",
            help="Write only this sweep: the name of a space (its newest sweep), or the id of a run.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        if "://" not in self.mlflow:
            raise InputError(
                f"--mlflow {self.mlflow}: give a URI, such as sqlite:///{self.mlflow} or http://127.0.0.1:5000"
            )
        database = database_of(self.mlflow)
        if database is not None and not database.is_file():
            raise InputError(
                f"--mlflow {self.mlflow}: there is no such file; a sweep makes it, e.g. python -m tuning.search"
            )
        check_common_options(self)
