"""What a run trains and how: frozen dataclasses, and one function for each recipe that returns them. No paths here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from glot.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """GLoT's architecture (paper section 3; sizes from the official release)."""

    feature_size: int = 2048  # numbers in a feature; a run takes this size from its feature sets
    frames: int = 16  # T, Table 11
    nearby_frames: int = 4  # w: the local branch sees T//2-w ... T//2+w, Table 7
    mask_ratio: float = 0.5  # Table 4
    mask_token: str = "smpl"  # "smpl" (from the mean SMPL parameters) | "learnable", Table 5
    regressor: str = "hscr"  # "hscr" (kinematic chain) | "residual", Table 6
    modules: str = "gmm+lpc"  # "gmm+lpc" | "gmm" (global branch only), Table 3
    detach_global: bool = True  # HSCR sees the global estimate without its gradient, Table 8
    positions: str = "learned"  # "learned" | "sine", Table 9
    # "official": the global pose is sliced at offset j instead of 6*j, so joint j sees the numbers j..j+5, and only 29
    # of the 144 numbers are used. Published checkpoints need this. "paper": every joint sees its own 6D rotation.
    hscr_global_pose: str = "paper"  # "paper" | "official"
    # How many middle frames the local branch predicts and is trained on: 1 in the paper, 3 in the official code.
    local_supervised_frames: int = 3
    width: int = 512  # width of the tokens of the global branch's encoder
    depth: int = 2  # layers of the global branch's encoder
    heads: int = 8  # heads of every attention layer
    decoder_width: int = 256
    decoder_depth: int = 1
    local_width: int = 256
    local_depth: int = 3
    mlp_ratio: int = 4  # width of a transformer's hidden layer / width of its tokens
    hidden: int = 1024  # width of the hidden layers of both regressors
    iterations: int = 3  # iterations of the iterative regressor
    dropout: float = 0.1
    drop_path: float = 0.2
    regressor_dropout: float = 0.5
    hscr_dropout: float = 0.25

    def __post_init__(self) -> None:
        _choice("mask_token", self.mask_token, "smpl", "learnable")
        _choice("regressor", self.regressor, "hscr", "residual")
        _choice("modules", self.modules, "gmm+lpc", "gmm")
        _choice("positions", self.positions, "learned", "sine")
        _choice("hscr_global_pose", self.hscr_global_pose, "paper", "official")
        if self.frames < 4 or self.frames % 2:
            raise InputError(f"model.frames={self.frames}: the window length must be even and at least 4")
        if not 0 <= self.mask_ratio < 1:
            raise InputError(f"model.mask_ratio={self.mask_ratio}: must be in [0, 1), so that one frame stays visible")
        if int(self.frames * (1 - self.mask_ratio)) < 1:
            raise InputError(
                f"model.mask_ratio={self.mask_ratio}: leaves none of {self.frames} frames visible; lower it"
            )
        if not 1 <= self.nearby_frames < self.frames // 2:
            raise InputError(
                f"model.nearby_frames={self.nearby_frames}: must be 1 to {self.frames // 2 - 1} "
                f"in windows of {self.frames}"
            )
        if self.local_supervised_frames not in (1, 3):
            raise InputError(f"model.local_supervised_frames={self.local_supervised_frames}: must be 1 (paper) or 3")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (official configs), and options of the velocity terms."""

    keypoints2d: float = 300.0
    joints3d: float = 300.0
    pose: float = 60.0
    shape: float = 0.06
    velocity2d: float = 10.0
    velocity3d: float = 100.0
    use_accel: bool = False  # second instead of first differences
    # "masked": each frame is weighted by its mask. "official": the mean over all frames times the mean of the mask.
    velocity3d_mask: str = "masked"  # "masked" | "official"
    # "centred": joints are centred at the root. "official": joints are not centred, although the joints of 3DPW include
    # translations and the joints of the other sets do not.
    velocity3d_root: str = "centred"  # "centred" | "official"

    def __post_init__(self) -> None:
        _choice("velocity3d_mask", self.velocity3d_mask, "masked", "official")
        _choice("velocity3d_root", self.velocity3d_root, "centred", "official")


@dataclass(frozen=True)
class DataConfig:
    """Which feature sets are mixed, and how. Names are the folders below --features."""

    sets_2d: tuple[str, ...] = ()
    sets_3d: tuple[str, ...] = ("3dpw",)
    no_smpl: tuple[str, ...] = ()  # sets whose SMPL parameters are not used as targets
    validation: tuple[str, ...] = ("3dpw",)  # epochs are compared by the first set; the other sets are only logged
    batch_size: int = 64  # windows of a step, of all workers together
    fraction_2d: float = 0.6  # int(64 * 0.6) = 38 windows of 2D sets and 26 of 3D sets
    stride: int = 16  # frames from one training window of a track to the next; 16 = no overlap
    # Standard deviation of the noise that training adds to features. (Features of the open weights have a standard
    # deviation of about 0.5.) 0: no noise, as in the official code. Noise did not help on the open sample.
    feature_noise: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run trains. ``seed`` fixes initialisation, sampling and masking."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = 50
    steps_per_epoch: int = 1000
    lr: float = 1e-4  # maximum of the schedule, which starts and ends at a tenth of it
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # largest norm of the gradient, which is scaled down to it. 0: no limit, as officially
    warmup_epochs: int = 5
    first_eval_epoch: int = 25  # counted from 0: with 25, the 26th epoch is the first that is validated
    # Shrinkage of the whitening that the first layers start from (glot.models.whitening); a larger value makes the
    # whitening weaker. 0: no whitening, as in the official code.
    whiten: float = 0.0
    seed: int = 1
    # The next three change how a step is computed, not what it computes.
    accumulate: int = 1  # parts of a batch that a worker processes one after the other
    precision: str = "float32"  # "float32" | "bfloat16", of the network; losses and the body stay in float32
    compile: bool = False  # torch.compile

    def __post_init__(self) -> None:
        _choice("precision", self.precision, "float32", "bfloat16")
        for name in ("epochs", "steps_per_epoch", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if not self.data.validation:
            raise InputError("data.validation: is empty; name the set that epochs are compared on, e.g. 3dpw")


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
    recipe = RECIPES[name]()
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting}: write it as field=value, e.g. model.mask_ratio=0.25")
        recipe = _with(recipe, key.split("."), text, setting)
    return recipe


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries of plain values, as config.json stores it."""
    return asdict(recipe)


