"""What a run trains and how: frozen dataclasses, and one function for each recipe that returns them. No paths here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from glot.errors import InputError
from glot.settings import Count, Names, Range, Share, Weight, Whole, check_fields, from_stored, with_settings

# Stored with a recipe. It grows when the meaning of a field changes. A new field needs no new number: older files get
# its default, or what it declares with ``Before``.
SCHEMA = 1


@dataclass(frozen=True)
class ModelConfig:
    """GLoT's architecture (paper section 3; sizes from the official release)."""

    feature_size: Count = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: Annotated[int, Range(4, even=True)] = 16  # T, Table 11
    nearby_frames: Count = 4  # w: the local branch sees T//2-w ... T//2+w, Table 7
    mask_ratio: Share = 0.5  # Table 4
    mask_token: Literal["smpl", "learnable"] = "smpl"  # "smpl": from the mean SMPL parameters, Table 5
    regressor: Literal["hscr", "residual"] = "hscr"  # "hscr": kinematic chain, Table 6
    modules: Literal["gmm+lpc", "gmm"] = "gmm+lpc"  # "gmm": global branch only, Table 3
    detach_global: bool = True  # HSCR sees the global estimate without its gradient, Table 8
    positions: Literal["learned", "sine"] = "learned"  # Table 9
    # "official": the global pose is sliced at offset j instead of 6*j, so joint j sees the numbers j..j+5, and only 29
    # of the 144 numbers are used. Published checkpoints need this. "paper": every joint sees its own 6D rotation.
    hscr_global_pose: Literal["paper", "official"] = "paper"
    # How many middle frames the local branch predicts and is trained on: 1 in the paper, 3 in the official code.
    local_supervised_frames: Literal[1, 3] = 3
    # First weights of the layers whose output corrects an estimate of the body. "official": as large as everywhere
    # else. The first bodies are then far from the mean body, unless the regressor starts from SPIN's weights. "small":
    # a hundredth of that, as in SPIN, so that any training starts near the mean body.
    first_corrections: Literal["small", "official"] = "small"
    width: Count = 512  # width of the tokens of the global branch's encoder
    depth: Count = 2  # layers of the global branch's encoder
    heads: Count = 8  # heads of every attention layer
    decoder_width: Count = 256
    decoder_depth: Count = 1
    local_width: Count = 256
    local_depth: Count = 3
    mlp_ratio: Count = 4  # width of a transformer's hidden layer / width of its tokens
    hidden: Count = 1024  # width of the hidden layers of both regressors
    iterations: Count = 3  # iterations of the iterative regressor
    dropout: Share = 0.1
    drop_path: Share = 0.2
    regressor_dropout: Share = 0.5
    hscr_dropout: Share = 0.25

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        if int(self.frames * (1 - self.mask_ratio)) < 1:
            raise InputError(
                f"model.mask_ratio={self.mask_ratio}: leaves none of {self.frames} frames visible; lower it"
            )
        if not self.nearby_frames < self.frames // 2:
            raise InputError(
                f"model.nearby_frames={self.nearby_frames}: must be 1 to {self.frames // 2 - 1} "
                f"in windows of model.frames={self.frames}"
            )
        used = ("width", "decoder_width", "local_width")[: 3 if self.modules == "gmm+lpc" else 2]
        for name in used:
            width = getattr(self, name)
            if width % self.heads:
                raise InputError(f"model.{name}={width}: must be a multiple of model.heads={self.heads}")
            if self.positions == "sine" and width % 2:
                raise InputError(f"model.{name}={width}: must be even with model.positions=sine")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (official configs), and options of the velocity terms."""

    keypoints2d: Weight = 300.0
    joints3d: Weight = 300.0
    pose: Weight = 60.0
    shape: Weight = 0.06
    velocity2d: Weight = 10.0
    velocity3d: Weight = 100.0
    use_accel: bool = False  # second instead of first differences
    # "masked": each frame is weighted by its mask. "official": the mean over all frames times the mean of the mask.
    velocity3d_mask: Literal["masked", "official"] = "masked"
    # "centred": joints are centred at the root. "official": joints are not centred, although the joints of 3DPW include
    # translations and the joints of the other sets do not.
    velocity3d_root: Literal["centred", "official"] = "centred"

    def __post_init__(self) -> None:
        check_fields(self, "loss.")


@dataclass(frozen=True)
class DataConfig:
    """Which feature sets are mixed, and how. Names are the folders below --features."""

    sets_2d: Annotated[tuple[str, ...], Names()] = ()
    sets_3d: Annotated[tuple[str, ...], Names(1)] = ("3dpw",)
    no_smpl: Annotated[tuple[str, ...], Names()] = ()  # sets whose SMPL parameters are not used as targets
    # Epochs are compared by the first set; the other sets are only logged.
    validation: Annotated[tuple[str, ...], Names(1)] = ("3dpw",)
    batch_size: Count = 64  # windows of a step, of all workers together
    # The part of a batch that comes from 2D sets, if there are any: int(64 * 0.6) = 38 windows, and 26 of 3D sets.
    fraction_2d: Annotated[float, Range(0, 1)] = 0.6
    # Frames that their source marks as not valid (3DPW: campose_valid = 0, the orientation is wrong). "masked": their
    # 3D joints and SMPL parameters are not used as targets. "official": they are used like all others.
    invalid_frames: Literal["masked", "official"] = "masked"
    stride: Count = 16  # frames from one training window of a track to the next; 16 = no overlap
    # Standard deviation of the noise that training adds to features. (Features of the open weights have a standard
    # deviation of about 0.5.) 0: no noise, as in the official code. Noise did not help on the open sample.
    feature_noise: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if self.sets_2d and self.fraction_2d and not int(self.batch_size * self.fraction_2d):
            raise InputError(
                f"data.fraction_2d={self.fraction_2d:g}: leaves 2D sets no window of data.batch_size="
                f"{self.batch_size}; enlarge the batch, or leave data.sets_2d empty"
            )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run trains. ``seed`` fixes initialisation, sampling and masking."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: Count = 50
    steps_per_epoch: Count = 1000
    lr: Annotated[float, Range(above=0)] = 1e-4  # maximum of the schedule, which starts and ends at a tenth of it
    weight_decay: Weight = 0.0
    clip_norm: Weight = 0.0  # largest norm of the gradient, which is scaled down to it. 0: no limit, as officially
    warmup_epochs: Whole = 5
    first_eval_epoch: Whole = 25  # counted from 0: with 25, the 26th epoch is the first that is validated
    # Shrinkage of the whitening that the first layers start from (glot.models.whitening); a larger value makes the
    # whitening weaker. 0: no whitening, as in the official code.
    whiten: Weight = 0.0
    seed: Annotated[int, Range(0, 2**32 - 1)] = 1
    # The next three change how a step is computed, not what it computes.
    accumulate: Count = 1  # parts of a batch that a worker processes one after the other
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network; losses and the body stay in float32
    compile: bool = False  # torch.compile

    def __post_init__(self) -> None:
        check_fields(self)


def table1_3dpw() -> Recipe:
    """Table 1, 3DPW: InstaVariety | 3DPW, MPI-INF-3DHP, Human3.6M (whose SMPL fits are not used)."""
    data = DataConfig(
        sets_2d=("insta_variety",),
        sets_3d=("3dpw", "mpi_inf_3dhp", "human36m"),
        no_smpl=("human36m",),
        validation=("3dpw",),
    )
    return Recipe("table1_3dpw", data=data)


def table1_h36m_mpii3d() -> Recipe:
    """Table 1, Human3.6M and MPI-INF-3DHP."""
    base = table1_3dpw()
    return replace(
        base,
        name="table1_h36m_mpii3d",
        data=replace(base.data, no_smpl=()),
        loss=replace(base.loss, keypoints2d=100.0, joints3d=150.0),
        epochs=75,
        weight_decay=1e-5,
        warmup_epochs=8,
        first_eval_epoch=30,
    )


def table2_3dpw() -> Recipe:
    """Table 2: evaluated on 3DPW, which is not among the training sets."""
    base = table1_h36m_mpii3d()
    return replace(
        base,
        name="table2_3dpw",
        data=replace(base.data, sets_3d=("mpi_inf_3dhp", "human36m")),
        loss=replace(base.loss, keypoints2d=100.0, joints3d=200.0),
        epochs=80,
        steps_per_epoch=500,
        first_eval_epoch=20,
    )


def open_start() -> Recipe:
    """How the shipped open model was trained: from random weights, on thousands of rendered people."""
    return Recipe(
        "open_start",
        model=ModelConfig(regressor_dropout=0.2),
        data=DataConfig(batch_size=32, stride=1),
        epochs=40,
        steps_per_epoch=100,
        lr=3e-4,
        weight_decay=1e-5,
        warmup_epochs=5,
        first_eval_epoch=20,  # evaluating a validation split of 4,000 frames takes as long as 60 steps
        whiten=1.0,
        precision="bfloat16",
    )


def open_video() -> Recipe:
    """How the shipped model for real videos was trained, on BlazePose's features; half as wide as the paper's model."""
    base = open_start()
    model = replace(base.model, width=256, decoder_width=256, local_width=256, mlp_ratio=2, hidden=512, drop_path=0.1)
    return replace(
        base,
        name="open_video",
        model=model,
        data=replace(base.data, feature_noise=0.03),  # 4 px of the crop, 8 mm: BlazePose's error on real people
        epochs=60,
        lr=4e-4,
        warmup_epochs=3,
        first_eval_epoch=20,
    )


def open_sample() -> Recipe:
    """For the rendered sample, which has 3DPW's layout: minutes on two CPU cores. Not comparable with the paper."""
    return Recipe(
        "open_sample",
        data=DataConfig(batch_size=32, stride=1),
        epochs=12,
        steps_per_epoch=40,
        lr=3e-4,
        weight_decay=1e-5,
        warmup_epochs=2,
        first_eval_epoch=0,
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (open_sample, open_start, open_video, table1_3dpw, table1_h36m_mpii3d, table2_3dpw)
}
OPEN_RECIPES = ("open_sample", "open_start", "open_video")  # train on rendered people, which everybody can make
BLAZEPOSE_RECIPES = ("open_video",)  # for features of BlazePose; the other recipes are for features of a ResNet-50


