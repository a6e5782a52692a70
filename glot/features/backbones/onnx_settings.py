"""The YAML file beside an exported network in; how its crops are made and which output is the feature, out.

Example, for a ViT with a class token that was exported with its patches as output:

    size: 224                        # px; or [256, 192], height and width: the middle of a square crop
    crop_rule: {margin: 1.2}         # or {widen: [192, 256], blur: gaussian}; or wham, 4dhumans, gvhmr
    colour: rgb                      # or bgr
    mean: [0.485, 0.456, 0.406]      # of values from 0 to ``largest``, in the order of the colours
    deviation: [0.229, 0.224, 0.225]
    largest: 1                       # what a white pixel is before the mean is taken off: 1, or 255
    output: patches                  # the name of an output; left out: the only one
    pooling: quarters                # none, mean, first (the class token) or quarters (four means, side by side)
    skip: 1                          # tokens before the first patch
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from glot.errors import InputError
from glot.features.backbones.hmr2_crops import RULES
from glot.human.crop import MEAN, STD
from glot.human.crop_rules import CropRule

COLOURS, POOLINGS, LARGEST = ("rgb", "bgr"), ("none", "mean", "first", "quarters"), (1, 255)


@dataclass(frozen=True)
class OnnxSettings:
    """How an exported network is fed and read. InputError for values that cannot be right."""

    size: tuple[int, int]  # height and width of its input, px
    crop_rule: CropRule
    colour: str = "rgb"
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = STD
    largest: int = 1
    output: str | None = None
    pooling: str = "none"
    skip: int = 0
    stored: Mapping[str, Any] = field(default_factory=dict)  # as in the file

    def __post_init__(self) -> None:
        choices = {"colour": COLOURS, "pooling": POOLINGS, "largest": LARGEST}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                have = ", ".join(str(value) for value in allowed)
                raise InputError(f"{name}: {getattr(self, name)!r}; there is {have}")
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
                raise InputError(f"{name}: {list(values)}; give three numbers, one for each colour")
        if min(self.deviation) <= 0:
            raise InputError(f"deviation: {list(self.deviation)}; give numbers above 0")
        if not isinstance(self.skip, int) or self.skip < 0:
            raise InputError(f"skip: {self.skip!r}; give 0 or more tokens")
        if not (self.output is None or isinstance(self.output, str)):
            raise InputError(f"output: {self.output!r}; give the name of an output")


def settings_file(model: Path) -> Path:
    """The YAML file of a model file."""
    return model.with_suffix(".yaml")


def read_settings(model: Path) -> OnnxSettings:
    """The settings in the YAML file beside ``model``. InputError, which names the file, where it cannot be used."""
    path = settings_file(model)
    if not path.is_file():
        raise InputError(
            f"--backbone onnx:{model}: no {path.name} beside it, which says how its crops are made; docs/backbones.md "
            "has an example"
        )
    try:
        content = yaml.safe_load(path.read_bytes())
        return _settings(content)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is no YAML ({reason})") from None
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _settings(content: Any) -> OnnxSettings:
    if not isinstance(content, dict):
        raise InputError("holds no settings; give at least size")
    known = {"size", "crop_rule", "colour", "mean", "deviation", "largest", "output", "pooling", "skip"}
    if unknown := sorted(str(name) for name in content.keys() - known):
        raise InputError(f"{unknown[0]} is no setting; there is {', '.join(sorted(known))}")
    if "size" not in content:
        raise InputError("size is missing: the px of the network's input, such as 224 or [256, 192]")
    size = content["size"] if isinstance(content["size"], list) else [content["size"]] * 2
    if len(size) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size):
        raise InputError(f"size: {content['size']!r}; give px, such as 224 or [256, 192] (height, width)")
    values = {name: content[name] for name in known - {"size", "crop_rule"} if name in content}
    for name in ("mean", "deviation"):
        if name in values:
            values[name] = tuple(values[name] if isinstance(values[name], list) else [values[name]] * 3)
    rule = _rule(content.get("crop_rule"), max(size))
    return OnnxSettings(size=(size[0], size[1]), crop_rule=rule, stored=content, **values)


def _rule(content: Any, size: int) -> CropRule:
    if content is None:
        return CropRule(size=size)
    if isinstance(content, str):
        if content not in RULES:
            raise InputError(f"crop_rule: {content}; there is {', '.join(RULES)}, or margin, widen and blur")
        return CropRule(**{**vars(RULES[content]), "size": size})
    known = {"margin", "widen", "blur"}
    if not isinstance(content, dict) or content.keys() - known:
        raise InputError(f"crop_rule: {content!r}; give {', '.join(RULES)}, or margin, widen and blur")
    widen = content.get("widen")
    if widen is not None and not (isinstance(widen, list) and all(isinstance(n, int) for n in widen)):
        raise InputError(f"crop_rule: widen {widen!r}; give a width and a height, such as [192, 256]")
    margin = content.get("margin", 1.0 if widen else None)
    return CropRule("custom", size, margin, tuple(widen) if widen else None, content.get("blur", ""))