def from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of ``to_dict``. Raises InputError for unknown or missing fields; no field gets its default."""
    return _build(Recipe, values, "recipe")


def flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe as one dictionary of ``section.field`` names, as MLflow logs it."""
    out: dict[str, Any] = {}
    for key, value in to_dict(recipe).items():
        if isinstance(value, dict):
            out.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            out[key] = value
    return out


def _choice(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value}: must be one of {', '.join(allowed)}")


def _with(node: Any, path: list[str], text: str, setting: str) -> Any:
    name, rest = path[0], path[1:]
    if not is_dataclass(node):
        raise InputError(f"--set {setting}: the field has no part {name!r}; leave .{name} out")
    known = [f.name for f in fields(node)]
    if name not in known:
        raise InputError(f"--set {setting}: there is no field {name!r}; the fields are {', '.join(known)}")
    old = getattr(node, name)
    if rest or is_dataclass(old):
        if not rest:
            raise InputError(f"--set {setting}: {name} is a section; name a field, e.g. {name}.{fields(old)[0].name}")
        new = _with(old, rest, text, setting)
    else:
        new = _parse(old, text, setting)
    return replace(node, **{name: new})  # type: ignore[type-var]


def _parse(old: Any, text: str, setting: str) -> Any:
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple):
            return tuple(part for part in text.split(",") if part)
        return type(old)(text)
    except (ValueError, KeyError):
        raise InputError(f"--set {setting}: {text!r} is not a {type(old).__name__}") from None


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    if set(values) != set(known):
        odd = sorted(set(values) ^ set(known))
        raise InputError(f"{where}: fields {odd} are unknown or missing; the file was written by another version")
    sections = {"model": ModelConfig, "loss": LossConfig, "data": DataConfig}
    built = {}
    for name, value in values.items():
        if name in sections and kind is Recipe:
            built[name] = _build(sections[name], value, f"{where}.{name}")
        else:
            built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)
