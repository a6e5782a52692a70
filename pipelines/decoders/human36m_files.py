"""The parsed annotation files of Human3.6M in, arrays of one sequence out. Large files are never parsed as a whole.

annotations/Human36M_subject{S}_{camera,joint_3d,SMPL_NeuralAnnot}.json: frames numbered from 0, mm, world frame.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError, raise_if_passing
from pipelines.decoders.dataset_facts import HUMAN36M17

CAMERA, JOINT, FIT = "camera", "joint_3d", "SMPL_NeuralAnnot"  # the three annotation files of a subject
FIT_VALUES = (("pose", 72), ("shape", 10))
FOLDER = re.compile(r"s_(\d\d)_act_(\d\d)_subact_(\d\d)_ca_(\d\d)")
BLOCK = 1 << 20  # bytes read at once when an annotation file is scanned
BRACE, KEY = re.compile(rb"[{}]"), re.compile(rb'"(\d+)"\s*:\s*\Z')


class Sequence(NamedTuple):
    """The numbers in the name of a folder of pictures."""

    subject: int
    action: int
    subaction: int
    camera: int


class Camera(NamedTuple):
    """World to camera: R X + t (mm). Camera to pixels: f X / Z + c. Lens distortion is ignored, as in the release."""

    rotation: NDArray[np.float64]  # (3, 3)
    translation: NDArray[np.float64]  # (3,) mm
    focal: NDArray[np.float64]  # (2,) px
    centre: NDArray[np.float64]  # (2,) px


def sequence_of(name: str) -> Sequence:
    """The sequence of a folder of pictures."""
    found = FOLDER.fullmatch(name)
    assert found, name
    return Sequence(*map(int, found.groups()))


def file_name(sequence: Sequence, kind: str) -> str:
    """Path of an annotation file of the sequence's subject, below the root."""
    return f"annotations/Human36M_subject{sequence.subject}_{kind}.json"


@lru_cache(maxsize=32)  # two files for each of seven subjects
def _places(path: Path, size: int, changed: int) -> dict[tuple[int, int], tuple[int, int]]:
    """(action, subaction) -> byte range [start, stop) of {frame: ...} in {action: {subaction: {frame: ...}}}.

    Only braces are read: to parse a subject's whole file would take gigabytes of Python objects. A file that was
    replaced has another ``size`` or ``changed``, so the cache does not return the old places.
    """
    places: dict[tuple[int, int], tuple[int, int]] = {}
    keys, depth, start, read, tail = [-1, -1], 0, 0, 0, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            text = tail + block
            base = read - len(tail)
            for brace in BRACE.finditer(text, len(tail)):
                at = brace.start()
                if brace[0] == b"{":
                    depth += 1
                    if depth in (2, 3):
                        key = KEY.search(text, max(at - 64, 0), at)
                        keys[depth - 2] = int(key[1]) if key else -1
                    if depth == 3:
                        start = base + at
                else:
                    if depth == 3:
                        places[keys[0], keys[1]] = start, base + at + 1
                    depth -= 1
            read += len(block)
            tail = text[-64:]
    if depth != 0 or not read:
        raise InputError(f"annotations/{path.name}: {'cut short' if read else 'empty'}; get it again")
    return places


def _frames(root: Path, sequence: Sequence, kind: str) -> dict[str, Any] | None:
    """The content of a subject's file at [action][subaction]; None if the file has no such entry."""
    name = file_name(sequence, kind)
    try:
        status = (root / name).stat()
        place = _places(root / name, status.st_size, status.st_mtime_ns).get((sequence.action, sequence.subaction))
        if place is None:
            return None
        with (root / name).open("rb") as file:
            file.seek(place[0])
            return json.loads(file.read(place[1] - place[0]))  # it starts with a brace, so it is a dict
    except OSError as error:
        raise_if_passing(error, name)
        raise InputError(f"{name}: {error.strerror}; put the release's annotation files there") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        what = f"action {sequence.action}, subaction {sequence.subaction}"
        raise InputError(f"{name}: {what} is not readable as JSON ({error})") from None


