"""What backbones there are and what each needs, for help texts and for checks that do not import torch.

A package adds one with an entry point of the group GROUP that names a BackboneKind:

    [project.entry-points."glot.backbones"]
    mine = "my_package.kind:KIND"

The kind names the function that loads it ("my_package.network:load"), which returns a
glot.features.backbones.backbone.Backbone. The module of the kind should import nothing heavy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.home import home

GROUP = "glot.backbones"
DEFAULT = "resnet50"
PRECISIONS = ("float32", "bfloat16", "int8")
DEVICES = ("cpu", "gpu")
RANDOM_WEIGHTS = Path("random")  # as --weights: a random network, whose features are only good for trying the pipeline


@dataclass(frozen=True)
class BackboneKind:
    """One kind of backbone.

    ``load``: "module:function", which turns a BackboneChoice into a Backbone. ``summary``: what it is, in a line.
    ``weights``: what a user may give as weights, "" where they come with it; ``needs_weights``: whether it has none of
    its own; ``random_weights``: whether they may be the word random; ``weights_files``: names that such files have, for
    which $GLOT_HOME/body is searched. ``takes_file``: whether it is chosen as NAME:FILE. ``devices``: "cpu", "gpu" or
    both. ``crop_rules``: names of the crop rules to choose from, the default first; () where there is no choice.
    ``guesses``: whether it can also give a first guess of the body.
    """

    name: str
    summary: str
    load: str
    weights: str = ""
    needs_weights: bool = False
    random_weights: bool = False
    weights_files: tuple[str, ...] = ()
    takes_file: bool = False
    precisions: tuple[str, ...] = ("float32",)
    devices: tuple[str, ...] = ("cpu", "gpu")
    crop_rules: tuple[str, ...] = ()
    guesses: bool = False

    def __post_init__(self) -> None:
        if not self.name or ":" in self.name:
            raise ValueError(f"{self.name!r} is no name of a backbone: it must be a word without a colon")
        for name, allowed in {"precisions": PRECISIONS, "devices": DEVICES}.items():
            given = getattr(self, name)
            if not (isinstance(given, tuple) and given and set(given) <= set(allowed)):
                raise ValueError(f"{name} {given!r} of a backbone: must be a tuple of {', '.join(allowed)}")

    def loader(self) -> Callable[["BackboneChoice"], Any]:
        """The function that loads a backbone of this kind. InputError where there is none."""
        module, _, function = self.load.partition(":")
        try:
            loader: Callable[[BackboneChoice], Any] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise InputError(f"--backbone {self.name}: {self.load} cannot be imported ({error})") from error
        return loader


@dataclass(frozen=True)
class BackboneChoice:
    """What a user chose. ``name`` is that of a kind, or NAME:FILE; None stands for the default of the kind.

    Raises InputError for what there is not, and for options that do not go together. Files are not looked at.
    """

    name: str = DEFAULT
    weights: Path | None = None
    crop_rule: str | None = None
    first_guess: bool = False

    def __post_init__(self) -> None:
        kind = self.kind
        if kind.takes_file and self.file is None:
            raise InputError(f"--backbone {self.name}: give the file, too: --backbone {kind.name}:FILE")
        if not kind.takes_file and self.file is not None:
            raise InputError(f"--backbone {self.name}: {kind.name} takes no file here; leave out :{self.file}")
        if self.weights is not None and not kind.weights:
            raise InputError(f"--weights {self.weights}: {kind.name} brings its own; leave them out")
        if self.weights == RANDOM_WEIGHTS and not kind.random_weights:
            raise InputError(f"--weights random: is for resnet50; {kind.name} needs {kind.weights}")
        if self.crop_rule is not None and self.crop_rule not in kind.crop_rules:
            have = f"has {', '.join(kind.crop_rules)}" if kind.crop_rules else "has one rule only; leave it out"
            raise InputError(f"--crop-rule {self.crop_rule}: {kind.name} {have}")
        if self.first_guess and not kind.guesses:
            able = ", ".join(name for name, other in kinds().items() if other.guesses)
            raise InputError(f"--first-guess: {kind.name} guesses no bodies; {able} does")

    @property
    def kind(self) -> BackboneKind:
        """InputError for a name that there is not."""
        return kind_of(self.name)

    @property
    def file(self) -> Path | None:
        """The FILE of NAME:FILE."""
        _, colon, file = self.name.partition(":")
        return Path(file) if colon and file else None

    @property
    def absolute_name(self) -> str:
        """``name`` with the absolute path of the file, for workers in other folders."""
        return self.name if self.file is None else f"{self.kind.name}:{self.file.absolute()}"

    @property
    def rule_name(self) -> str:
        """The name of the chosen crop rule; "" where there is no choice."""
        return self.crop_rule or next(iter(self.kind.crop_rules), "")


def is_installed(package: str) -> bool:
    """Whether a package of this name is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


