"""The names of backbones, and which options each of them has, for help texts and for checks without torch.

A new backbone gets its name here and its loader in glot.features.backbones.backbone.
"""

from dataclasses import dataclass
from pathlib import Path

from glot.errors import InputError

PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class BackboneOptions:
    """What a user may choose for a backbone. ``weights``: it reads them from a file; without, it brings its own."""

    weights: bool
    precisions: tuple[str, ...]


BACKBONES = {
    "resnet50": BackboneOptions(weights=True, precisions=PRECISIONS),
    "blazepose": BackboneOptions(weights=False, precisions=("float32",)),
}


def check_backbone(name: str, *, weights: Path | None = None, precision: str = "float32") -> None:
    """InputError for an unknown backbone or precision, and for weights or a precision that this backbone cannot use."""
    if name not in BACKBONES:
        raise InputError(f"--backbone {name}: not known; there is {' and '.join(BACKBONES)}")
    if weights is not None and not BACKBONES[name].weights:
        raise InputError(f"--weights {weights}: are for resnet50; {name} brings its own, leave them out")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: there is {', '.join(PRECISIONS)}")
    if precision not in BACKBONES[name].precisions:
        raise InputError(f"--precision {precision}: is for resnet50; {name} runs in float32, leave it out")