def read_joints(
    root: Path, sequence: Sequence, pictures: NDArray[np.int64]
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Joints (n, 17, 3) mm, world frame, of the n frames from the first picture to the last; NaN where unknown.

    Also returns counts of pictures without joints, joints without a picture, and joints that are not finite.
    """
    name, what = file_name(sequence, JOINT), f"action {sequence.action}, subaction {sequence.subaction}"
    frames = _frames(root, sequence, JOINT)
    if not frames:
        raise InputError(f"{name}: no joints of {what} in it")
    first, last = int(pictures[0]), int(pictures[-1])
    world = np.full((last + 1 - first, len(HUMAN36M17), 3), np.nan)
    labelled = []
    for key, value in frames.items():
        try:
            frame, joints = int(key), np.array(value, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name}: frame {key[:20]!r} of {what} holds no joints") from None
        if joints.shape != (len(HUMAN36M17), 3):
            raise InputError(f"{name}: joints of frame {frame} of {what} are {joints.shape}, expected (17, 3)")
        labelled.append(frame)
        if first <= frame <= last:
            world[frame - first] = np.where(np.isfinite(joints).all(1, keepdims=True), joints, np.nan)
    paired = np.isin(pictures, labelled)
    if not np.isfinite(world).any():
        raise InputError(f"{name}: no joints of {what} for any of the {len(pictures)} pictures")
    return world, {
        "pictures": len(pictures),
        "pictures_without_joints": int((~paired).sum()),
        "joints_without_picture": len(labelled) - int(paired.sum()),
        "joints_not_finite": int(np.isnan(world[pictures[paired] - first, :, 0]).sum()),
    }


def read_camera(root: Path, sequence: Sequence) -> Camera:
    """The camera of a sequence; InputError where its numbers are missing, not finite, or cannot be a camera's."""
    name, number = file_name(sequence, CAMERA), str(sequence.camera)
    try:
        raw = json.loads((root / name).read_bytes())
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; put the release's annotation files there") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not readable as JSON ({error})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get(number), dict):
        raise InputError(f"{name}: no camera {number} in it")
    values = []
    for key, shape in (("R", (3, 3)), ("t", (3,)), ("f", (2,)), ("c", (2,))):
        try:
            array = np.array(raw[number][key], np.float64)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{name}: camera {number} has no {key} of numbers") from None
        if array.size != np.prod(shape) or not np.isfinite(array).all():
            raise InputError(f"{name}: {key} of camera {number} is not {shape} finite numbers")
        values.append(array.reshape(shape))
    camera = Camera(*values)
    if np.abs(camera.rotation @ camera.rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(camera.rotation) < 0:
        raise InputError(f"{name}: R of camera {number} is not a rotation")
    if (camera.focal <= 0).any():
        raise InputError(f"{name}: f of camera {number} is not positive")
    return camera


def read_fits(root: Path, sequence: Sequence) -> tuple[dict[int, NDArray[np.float64]], int]:
    """{frame: (82,) pose and betas}, and how many fits are not numbers. Empty where there is no file of fits.

    An older private layout has a level of cameras between subactions and frames; such files are read, too.
    """
    if not (root / file_name(sequence, FIT)).exists():
        return {}, 0
    frames = _frames(root, sequence, FIT) or {}
    if frames and not any(isinstance(value, dict) and "pose" in value for value in frames.values()):
        of_camera = frames.get(str(sequence.camera))
        if not isinstance(of_camera, dict):
            raise InputError(
                f"{file_name(sequence, FIT)}: neither frames nor camera {sequence.camera} in its subactions"
            )
        frames = of_camera
    fits, unreadable = {}, 0
    for key, value in frames.items():
        try:
            fit = np.concatenate([np.array(value[name], np.float64).ravel()[:size] for name, size in FIT_VALUES])
            number = int(key)
        except (KeyError, TypeError, ValueError):
            fit, number = np.empty(0), -1
        if fit.shape == (82,) and np.isfinite(fit).all():
            fits[number] = fit
        else:
            unreadable += 1
    return fits, unreadable