OURS = (
    BackboneKind(
        name="resnet50",
        summary="SPIN's network, of which the paper's models take features; open weights come with the project",
        load="glot.features.backbones.resnet50_backbone:load",
        weights="safetensors, a torchvision state dict, SPIN's checkpoint, or random",
        random_weights=True,
        weights_files=("spin_model_checkpoint.pth.tar",),
        precisions=PRECISIONS,
    ),
    BackboneKind(
        name="blazepose",
        summary="BlazePose's landmark network, trained on real people; fetched the first time",
        load="glot.features.backbones.blazepose_features:load",
        weights="another of its landmark networks, such as pose_landmark_heavy.tflite",
        devices=("cpu",),
    ),
    BackboneKind(
        name="hmr2",
        summary="HMR2.0's ViT-H and its token, of which WHAM's and GVHMR's models take features",
        load="glot.features.backbones.hmr2:load",
        weights="the checkpoint of HMR2.0a or b, such as epoch=35-step=1000000.ckpt or hmr2a.ckpt",
        needs_weights=True,
        weights_files=("epoch=35-step=1000000.ckpt", "hmr2a.ckpt", "epoch=10-step=25000.ckpt"),
        precisions=("float32", "bfloat16"),
        crop_rules=("wham", "4dhumans", "gvhmr"),
        guesses=True,
    ),
    BackboneKind(
        name="onnx",
        summary="any exported network, chosen as onnx:FILE, with a YAML file beside it that describes it",
        load="glot.features.backbones.onnx_backbone:load",
        takes_file=True,
        devices=("cpu", "gpu") if is_installed("onnxruntime-gpu") else ("cpu",),
    ),
)


@cache
def entries() -> Mapping[str, EntryPoint]:
    """The entry points of other packages, by name, sorted."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


@cache
def kinds() -> Mapping[str, BackboneKind]:
    """All kinds that can be loaded, by name: ours first, which no other package can replace."""
    found = {kind.name: kind for kind in OURS}
    for name in entries():
        if name not in found and isinstance(kind := _loaded(name), BackboneKind):
            found[name] = kind
    return found


def broken_kinds() -> Mapping[str, str]:
    """{name: reason} of the entry points of other packages that are no kind of backbone."""
    ours = {kind.name for kind in OURS}
    reasons = {name: _loaded(name) for name in entries() if name not in ours}
    taken = {name: "a backbone of this project has this name" for name in entries() if name in ours}
    return {name: reason for name, reason in reasons.items() if isinstance(reason, str)} | taken


def kind_names() -> tuple[str, ...]:
    """The names of all kinds, as a user gives them; no other package is imported for it."""
    ours = [f"{kind.name}:FILE" if kind.takes_file else kind.name for kind in OURS]
    return (*ours, *(name for name in entries() if name not in {kind.name for kind in OURS}))


def kind_of(choice: str) -> BackboneKind:
    """The kind of a backbone called ``choice``, NAME or NAME:FILE; InputError for a name that there is not."""
    name = choice.partition(":")[0]
    for kind in OURS:
        if kind.name == name:
            return kind
    if name not in entries():
        raise InputError(f"--backbone {choice}: not known; choose {', '.join(kind_names())}")
    found = _loaded(name)
    if isinstance(found, str):
        raise InputError(f"--backbone {choice}: the package that adds it cannot be used: {found}")
    return found


@cache
def _loaded(name: str) -> BackboneKind | str:
    """The kind behind an entry point, or the reason why it is none."""
    values = sorted({entry.value for entry in entry_points(group=GROUP, name=name)})
    if len(values) > 1:
        return f"several packages add it ({', '.join(values)}); uninstall all but one"
    try:
        found = entries()[name].load()
    except (Exception, SystemExit) as error:  # a package of somebody else can raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if not isinstance(found, BackboneKind):
        return f"{entries()[name].value} is no BackboneKind"
    if found.name != name:
        return f"{entries()[name].value} calls itself {found.name}; the entry point must have the same name"
    return found


def weights_at_home(kind: BackboneKind) -> Path | None:
    """The first of the kind's ``weights_files`` that is in $GLOT_HOME/body."""
    paths = [home() / "body" / name for name in kind.weights_files]
    return next((path for path in paths if path.is_file()), None)


def needed_weights(choice: BackboneChoice) -> Path | None:
    """The weights of a choice; for a kind that needs some, those in $GLOT_HOME/body if none are given.

    InputError where there are none.
    """
    kind = choice.kind
    if choice.weights is not None or not kind.needs_weights:
        return choice.weights
    if (found := weights_at_home(kind)) is None:
        names = f"; {home() / 'body'} holds none of {', '.join(kind.weights_files)}" if kind.weights_files else ""
        raise InputError(f"--backbone {choice.name}: needs {kind.weights}; give it as --weights{names}")
    return found


def is_weights_file(weights: Path | None) -> bool:
    """Whether --weights names a file: it was given, and is not the word ``random``."""
    return weights is not None and weights != RANDOM_WEIGHTS


def check_precision(kind: BackboneKind, precision: str) -> None:
    """InputError for a precision that there is not, or that the kind cannot use."""
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: must be one of {', '.join(PRECISIONS)}")
    if precision not in kind.precisions:
        able = " or ".join(other.name for other in OURS if precision in other.precisions)
        have = " or ".join(kind.precisions)
        raise InputError(f"--precision {precision}: is for {able}; {kind.name} runs in {have}")
