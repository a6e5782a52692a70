"""The fields of a recipe that a sweep varies, and their values: the paper's ablations with its errors, users' spaces.

A point is one value for every field of a space: {"model.frames": 16, "model.nearby_frames": 4}.
"""

import itertools
import math
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from glot.errors import InputError

Value = bool | int | float | str
Point = Mapping[str, Value]


class Errors(NamedTuple):
    """The paper's columns: mm; Accel in mm/frame²; None where a table has no value."""

    pa_mpjpe: float
    mpjpe: float
    mpvpe: float | None
    accel: float


@dataclass(frozen=True)
class Axis:
    """A field of the recipe and its values: a list, or a range from ``low`` to ``high``, both included."""

    field: str
    values: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if bool(self.values) == (self.low is not None and self.high is not None):
            raise InputError(f"axis {self.field}: give either values, or low and high")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise InputError(f"axis {self.field}: low {self.low} must be below high {self.high}")
        if self.log and (self.step is not None or (self.low or 0) <= 0):
            raise InputError(f"axis {self.field}: a logarithmic range needs low above 0, and has no step")
        kinds = {type(value) for value in self.values}
        if kinds == {int, float}:  # 0 beside 0.5 and 0.75 becomes 0.0, so that MLflow returns the same value
            object.__setattr__(self, "values", tuple(float(value) for value in self.values))

    @property
    def name(self) -> str:
        """The field without its section."""
        return self.field.rpartition(".")[2]

    @property
    def whole(self) -> bool:
        """Whether a range consists of integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def listed(self) -> tuple[Value, ...]:
        """All values; InputError for a range that is continuous or logarithmic."""
        if self.values:
            return self.values
        assert self.low is not None and self.high is not None
        step = self.step if self.step is not None else 1 if self.whole else None
        if step is None or self.log:
            raise InputError(f"{self.field} has no list of values: search it with --search random or bayesian")
        return tuple(self.low + i * step for i in range(math.floor((self.high - self.low) / step + 1e-9) + 1))


@dataclass(frozen=True)
class Space:
    """Axes that vary together. ``paper``: values in the order of the axes -> the paper's errors on 3DPW's test."""

    name: str
    axes: tuple[Axis, ...]
    paper: Mapping[tuple[Value, ...], Errors] = field(default_factory=dict)
    table: str = ""  # the table of the paper that has these errors

    def grid(self) -> list[dict[str, Value]]:
        """Every combination of the axes' values."""
        fields = [axis.field for axis in self.axes]
        return [dict(zip(fields, row, strict=True)) for row in itertools.product(*(a.listed() for a in self.axes))]

    def row(self, point: Point) -> Errors | None:
        """The paper's errors at a point; None if it has none."""
        return self.paper.get(tuple(point[axis.field] for axis in self.axes))

    def label(self, point: Point) -> str:
        """A point as text for people: frames=16, nearby_frames=4."""
        return ", ".join(f"{axis.name}={shown(point[axis.field])}" for axis in self.axes)


def shown(value: Value) -> str:
    """A value as text for people."""
    return f"{value:.4g}" if isinstance(value, float) else setting_text(value)


def setting_text(value: Value) -> str:
    """A value as text for --set."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_of(point: Point) -> list[str]:
    """A point as texts for --set."""
    return [f"{name}={setting_text(value)}" for name, value in point.items()]


def parsed(text: str) -> Value:
    """A value from text: true or false, an integer, a float, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


BASE = Errors(50.6, 80.7, 96.3, 6.6)  # GLoT as published: Table 1
_NEARBY: dict[Value, Errors] = {
    2: Errors(51.9, 83.0, 98.7, 6.7),
    3: Errors(51.2, 84.2, 100.0, 6.7),
    4: BASE,
    5: Errors(51.3, 81.7, 97.2, 6.7),
    6: Errors(51.7, 82.4, 98.4, 6.6),
}
# All models are trained with the recipe of the sweep, not each with its own, so only their architectures differ. What
# --set gives besides must fit all five, such as model.frames=16; without it, MEVA has windows of 90 frames, and the
# others have 16. Tracks that are shorter than a window give no training windows.
_MODELS: dict[Value, Errors] = {
    "vibe": Errors(57.6, 91.9, None, 25.4),
    "meva": Errors(54.7, 86.9, None, 11.6),
    "tcmr": Errors(52.7, 86.5, 102.9, 7.1),
    "mps_net": Errors(52.1, 84.3, 99.7, 7.4),
    "glot": BASE,
}
_LENGTH: dict[Value, Errors] = {16: BASE, 24: Errors(51.2, 82.7, 98.5, 6.7), 32: Errors(51.2, 82.0, 98.3, 6.7)}


def _one(name: str, field_name: str, rows: Mapping[Any, Errors], table: str) -> Space:
    """An ablation of the paper: one field, with the paper's errors for every value."""
    return Space(name, (Axis(field_name, tuple(rows)),), {(value,): errors for value, errors in rows.items()}, table)


