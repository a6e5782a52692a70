"""A BVH file in, its skeleton and the values of all frames out; and the joints in the world, frame by frame."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError, raise_if_passing


@dataclass
class BvhSkeleton:
    """Joints in the file's order: names, parents, offsets (J, 3) and the names of each joint's channels."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray
    channels: list[list[str]]


class _Words:
    """The words of a text one after another; ``line`` is the line of the last one."""

    def __init__(self, text: str) -> None:
        self.line = 1
        self._words = ((n, word) for n, line in enumerate(text.splitlines(), 1) for word in line.split())

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.line, word = next(self._words)
        return word


def parse_bvh(file: Path) -> tuple[BvhSkeleton, np.ndarray, float]:
    """Skeleton, values of all channels (N, C) as in the file, and frames a second. InputError, with the line, if the
    file is not a whole BVH file."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise_if_passing(error, file)
        raise InputError(f"{file}: cannot be read ({error.strerror}); give another path") from None
    top, _, motion = text.partition("MOTION")
    words = _Words(top)
    try:
        skeleton = _hierarchy(words)
    except (ValueError, IndexError, StopIteration) as error:
        what = f"is not a whole BVH file ({error or 'it ends early'})"
        raise InputError(f"{file}: line {words.line}: {what}; download or export it again") from None
    values, fps = _motion(file, motion, width=sum(map(len, skeleton.channels)), line=top.count("\n") + 1)
    return skeleton, values, fps


def _hierarchy(words: _Words) -> BvhSkeleton:
    if next(words) != "HIERARCHY":
        raise ValueError("it does not begin with HIERARCHY")
    skeleton = BvhSkeleton([], [], np.zeros((0, 3)), [])
    offsets: list[list[float]] = []
    stack: list[int] = []
    for word in words:
        if word in ("ROOT", "JOINT"):
            name = []
            for part in words:  # names may hold spaces; the brace ends them
                if part == "{":
                    break
                name.append(part)
            skeleton.parents.append(stack[-1] if stack else -1)
            stack.append(len(skeleton.names))
            skeleton.names.append(" ".join(name))
            skeleton.channels.append([])
            offsets.append([0.0, 0.0, 0.0])
        elif word == "End":
            while next(words) != "}":
                pass
        elif word == "OFFSET":
            offsets[stack[-1]] = [float(next(words)) for _ in range(3)]
        elif word == "CHANNELS":
            skeleton.channels[stack[-1]] = [next(words).lower() for _ in range(int(next(words)))]
        elif word == "}":
            stack.pop()
    if stack or not any(skeleton.channels):
        raise ValueError("it ends early")
    skeleton.offsets = np.array(offsets)
    return skeleton


def _motion(file: Path, motion: str, *, width: int, line: int) -> tuple[np.ndarray, float]:
    """Values (N, width) and frames a second from what follows the word MOTION, which is in ``line``."""
    found = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*([0-9.eE+-]+)", motion)
    if not found or not 1e-4 < _number(found[2]) < 10:
        raise InputError(
            f"{file}: line {line}: no 'Frames:' and 'Frame Time:' after MOTION; download or export it again"
        )
    frames, rows = int(found[1]), motion[found.end() :]
    first = line + motion[: found.end()].count("\n")
    try:
        values = np.array(rows.split(), dtype=np.float64)
    except ValueError:
        values = np.zeros(0)
    if frames < 2 or len(values) != frames * width or not np.isfinite(values).all():
        row, what = _first_bad_row(rows, width=width)
        raise InputError(
            f"{file}: line {first + row}: {what}; expected {frames} frames (at least 2) of {width} channels: "
            "download or export it again"
        )
    return values.reshape(frames, width), 1 / float(found[2])


def _first_bad_row(rows: str, *, width: int) -> tuple[int, str]:
    """Which line of the numbers is not a frame, or the last one, and what is wrong there."""
    lines = rows.rstrip().split("\n")
    for row, line in enumerate(lines):
        words = line.split()
        if words and len(words) != width:
            return row, f"{len(words)} numbers"
        wrong = next((word for word in words if not np.isfinite(_number(word))), None)
        if wrong is not None:
            return row, f"'{wrong[:20]}' is not a finite number"
    return len(lines) - 1, f"the end, after {sum(bool(line.split()) for line in lines)} frames"


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def in_world(skeleton: BvhSkeleton, values: np.ndarray) -> tuple[list[Rotation], np.ndarray]:
    """Global rotations, a list of J with N each, and positions (J, N, 3) in the file's units."""
    rotations: list[Rotation] = []
    positions = np.zeros((len(skeleton.names), len(values), 3))
    at = 0
    for index, (parent, channels) in enumerate(zip(skeleton.parents, skeleton.channels, strict=True)):
        columns = values[:, at : at + len(channels)]
        at += len(channels)
        order = "".join(c[0].upper() for c in channels if c.endswith("rotation"))
        angles = columns[:, [k for k, c in enumerate(channels) if c.endswith("rotation")]]
        local = Rotation.from_euler(order, angles, degrees=True) if order else Rotation.identity(len(values))
        shift = np.tile(skeleton.offsets[index], (len(values), 1))
        for k, channel in enumerate(channels):
            if channel.endswith("position"):  # a given position replaces the offset
                shift[:, "xyz".index(channel[0])] = columns[:, k]
        rotations.append(local if parent < 0 else rotations[parent] * local)
        positions[index] = shift if parent < 0 else positions[parent] + rotations[parent].apply(shift)
    return rotations, positions
