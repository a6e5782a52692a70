"""Fields of a configuration: what each may be is declared beside it, and checked wherever its values come from.

    class Example:
        frames: Annotated[int, Range(4, even=True)] = 16
        positions: Literal["learned", "sine"] = "learned"

A field may also be a section: a dataclass of its own. ``check_fields`` checks an instance, ``with_settings`` applies
settings that a user wrote, and ``from_stored`` reads values that an earlier version of the program stored.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from glot.errors import InputError

Configuration = TypeVar("Configuration")  # a dataclass
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a list of names"}


@dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``, both included. ``above`` and ``below`` are bounds that are excluded."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    even: bool = False

    def allows(self, number: float) -> bool:
        """Whether the number is finite and in the range."""
        inside = self.least <= number <= self.most and self.above < number < self.below
        return math.isfinite(number) and inside and not (self.even and number % 2)

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            bounds = [f"{self.least:g} to {self.most:.10g}"]
        else:
            bounds = [f"{self.least:g} or more"] if math.isfinite(self.least) else []
        bounds += [f"above {self.above:g}"] if math.isfinite(self.above) else []
        bounds += [f"below {self.below:g}"] if math.isfinite(self.below) else []
        return " and ".join((["even"] if self.even else []) + bounds)


@dataclass(frozen=True)
class Names:
    """At least ``least`` names, all different. They are names of folders, so they contain no slash."""

    least: int = 0

    def allows(self, names: tuple[str, ...]) -> bool:
        """Whether these are such names."""
        plain = all(name and "/" not in name and name == name.strip() for name in names)
        return plain and len(set(names)) == len(names) >= self.least

    def __str__(self) -> str:
        least = f"at least {self.least} of them, " if self.least else ""
        return f"names of sets, separated by commas, {least}each once"


@dataclass(frozen=True)
class NumberedNames:
    """Names with a number of 1 or more each, NAME:NUMBER."""

    def allows(self, texts: tuple[str, ...]) -> bool:
        """Whether these are such names, each once."""
        parts = [text.partition(":") for text in texts]
        return Names().allows(tuple(name for name, _, _ in parts)) and all(
            number.isdecimal() and int(number) >= 1 for _, _, number in parts
        )

    def __str__(self) -> str:
        return "NAME:NUMBER pairs, separated by commas, each name once"


@dataclass(frozen=True)
class Before:
    """The value that a field had, in effect, before it existed. Without it, that value is the field's default."""

    value: Any


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, below=1)]  # a probability or a share that must leave something


@dataclass(frozen=True)
class Kind:
    """What a field may hold: values of a type, among ``options`` where there are some, and within ``limits``."""

    type: type
    options: tuple[Any, ...] = ()
    limits: tuple[Any, ...] = ()  # Range, Names or NumberedNames
    before: tuple[Before, ...] = ()

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.options:
            return f"one of {', '.join(str(option) for option in self.options)}"
        limits = " and ".join(str(limit) for limit in self.limits)
        if self.type is int:
            return f"a whole number, {limits}" if limits else WORDS[int]
        return limits or WORDS[self.type]

    def allows(self, value: Any) -> bool:
        """Whether a field of this kind may hold the value. A whole number is a number, true is none."""
        accepted = (int, float) if self.type is float else self.type
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.type is not bool):
            return False
        return (not self.options or value in self.options) and all(limit.allows(value) for limit in self.limits)


@cache
def kinds(configuration: Any) -> dict[str, Kind]:
    """The kind of each field of a dataclass, by name, without its sections."""
    hints = get_type_hints(configuration, include_extras=True)
    inner = sections(configuration)
    return {f.name: _kind(hints[f.name]) for f in fields(configuration) if f.name not in inner}


@cache
def sections(configuration: Any) -> dict[str, tuple[Any, ...]]:
    """The dataclasses that each section of a dataclass may be, by name.

    Where there are several, each has a field ``kind`` whose default is its name. The first is that of values that were
    stored before there were others.
    """
    hints = get_type_hints(configuration)
    found = {f.name: get_args(hints[f.name]) or (hints[f.name],) for f in fields(configuration)}
    return {name: types for name, types in found.items() if all(is_dataclass(each) for each in types)}


def _kind(hint: Any) -> Kind:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    limits = tuple(extra for extra in extras if isinstance(extra, Range | Names | NumberedNames))
    before = tuple(extra for extra in extras if isinstance(extra, Before))
    if get_origin(hint) is Literal:
        options = get_args(hint)
        return Kind(type(options[0]), options, limits, before)
    return Kind(get_origin(hint) or hint, (), limits, before)


def check_fields(configuration: Any, section: str = "") -> None:
    """InputError naming the first field whose value is not allowed, the value, and what is allowed.

    ``section`` is written before the name of the field: "model.".
    """
    configured: Any = type(configuration)
    for name, kind in kinds(configured).items():
        value = getattr(configuration, name)
        if not kind.allows(value):
            raise InputError(f"{section}{name}={written(value)}: must be {kind.allowed}")


