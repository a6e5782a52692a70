"""A skeleton file (.asf) and its motion (.amc), as mocap.cs.cmu.edu gives them, in; bones and their angles out.

An .asf file has the bones at rest, in the world's axes: y is up, the figure faces +z, its left side is +x. An .amc file
has, for each frame, the root's position and the angles of each bone about the axes that the skeleton gives the bone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError, raise_if_passing

ROOT = "root"
AGAIN = "download the file again"


@dataclass
class Bone:
    """``direction`` (3,) at rest times length, in the file's units, world axes; ``axis``: the turn of the bone's own
    axes, about which its angles are; ``channels``: what a motion gives for it, such as rx, ry."""

    parent: str = ""
    direction: np.ndarray = field(default_factory=lambda: np.zeros(3))
    axis: Rotation = field(default_factory=Rotation.identity)
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class AsfSkeleton:
    """``bones`` by name, parents before their children, "root" first. ``unit``: metres of one unit of length."""

    bones: dict[str, Bone]
    unit: float


def read_asf(file: Path) -> AsfSkeleton:
    """The skeleton in a .asf file. Raises InputError, with the line, if it is damaged."""
    parsed: dict[str, Bone] = {ROOT: Bone()}
    children: dict[str, list[str]] = {}
    section, name, length, degrees, scale = "", "", 1.0, True, 1.0
    bone, number = Bone(), 0
    for number, words in _lines(file):
        key, *values = words
        try:
            if key.startswith(":"):
                section = key.lower()
            elif section == ":units" and key == "length":
                scale = float(values[0])
            elif section == ":units" and key == "angle":
                degrees = values[0].lower().startswith("deg")
            elif section == ":root" and key == "order":
                parsed[ROOT].channels = tuple(value.lower() for value in values)
            elif section == ":root" and key == "orientation":
                parsed[ROOT].axis = Rotation.from_euler("xyz", [float(value) for value in values], degrees=degrees)
            elif section == ":bonedata" and key == "begin":
                bone, name, length = Bone(), "", 1.0
            elif section == ":bonedata" and key == "name":
                name = values[0]
            elif section == ":bonedata" and key == "direction":
                bone.direction = np.array([float(value) for value in values[:3]])
            elif section == ":bonedata" and key == "length":
                length = float(values[0])
            elif section == ":bonedata" and key == "axis":
                order = (values[3] if len(values) > 3 else "XYZ").lower()
                bone.axis = Rotation.from_euler(order, [float(value) for value in values[:3]], degrees=degrees)
            elif section == ":bonedata" and key == "dof":
                bone.channels = tuple(value.lower() for value in values)
            elif section == ":bonedata" and key == "end":
                if not name or bone.direction.shape != (3,):
                    raise ValueError("a bone without a name or a direction")
                bone.direction = bone.direction * length
                parsed[name] = bone
            elif section == ":hierarchy" and key not in ("begin", "end"):
                children.setdefault(key, []).extend(values)
        except (ValueError, IndexError) as error:
            _damaged(file, number, f"'{' '.join(words)[:60]}': {error}")
    if not parsed[ROOT].channels or not children:
        _damaged(file, number, "the file ends without ':root' and ':hierarchy'; it is not a whole .asf file")
    if not (np.isfinite(scale) and scale > 0):
        _damaged(file, number, f"the unit of length is {scale}")
    # The lengths are inches divided by the scale that the file gives, which is 0.45 in all of CMU's files.
    return AsfSkeleton(_in_order(file, parsed, children), unit=0.0254 / scale)


def _in_order(file: Path, parsed: dict[str, Bone], children: dict[str, list[str]]) -> dict[str, Bone]:
    """The bones that hang on the root, parents first."""
    bones = {ROOT: parsed[ROOT]}
    waiting = [ROOT]
    while waiting:
        parent = waiting.pop()
        for name in children.get(parent, []):
            if name not in parsed or name in bones:
                what = "twice" if name in bones else "but not in :bonedata"
                raise InputError(f"{file}: bone '{name}' is in :hierarchy {what}; {AGAIN}")
            parsed[name].parent = parent
            bones[name] = parsed[name]
            waiting.append(name)
    return bones


def read_amc(file: Path, skeleton: AsfSkeleton) -> dict[str, np.ndarray]:
    """For each bone that moves, its channels (N, C) in all frames: lengths in the file's units, angles in radians.

    Raises InputError, with the line, if the file is damaged or is the motion of another skeleton.
    """
    widths = {name: len(bone.channels) for name, bone in skeleton.bones.items() if bone.channels}
    rows: dict[str, list[list[str]]] = {name: [] for name in widths}
    frames, number, first, degrees = 0, 0, 0, True
    for number, words in _lines(file):
        if words[0].startswith(":"):
            degrees = degrees and words[0].lower() != ":radians"
        elif len(words) == 1 and words[0].isdigit():
            _check_frame(file, number, frames, rows)
            if frames and int(words[0]) != first + frames:
                _damaged(file, number, f"frame {words[0]} after frame {first + frames - 1}")
            first = first if frames else int(words[0])
            frames += 1
        else:
            name, *values = words
            if name not in widths:
                _damaged(file, number, f"'{name[:40]}' is no moving bone of the skeleton; is the .asf of this person?")
            if len(values) != widths[name] or len(rows[name]) != frames - 1:
                _damaged(file, number, f"{len(values)} values for '{name}', expected {widths[name]}, once a frame")
            rows[name].append(values)
    _check_frame(file, number, frames, rows)
    if frames < 2:
        _damaged(file, number, f"{frames} frames; a motion has at least two")
    motion = {}
    for name, texts in rows.items():
        try:
            table = np.array(texts, dtype=np.float64)
        except ValueError as error:
            raise InputError(f"{file}: bone '{name}': {error}; {AGAIN}") from None
        if not np.isfinite(table).all():
            frame = first + int(np.argmin(np.isfinite(table).all(1)))
            raise InputError(f"{file}: bone '{name}', frame {frame}: a value that is not a finite number; {AGAIN}")
        turns = [channel.startswith("r") for channel in skeleton.bones[name].channels]
        motion[name] = np.where(turns, np.deg2rad(table), table) if degrees else table
    return motion


def _check_frame(file: Path, number: int, frames: int, rows: dict[str, list[list[str]]]) -> None:
    """All bones must have been given before the next frame begins."""
    missing = [name for name, values in rows.items() if len(values) != frames]
    if missing:
        _damaged(file, number, f"the frame before has no values for '{missing[0]}'")


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that is neither empty nor a comment."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                words = line.split()
                if words and not words[0].startswith("#"):
                    yield number, words
    except OSError as error:
        raise_if_passing(error, file)
        raise InputError(f"{file}: cannot be read ({error.strerror}); give another path") from None


def _damaged(file: Path, number: int, what: str) -> NoReturn:
    raise InputError(f"{file}: line {number}: {what}; if the file was cut off or edited, {AGAIN}")
