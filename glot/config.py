"""What a run trains and how: a frozen dataclass, the recipe, and its sections. No paths here.

The recipes themselves are in glot.recipes, the section ``model`` in glot.model_configs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from glot.errors import InputError
from glot.model_configs import GLoTConfig, ModelConfig
from glot.settings import Count, Names, NumberedNames, Range, Share, Weight, Whole, check_fields, from_stored

# Stored with a recipe. It grows when the meaning of a field changes. A new field needs no new number: older files get
# its default, or what it declares with ``Before``.
SCHEMA = 1
ADVERSARIAL = ("vibe", "mps_net")  # models that may train with a motion discriminator


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
    strides: Annotated[tuple[str, ...], NumberedNames()] = ()  # other strides for some sets: human36m:45,3dpw:22
    # Standard deviation of the noise that training adds to features. (Features of the open weights have a standard
    # deviation of about 0.5.) 0: no noise, as in the official code. Noise did not help on the open sample.
    feature_noise: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if unknown := sorted(set(self.stride_of) - {*self.sets_2d, *self.sets_3d}):
            raise InputError(
                f"data.strides={','.join(self.strides)}: {unknown[0]} is none of the training sets; leave it out, or "
                "name it in data.sets_2d or data.sets_3d"
            )
        if self.sets_2d and self.fraction_2d and not int(self.batch_size * self.fraction_2d):
            raise InputError(
                f"data.fraction_2d={self.fraction_2d:g}: leaves 2D sets no window of data.batch_size="
                f"{self.batch_size}; enlarge the batch, or leave data.sets_2d empty"
            )

    @property
    def stride_of(self) -> dict[str, int]:
        """The strides of the sets that have their own."""
        return {name: int(number) for name, _, number in (text.partition(":") for text in self.strides)}


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The motion discriminator of VIBE and MPS-Net, which learns to tell predicted motions from real ones."""

    motions: Annotated[tuple[str, ...], Names()] = ()  # motion sets of real people; none: no discriminator
    weight: Weight = 0.5  # of the adversarial terms in both losses
    batch_size: Count = 32  # real windows of a step, of all workers together
    lr: Annotated[float, Range(above=0)] = 1e-4  # divided as the rate of the model is
    weight_decay: Weight = 1e-4
    width: Count = 1024  # of the recurrent network and of the attention
    dropout: Share = 0.2

    def __post_init__(self) -> None:
        check_fields(self, "discriminator.")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run trains. ``seed`` fixes initialisation, sampling and masking."""

    name: str
    model: ModelConfig = field(default_factory=GLoTConfig)  # any of glot.model_configs
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    epochs: Count = 50
    steps_per_epoch: Count = 1000
    lr: Annotated[float, Range(above=0)] = 1e-4  # the largest rate of the schedule
    # "cosine": from a tenth of the rate up to it in the warm-up, then down to a tenth along a cosine. "plateau": the
    # rate is divided by 10 after more than ``patience`` validated epochs without a smaller PA-MPJPE; no warm-up.
    schedule: Literal["cosine", "plateau"] = "cosine"
    patience: Whole = 5
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
        kind = self.model.kind
        if self.whiten and kind != "glot":
            raise InputError(f"whiten={self.whiten:g}: only input layers of glot are whitened; set whiten=0 for {kind}")
        if self.discriminator.motions and kind not in ADVERSARIAL:
            raise InputError(
                f"discriminator.motions={','.join(self.discriminator.motions)}: {kind} trains without a motion "
                f"discriminator, only {' and '.join(ADVERSARIAL)} have one; leave it empty"
            )


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
            out.update({f"{key}.{inner}": v for inner, v in value.items() if inner != "kind"})
            out |= {key: value["kind"]} if "kind" in value else {}
        else:
            out[key] = value
    return out