def written(value: Any) -> str:
    """A value as a user writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(str(part) for part in value) if isinstance(value, tuple | list) else str(value)


def with_settings(configuration: Configuration, settings: Sequence[str]) -> Configuration:
    """The configuration with settings applied, such as ``model.mask_ratio=0.25`` or ``epochs=3``.

    All settings are collected before anything is built and checked, so their order does not matter; of several settings
    of one field, the last one counts. Raises InputError for an unknown field, and for a value that is not allowed.
    """
    root: Any = _with_choices(configuration, settings)
    settings = [setting for setting in settings if not _is_choice(configuration, setting)]
    changes: dict[str, dict[str, Any]] = {}  # section, "" for none -> field -> value
    for setting in settings:
        section, name, kind, text = _field_of(root, setting)
        changes.setdefault(section, {})[name] = _parsed(kind, text, setting)
    plain = changes.pop("", {})
    return replace(root, **plain, **{name: replace(getattr(root, name), **new) for name, new in changes.items()})


def _is_choice(configuration: Any, setting: str) -> bool:
    """Whether a setting chooses what a section is: model=tcmr."""
    configured: Any = type(configuration)
    return len(sections(configured).get(setting.partition("=")[0], ())) > 1


def _with_choices(configuration: Any, settings: Sequence[str]) -> Any:
    """The configuration with the sections that settings choose, in their default form unless it is there already."""
    configured: Any = type(configuration)
    chosen: dict[str, Any] = {}
    for setting in filter(partial(_is_choice, configuration), settings):
        name, _, kind = setting.partition("=")
        types = {each.kind: each for each in sections(configured)[name]}
        if kind not in types:
            raise InputError(f"{setting}: must be one of {', '.join(types)}")
        there = getattr(configuration, name)
        chosen[name] = there if there.kind == kind else types[kind]()
    # Other fields may not fit the new section; they are checked when all settings are applied.
    changed = copy(configuration)
    for name, section in chosen.items():
        object.__setattr__(changed, name, section)
    return changed


def check_setting(configuration: Any, setting: str) -> None:
    """InputError unless a field of the configuration takes the value of a setting, whatever the other fields have."""
    if _is_choice(configuration, setting):
        _with_choices(configuration, [setting])
        return
    _, _, kind, text = _field_of(configuration, setting)
    if not kind.allows(_parsed(kind, text, setting)):
        raise InputError(f"{setting}: must be {kind.allowed}")


def _field_of(configuration: Any, setting: str) -> tuple[str, str, Kind, str]:
    """The section ("" for none), the name and the kind of the field of a setting, and the text of its value."""
    key, separator, text = setting.partition("=")
    if not separator:
        raise InputError(f"--set {setting}: write it as field=value, e.g. model.mask_ratio=0.25")
    section, _, name = key.rpartition(".")
    configured: Any = type(configuration)
    known: dict[str, Any] = {"": configured} | {
        name: type(getattr(configuration, name)) for name in sections(configured)
    }
    if name in known and not section:
        first = fields(known[name])[0].name
        raise InputError(f"--set {setting}: {name} is a section; name a field, e.g. {name}.{first}")
    if section not in known:
        raise InputError(
            f"--set {setting}: there is no section {section!r}; the sections are {', '.join(sections(configured))}"
        )
    of_section = kinds(known[section])
    if name not in of_section:
        raise InputError(f"--set {setting}: there is no field {name!r}; the fields are {', '.join(of_section)}")
    return section, name, of_section[name], text


def _parsed(kind: Kind, text: str, setting: str) -> Any:
    try:
        if kind.type is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind.type is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return kind.type(text)
    except (ValueError, KeyError):
        raise InputError(f"--set {setting}: {text!r} is not allowed; must be {kind.allowed}") from None


def from_stored(configuration: type, stored: Any, where: str) -> Any:
    """A configuration from stored values. ``where`` names the values in messages.

    A field that did not exist when the values were stored gets the value that it had in effect (``Before``), or else
    its default. Raises InputError for a field that this program does not know, because leaving it out would make
    another configuration, for a missing field without a default, and for values that are not allowed.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"{where}: has no fields; the file is damaged")
    known, inner = {field.name: field for field in fields(configuration)}, sections(configuration)
    if unknown := sorted(set(stored) - set(known)):
        raise InputError(
            f"{where}: this program does not know {', '.join(unknown)}; the file was written by a newer version of it"
        )
    values: dict[str, Any] = {}
    for name, field in known.items():
        kind = kinds(configuration).get(name)
        if name not in stored:
            if kind and kind.before:
                values[name] = kind.before[0].value
            elif field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{where}: has no {name}; the file is damaged")
        elif name in inner:
            values[name] = from_stored(
                _type_of(inner[name], stored[name], f"{where}.{name}"), stored[name], f"{where}.{name}"
            )
        else:
            value = stored[name]
            values[name] = tuple(value) if kind and kind.type is tuple and isinstance(value, list) else value
    return configuration(**values)


def _type_of(types: tuple[Any, ...], stored: Any, where: str) -> Any:
    """The dataclass among ``types`` that the stored values of a section are of; InputError where it is none."""
    kind = stored.get("kind") if isinstance(stored, Mapping) else None
    if kind is None or len(types) == 1:
        return types[0]
    if (found := next((each for each in types if each.kind == kind), None)) is None:
        raise InputError(f"{where}: this program does not know {kind!r}; the file was written by a newer version of it")
    return found
