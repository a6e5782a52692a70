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
    channels: first                  # of an output that is a map: first or last; left out: as in the input
    batch: 1                         # crops at a time; left out: as many as come

A file is small and holds plain values: nothing in it is executed, and what cannot be right is refused in one line.
"""

import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from glot.errors import InputError, raise_if_passing
from glot.features.backbones.hmr2_crops import RULES
from glot.human.crop import MEAN, STD
from glot.human.crop_rules import CropRule

COLOURS, POOLINGS, LARGEST = ("rgb", "bgr"), ("none", "mean", "first", "quarters"), (1, 255)
CHANNELS = (None, "first", "last")
CHOICES = {"colour": COLOURS, "pooling": POOLINGS, "largest": LARGEST, "channels": CHANNELS}
BOUNDS = {"mean": (-1e4, 1e4), "deviation": (1e-4, 1e4)}
MOST = {"skip": 4096, "batch": 1024}
LARGEST_FILE = 1 << 14  # bytes


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
    channels: str | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in allowed:
                have = ", ".join(str(one) for one in allowed if one is not None)
                raise InputError(f"{name}: {_shown(value)}; there is {have}")
        for name, (least, most) in BOUNDS.items():
            values = getattr(self, name)
            if len(values) != 3 or not all(_is_number(value) and least <= value <= most for value in values):
                raise InputError(f"{name}: {_shown(values)}; give three numbers from {least:g} to {most:g}")
        if not (_is_whole(self.skip) and 0 <= self.skip <= MOST["skip"]):
            raise InputError(f"skip: {_shown(self.skip)}; give 0 to {MOST['skip']} tokens")
        if self.batch is not None and not (_is_whole(self.batch) and 1 <= self.batch <= MOST["batch"]):
            raise InputError(f"batch: {_shown(self.batch)}; give 1 to {MOST['batch']} crops")
        if not (self.output is None or isinstance(self.output, str)):
            raise InputError(f"output: {_shown(self.output)}; give the name of an output")

    def identity(self) -> dict[str, Any]:
        """All that features depend on, as JSON values: not the crop rule's name, nor how many crops at a time."""
        values = {name: value for name, value in vars(self).items() if name not in ("batch", "crop_rule")}
        numbers = {name: [float(value) for value in values[name]] for name in BOUNDS}
        rule = {name: value for name, value in self.crop_rule.to_dict().items() if name != "name"}
        return values | numbers | {"largest": int(self.largest), "crop_rule": rule}


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
        return _settings(_parsed(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _parsed(path: Path) -> Any:
    """The values in a YAML file. InputError, without its name."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise_if_passing(error, path)
        raise InputError(f"cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise InputError(f"is larger than {LARGEST_FILE} bytes, so it is no file of settings")
    try:
        return yaml.safe_load(content)
    except RecursionError:
        raise InputError("is nested too deeply for a file of settings") from None
    except Exception as error:  # PyYAML's own, or any of Python's for values that do not fit their tags
        raise InputError(f"cannot be read as YAML ({_place(error)})") from None


def _settings(content: Any) -> OnnxSettings:
    if not isinstance(content, dict):
        raise InputError("holds no settings; give at least size")
    known = set(OnnxSettings.__dataclass_fields__)
    if unknown := [name for name in content if name not in known]:
        raise InputError(f"{_shown(unknown[0])} is no setting; there is {', '.join(sorted(known))}")
    if "size" not in content:
        raise InputError("size is missing: the px of the network's input, such as 224 or [256, 192]")
    size = content["size"] if isinstance(content["size"], list) else [content["size"]] * 2
    if len(size) != 2 or not all(_is_whole(n) and n > 0 for n in size):
        raise InputError(f"size: {_shown(content['size'])}; give px, such as 224 or [256, 192] (height, width)")
    values = {name: value for name, value in content.items() if name not in ("size", "crop_rule")}
    for name in BOUNDS.keys() & values.keys():
        values[name] = tuple(values[name] if isinstance(values[name], list) else [values[name]] * 3)
    rule = _rule(content.get("crop_rule"), max(size))
    return OnnxSettings(size=(size[0], size[1]), crop_rule=rule, **values)


def _rule(content: Any, size: int) -> CropRule:
    if content is None:
        return CropRule(size=size)
    if isinstance(content, str) and content in RULES:
        return CropRule(**{**vars(RULES[content]), "size": size})
    if not isinstance(content, dict) or any(name not in ("margin", "widen", "blur") for name in content):
        raise InputError(f"crop_rule: {_shown(content)}; there is {', '.join(RULES)}, or {{margin, widen, blur}}")
    widen, margin, blur = content.get("widen"), content.get("margin"), content.get("blur", "")
    if widen is not None:
        if not (isinstance(widen, list) and len(widen) == 2 and all(_is_whole(n) and 1 <= n <= 10000 for n in widen)):
            raise InputError(f"crop_rule: widen {_shown(widen)}; give a width and a height, such as [192, 256]")
        margin = 1.0 if margin is None else margin
    if not (margin is None or _is_number(margin)):
        raise InputError(f"crop_rule: margin {_shown(margin)}; give a number, such as 1.2")
    if not isinstance(blur, str):
        raise InputError(f"crop_rule: blur {_shown(blur)}; give gaussian or gaussian5")
    return CropRule("custom", size, None if margin is None else float(margin), tuple(widen) if widen else None, blur)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 64


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value as text in a line: short, however large it is, because aliases in a file can make it enormous."""
    short = reprlib.Repr()
    short.maxlevel = 2
    try:
        return " ".join(short.repr(value).split())[:100]
    except ValueError:  # an integer of thousands of digits
        return "a number that is too large"


def _place(error: Exception) -> str:
    """What is wrong in the YAML, and in which line."""
    mark = getattr(error, "problem_mark", None)
    reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    return (reason or type(error).__name__) + (f", line {mark.line + 1}" if mark else "")
