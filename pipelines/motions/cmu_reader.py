"""An .amc file of the CMU database and its .asf file in, SMPL poses out: the skeleton is moved, then converted."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from pipelines.motions.asf_amc_files import ROOT, AsfSkeleton, read_amc, read_asf
from pipelines.motions.cmu_bones import NEEDED, CmuFigure, to_smpl
from pipelines.motions.motion_clip import FPS

CMU_FPS = 120  # of the .amc files; they do not say it themselves
EVERY = round(CMU_FPS / FPS)


def read_cmu(motion: Path, skeleton: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Poses (N, 72) radians, trans (N, 3) metres of the pelvis, and 30 frames a second, of an .amc file and its .asf
    file: every 4th of the 120 frames a second.

    y is up, +z forward at rest. Raises InputError if a file is damaged or the skeleton lacks a bone of CMU's.
    """
    bones = read_asf(skeleton)
    missing = [name for name in NEEDED if name not in bones.bones]
    if missing:
        raise InputError(f"{skeleton}: no bone '{missing[0]}'; only skeletons of the CMU database are read")
    channels = {name: values[::EVERY] for name, values in read_amc(motion, bones).items()}
    return *to_smpl(move(bones, channels)), FPS


def move(skeleton: AsfSkeleton, motion: dict[str, np.ndarray]) -> CmuFigure:
    """The skeleton in all frames of a motion: channels (N, C) of each bone, the file's units, radians."""
    frames = len(motion[ROOT])
    rotations: dict[str, Rotation] = {}
    ends: dict[str, np.ndarray] = {}  # (N, 3), the file's units
    rest_ends: dict[str, np.ndarray] = {}
    starts: dict[str, np.ndarray] = {}
    for name, bone in skeleton.bones.items():
        turn, shift = _local(bone.channels, motion.get(name), frames)
        turn = bone.axis * turn * bone.axis.inv()
        if name == ROOT:
            rotations[name], ends[name], rest_ends[name] = turn, shift, np.zeros(3)
        else:
            rotations[name] = rotations[bone.parent] * turn
            ends[name] = ends[bone.parent] + rotations[name].apply(bone.direction)
            rest_ends[name] = rest_ends[bone.parent] + bone.direction
        starts[name] = rest_ends.get(bone.parent, np.zeros(3))
    hips = 0.5 * (ends[skeleton.bones["lfemur"].parent] + ends[skeleton.bones["rfemur"].parent])
    return CmuFigure(rotations, starts, hips * skeleton.unit)


def _local(channels: tuple[str, ...], values: np.ndarray | None, frames: int) -> tuple[Rotation, np.ndarray]:
    """Turn and shift (N, 3) of a bone about and along its own axes. Angles follow each other about fixed axes."""
    shift = np.zeros((frames, 3))
    if values is None:
        return Rotation.identity(frames), shift
    for column, channel in enumerate(channels):
        if channel in ("tx", "ty", "tz"):
            shift[:, "xyz".index(channel[1])] = values[:, column]
    turns = [column for column, channel in enumerate(channels) if channel in ("rx", "ry", "rz")]
    if not turns:
        return Rotation.identity(frames), shift
    return Rotation.from_euler("".join(channels[column][1] for column in turns), values[:, turns]), shift
