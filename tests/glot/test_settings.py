"""Fields of configurations: what is declared beside a field is what it takes, from text, from a file and from code."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest

from glot.config import DataConfig, LossConfig
from glot.errors import InputError
from glot.model_configs import GLoTConfig
from glot.recipes import open_sample
from glot.settings import Before, Count, Names, Range, check_fields, from_stored, kinds, with_settings

CONFIGURATIONS: dict[str, Any] = {
    "model.": GLoTConfig(),
    "loss.": LossConfig(),
    "data.": DataConfig(),
    "": open_sample(),
}
FIELDS = [(prefix, name) for prefix, one in CONFIGURATIONS.items() for name in kinds(type(one))]


def outside(limit: Range) -> list[float]:
    """Numbers just outside of a range, and numbers that are none."""
    low = limit.least - 1 if limit.least > -float("inf") else limit.above
    high = limit.most + 1 if limit.most < float("inf") else limit.below
    return [low, high, float("nan"), float("-inf")] + ([limit.least + 1] if limit.even else [])


@pytest.mark.parametrize(("prefix", "name"), FIELDS)
def test_every_field_of_a_recipe_says_what_it_takes_and_refuses_the_rest(prefix: str, name: str) -> None:
    one = CONFIGURATIONS[prefix]
    kind = kinds(type(one))[name]
    wrong: list[Any] = [None, [1], {}]
    if kind.type in (int, float):
        assert kind.options or kind.limits, f"{prefix}{name}: declare a Range or a Literal beside it"
        wrong += ["3", True, *(n if kind.type is float else int(n) if abs(n) < 1e300 else n for n in _numbers(kind))]
    elif kind.type is tuple:
        assert kind.limits, f"{prefix}{name}: declare Names beside it"
        wrong += ["3dpw", ("a", "a"), ("a/b",), ("",)]
    elif kind.type is str and name != "name":
        assert kind.options, f"{prefix}{name}: declare a Literal beside it"
        wrong += ["colour", 3]
    for value in wrong:
        with pytest.raises(InputError, match=rf"^{prefix}{name}=.*: must be .*\w"):
            replace(one, **{name: value})


def _numbers(kind: Any) -> list[float]:
    if kind.options:
        return [max(kind.options) + 1, min(kind.options) - 1]
    (limit,) = kind.limits
    return [number for number in outside(limit) if number != float("inf")] + [float("inf")]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.local_depth=0", "model.local_depth=0: must be a whole number, 1 or more"),
        ("data.batch_size=0", "data.batch_size=0: must be a whole number, 1 or more"),
        ("data.fraction_2d=2", "data.fraction_2d=2.0: must be 0 to 1"),
        ("data.sets_3d=", "data.sets_3d=: must be names of sets, separated by commas, at least 1 of them, each once"),
        ("data.stride=0", "data.stride=0: must be a whole number, 1 or more"),
        ("seed=-1", "seed=-1: must be a whole number, 0 to 4294967295"),
        ("warmup_epochs=-3", "warmup_epochs=-3: must be a whole number, 0 or more"),
        ("model.mask_ratio=1", "model.mask_ratio=1.0: must be 0 or more and below 1"),
        ("model.frames=15", "model.frames=15: must be a whole number, even and 4 or more"),
        ("lr=0", "lr=0.0: must be above 0"),
        ("lr=nan", "lr=nan: must be above 0"),
        ("clip_norm=inf", "clip_norm=inf: must be 0 or more"),
        ("epochs=2.5", "--set epochs=2.5: '2.5' is not allowed; must be a whole number, 1 or more"),
        ("compile=yes", "--set compile=yes: 'yes' is not allowed; must be true or false"),
        ("model.local_supervised_frames=2", "model.local_supervised_frames=2: must be one of 1, 3"),
        ("precision=float16", "precision=float16: must be one of float32, bfloat16"),
    ],
)
def test_a_message_names_the_field_its_value_and_what_is_allowed(setting: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        with_settings(open_sample(), [setting])
    assert str(refused.value) == message


@dataclass(frozen=True)
class Part:
    size: Annotated[int, Range(2, 8)] = 4
    half: Count = 2

    def __post_init__(self) -> None:
        check_fields(self, "part.")
        if self.half * 2 > self.size:
            raise InputError("halves")


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part = field(default_factory=Part)
    names: Annotated[tuple[str, ...], Names()] = ()
    colour: Annotated[Literal["red", "blue"], Before("blue")] = "red"

    def __post_init__(self) -> None:
        check_fields(self)


def test_settings_are_applied_together() -> None:
    for order in (["part.size=8", "part.half=4"], ["part.half=4", "part.size=8"]):
        assert with_settings(Whole("w"), [*order, "names=a, b"]) == Whole("w", Part(8, 4), ("a", "b"))
    assert with_settings(Whole("w"), ["part.size=1", "part.size=8"]).part.size == 8  # only the last one counts
    with pytest.raises(InputError, match="halves"):
        with_settings(Whole("w"), ["part.half=4", "part.size=6"])


def test_stored_values_come_back_with_what_did_not_exist_then() -> None:
    assert from_stored(Whole, {"name": "w", "part": {"size": 6}}, "w") == Whole("w", Part(6), colour="blue")
    assert from_stored(Whole, {"name": "w", "names": ["a"], "colour": "red"}, "w") == Whole("w", names=("a",))
    for stored, message in (
        ({"name": "w", "part": {"size": 6, "weight": 3, "age": 1}}, "w.part: this program does not know age, weight"),
        ({"part": {}}, "w: has no name"),
        ({"name": "w", "part": 3}, r"w\.part: has no fields"),
        ({"name": "w", "part": {"size": None}}, r"part\.size=None: must be a whole number, 2 to 8"),
        (None, "w: has no fields"),
    ):
        with pytest.raises(InputError, match=message):
            from_stored(Whole, stored, "w")