def recipe_named(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe called ``name`` with settings applied, e.g. ``model.mask_ratio=0.25`` or ``epochs=3``.

    Raises InputError for an unknown recipe or field, and for a value that the field does not take.
    """
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: there is no such recipe; choose one of {', '.join(RECIPES)}")
    if named := [setting for setting in settings if setting.partition("=")[0] == "name"]:
        raise InputError(f"--set {named[0]}: the name of a recipe is not a setting; choose a recipe with --recipe")
    return with_settings(RECIPES[name](), settings)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries of plain values, as config.json stores it."""
    return asdict(recipe)


def from_dict(values: Mapping[str, Any], schema: int = SCHEMA) -> Recipe:
    """The inverse of ``to_dict``, for values that were stored with this ``schema``.

    Fields that did not exist then get the values that they had in effect. Raises InputError for a newer schema, for
    fields that are unknown, and for values that are not allowed.
    """
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputError(
            f"recipe: has schema {schema}, this program knows schemas up to {SCHEMA}; the file was written by a newer "
            "version of it"
        )
    return from_stored(Recipe, values, "recipe")


def flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe as one dictionary of ``section.field`` names, as MLflow logs it."""
    out: dict[str, Any] = {}
    for key, value in to_dict(recipe).items():
        if isinstance(value, dict):
            out.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            out[key] = value
    return out
