"""The options of make_sample, checked; and the settings that decide what a sample contains."""

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import typer

from glot.errors import InputError
from glot.home import data_folder
from pipelines.motions.spec import KINDS

VERSION = 3  # raised when a seed gives other pictures than before
AS_RECORDED = 0.2  # share of the people in train who move as in a clip; the motions of the other people are varied
HIGHEST_CAMERA = 2.6  # metres above the floor
FEWEST_OF_A_BENCH = 10  # sequences; fewer leave a split without any
PLAIN, RICH = "plain", "rich"  # looks of the pictures
LARGEST_PERSON = 0.85  # share of the picture's height that a standing person may take up
LOOKS = (PLAIN, RICH)


@dataclass(frozen=True)
class SampleRecipe:
    """How many sequences a sample has, and how varied they are. The options of make_sample replace its values."""

    sequences: int
    as_recorded: float = AS_RECORDED
    highest_camera: float = HIGHEST_CAMERA
    largest: float = LARGEST_PERSON
    every: tuple[int, ...] = (1,)
    look: str = PLAIN


SAMPLE = SampleRecipe(sequences=40)
BENCH = SampleRecipe(1500, as_recorded=0.5, highest_camera=3.8, largest=1.1, every=(1, 2, 3), look=RICH)


@dataclass(frozen=True, kw_only=True)
class MakeSampleSpec:
    """Which sample to render, and where it goes. Raises InputError for values that cannot be used."""

    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the sample. An unfinished sample in it is continued.", show_default="$GLOT_HOME/data/sample"
        ),
    ] = field(default_factory=lambda: data_folder() / "sample")
    motions: Annotated[
        Path | None,
        typer.Option(help=f"Motion capture: {KINDS}.", show_default="the shipped clips"),
    ] = None
    bench: Annotated[
        bool,
        typer.Option(
            "--bench",
            help="Make a large dataset whose test shows people who are not in train. Needs motions of several people.",
        ),
    ] = False
    sequences: Annotated[
        int | None,
        typer.Option(
            help="Number of sequences, each of 72 to 96 frames.", show_default="40, or 1500 for a bench", min=2
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="The same seed makes the same files.", min=0)] = 0
    image_size: Annotated[int, typer.Option(help="Width and height of the pictures, px.", min=64, max=2048)] = 480
    as_recorded: Annotated[
        float | None,
        typer.Option(
            help="Share of the people in train who move exactly as in a clip.",
            show_default="0.2, or 0.5 for a bench",
            min=0,
            max=1,
        ),
    ] = None
    highest_camera: Annotated[
        float | None,
        typer.Option(
            help="Cameras start at a random height above the floor, from 0.35 m to this, m.",
            show_default="2.6, or 3.8 for a bench",
            min=0.5,
            max=10,
        ),
    ] = None
    largest: Annotated[
        float | None,
        typer.Option(
            help="Largest height of a standing person, as a share of the picture's height; above 1, people are cut "
            "off. It is ignored in sequences with two people.",
            show_default="0.85, or 1.1 for a bench",
            min=0.5,
        ),
    ] = None
    every: Annotated[
        tuple[int, ...],
        typer.Option(
            help="Keep every n-th frame only, as a camera with a lower frame rate does. May be repeated: sequences use "
            "the numbers in turn.",
            show_default="1, or 1, 2 and 3 for a bench",
            min=1,
        ),
    ] = ()
    look: Annotated[
        str | None,
        typer.Option(
            help="plain, or rich: with clutter, more kinds of clothes, light and cameras, blur, grain and compression; "
            "it takes twice the time.",
            show_default="plain, or rich for a bench",
        ),
    ] = None
    body: Annotated[
        Path | None, typer.Option(help="SMPL file, or a folder with SMPL's files.", show_default="the open body")
    ] = None
    workers: Annotated[int | None, typer.Option(help="Number of processes.", show_default="one per core", min=1)] = None

    def __post_init__(self) -> None:
        recipe = self.recipe
        check_range("--sequences", recipe.sequences, least=FEWEST_OF_A_BENCH if self.bench else 2)
        check_range("--seed", self.seed, least=0)
        check_range("--image-size", self.image_size, least=64, most=2048)
        check_range("--as-recorded", recipe.as_recorded, least=0, most=1)
        check_range("--highest-camera", recipe.highest_camera, least=0.5, most=10)
        check_range("--largest", recipe.largest, least=0.5)
        for every in recipe.every:
            check_range("--every", every, least=1)
        if recipe.look not in LOOKS:
            raise InputError(f"--look {recipe.look}: no such look; give {' or '.join(LOOKS)}")
        if self.bench and self.motions is None:
            raise InputError("--bench: needs --motions, a folder of motions of several people")
        check_sources(motions=self.motions, body=self.body, workers=self.workers)
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out}: exists and is not a folder; choose a new or empty folder")

    @property
    def recipe(self) -> SampleRecipe:
        """The recipe of a sample or of a bench, with the values that were given instead of its own."""
        recipe = BENCH if self.bench else SAMPLE
        given = {field.name: getattr(self, field.name) for field in fields(SampleRecipe)}
        return replace(recipe, **{name: value for name, value in given.items() if value not in (None, ())})


def check_sources(*, motions: Path | None, body: Path | None, workers: int | None) -> None:
    """Checks the options that are common to all commands that render people."""
    if motions is not None and not motions.exists():
        raise InputError(f"--motions {motions}: no such file or folder; give {KINDS}")
    if body is not None and not body.exists():
        raise InputError(f"--body {body}: no such file or folder; give SMPL's, or leave --body out for the open body")
    if workers is not None:
        check_range("--workers", workers, least=1)


def check_range(option: str, value: float, *, least: float, most: float | None = None) -> None:
    """InputError if ``value`` is below ``least``, above ``most``, or NaN."""
    if not (value >= least and (most is None or value <= most)):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{option} {value}: must be {allowed}")


@dataclass(frozen=True)
class SampleSettings:
    """Everything that decides what a sample contains. sample.json has these fields, so their names must not change."""

    seed: int
    sequences: int
    image_size: int
    motions: str  # hash of the clips
    body: str  # hash of the body file
    as_recorded: float = AS_RECORDED
    highest_camera: float = HIGHEST_CAMERA
    largest: float = LARGEST_PERSON
    every: tuple[int, ...] = (1,)
    look: str = PLAIN
    people: str = ""  # hash of the splits by person; "" for splits by clip
    version: int = VERSION

    @classmethod
    def of(cls, spec: MakeSampleSpec, *, motions: str, body: str, people: str = "") -> "SampleSettings":
        """The settings of a spec, with the hashes of its clips, of its body and of its splits by person."""
        return cls(
            seed=spec.seed,
            image_size=spec.image_size,
            motions=motions,
            body=body,
            people=people,
            **asdict(spec.recipe),
        )


# The values of these fields for samples that were made before the fields existed.
EARLIER_SETTINGS = {field.name: field.default for field in fields(SampleSettings) if field.default is not MISSING}
EARLIER_SETTINGS["every"] = [1]