SPACES = {
    space.name: space
    for space in (
        _one("models", "model", _MODELS, "Table 1"),
        _one("modules", "model.modules", {"gmm": Errors(52.6, 84.1, 101.0, 6.9), "gmm+lpc": BASE}, "Table 3"),
        _one(
            "mask_ratio",
            "model.mask_ratio",
            {
                0.0: Errors(51.7, 82.3, 98.0, 7.3),
                0.125: Errors(51.3, 82.0, 97.4, 7.1),
                0.25: Errors(51.0, 82.1, 97.5, 7.0),
                0.375: Errors(51.0, 81.4, 97.2, 6.8),
                0.5: BASE,
                0.625: Errors(50.8, 81.7, 97.7, 6.6),
                0.75: Errors(51.4, 82.9, 99.1, 6.8),
                0.875: Errors(52.8, 86.6, 104.1, 6.5),
            },
            "Table 4",
        ),
        _one("mask_token", "model.mask_token", {"learnable": Errors(51.5, 82.5, 98.5, 6.9), "smpl": BASE}, "Table 5"),
        _one("regressor", "model.regressor", {"residual": Errors(51.5, 81.7, 97.2, 6.7), "hscr": BASE}, "Table 6"),
        _one("nearby_frames", "model.nearby_frames", _NEARBY, "Table 7"),
        _one("detach", "model.detach_global", {False: Errors(50.9, 81.2, 96.4, 6.6), True: BASE}, "Table 8"),
        _one("positions", "model.positions", {"sine": Errors(52.1, 83.4, 99.5, 6.4), "learned": BASE}, "Table 9"),
        _one("input_length", "model.frames", _LENGTH, "Table 11"),
        Space(
            "windows",
            (Axis("model.frames", tuple(_LENGTH)), Axis("model.nearby_frames", tuple(_NEARBY))),
            {(16, nearby): row for nearby, row in _NEARBY.items()} | {(f, 4): row for f, row in _LENGTH.items()},
            "Tables 7 and 11",
        ),
        Space(
            "joint",
            (
                Axis("model.mask_ratio", low=0.0, high=0.875, step=0.125),
                Axis("model.frames", low=16, high=32, step=8),
                Axis("model.nearby_frames", low=2, high=6),
                Axis("lr", low=2e-5, high=1e-3, log=True),
            ),
        ),
    )
}


def space_named(text: str) -> Space:
    """The space of this name, or the space in a .yaml or .py file. Raises InputError, which lists the names.

    A YAML file has a name and a list of axes, whose keys are those of ``Axis``. A Python file, which is run, sets
    SPACE to a ``Space``.
    """
    if text in SPACES:
        return SPACES[text]
    path = Path(text)
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise InputError(f"--space {text}: choose one of {', '.join(SPACES)}; or give a .yaml or .py file of your own")
    if not path.is_file():
        raise InputError(f"--space {text}: there is no such file")
    return _from_python(path) if path.suffix == ".py" else _from_yaml(path)


def with_values(space: Space, values: str) -> Space:
    """The space with other values for its one field (--values, separated by commas); the space itself for ""."""
    if not values:
        return space
    if len(space.axes) != 1:
        raise InputError(
            f"--values {values}: {space.name} varies {len(space.axes)} fields; put the values in a .yaml file"
        )
    (axis,) = space.axes
    chosen = [parsed(part.strip()) for part in values.split(",")]
    if any(isinstance(value, float) for value in (axis.low, *axis.values)):
        chosen = [float(value) if isinstance(value, int) else value for value in chosen]
    return replace(space, axes=(Axis(axis.field, tuple(chosen)),))


def _from_yaml(path: Path) -> Space:
    how = "write name: NAME and axes: a list of {field: model.dropout, values: [0, 0.1]} or {field, low, high, log}"
    try:
        content = yaml.safe_load(path.read_text())
        axes = tuple(_axis(dict(axis)) for axis in content["axes"])
        name = str(content.get("name", path.stem))
        unknown = set(content) - {"name", "axes"}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"--space {path}: not readable ({str(error).splitlines()[0]})") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"--space {path}: {how}") from None
    if unknown or not axes:
        raise InputError(f"--space {path}: {how}; not {', '.join(sorted(unknown)) or 'an empty list of axes'}")
    return Space(name, axes)


def _axis(keys: dict[str, Any]) -> Axis:
    """An axis from the keys of a YAML file, where 1e-5 is text and not a number."""
    numbers: dict[str, Any] = {key: parsed(str(keys[key])) for key in ("low", "high", "step") if key in keys}
    values = tuple(parsed(value) if isinstance(value, str) else value for value in keys.get("values", ()))
    return Axis(**(keys | numbers | {"values": values}))


def _from_python(path: Path) -> Space:
    space = runpy.run_path(str(path)).get("SPACE")
    if not isinstance(space, Space):
        raise InputError(f"--space {path}: set SPACE = Space(name, axes) in it (tuning.spaces)")
    return space
