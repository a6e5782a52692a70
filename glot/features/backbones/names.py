"""The names of backbones and the options of each, for help texts and for checks that do not import torch.

A new backbone gets its name here and its loader in glot.features.backbones.backbone.
"""

from dataclasses import dataclass
from pathlib import Path

from glot.errors import InputError

PRECISIONS = ("float32", "bfloat16", "int8")
RANDOM_WEIGHTS = Path("random")  # as --weights: a random network, whose features are only good for trying the pipeline


@dataclass(frozen=True)
class BackboneOptions:
    """What a user may choose for a backbone. ``weights``: whether a file of weights may be given."""

    weights: bool
    precisions: tuple[str, ...]


BACKBONES = {
    "resnet50": BackboneOptions(weights=True, precisions=PRECISIONS),
    "blazepose": BackboneOptions(weights=False, precisions=("float32",)),
}


def is_weights_file(weights: Path | None) -> bool:
    """Whether --weights names a file: it was given, and is not the word ``random``."""
    return weights is not None and weights != RANDOM_WEIGHTS


def check_backbone(name: str, *, weights: Path | None = None, precision: str = "float32") -> None:
    """InputError for an unknown backbone or precision, and for weights or a precision that this backbone cannot use."""
    if name not in BACKBONES:
        raise InputError(f"--backbone {name}: not known; choose {' or '.join(BACKBONES)}")
    if weights is not None and not BACKBONES[name].weights:
        raise InputError(f"--weights {weights}: are for resnet50; {name} brings its own, leave them out")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: must be one of {', '.join(PRECISIONS)}")
    if precision not in BACKBONES[name].precisions:
        raise InputError(f"--precision {precision}: is for resnet50; {name} runs in float32, leave it out")
