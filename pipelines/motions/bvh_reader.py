"""A BVH motion file in, SMPL poses out: joints are matched by name (SMPL, CMU, Mixamo, LAFAN, Poser).

The file's rest pose is corrected to SMPL's T-pose. Only global rotations and bone directions are used: a joint that
SMPL lacks adds to its descendants' rotations, and a joint that the file lacks follows its parent.
(glot/motion/bvh.py writes BVH.)
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS

# Names in lower case without prefixes and punctuation; {s} is left/l or right/r.
NAMES = {
    "hip": ("{s}upleg", "{s}upperleg", "{s}thigh", "{s}hip"),
    "knee": ("{s}leg", "{s}lowerleg", "{s}shin", "{s}calf", "{s}knee"),
    "ankle": ("{s}foot", "{s}ankle"),
    "foot": ("{s}toebase", "{s}toe", "{s}toes"),
    "collar": ("{s}collar", "{s}clavicle"),
    "shoulder": ("{s}arm", "{s}upperarm", "{s}uparm", "{s}shldr", "{s}shoulder"),
    "elbow": ("{s}forearm", "{s}lowerarm", "{s}lowarm", "{s}elbow"),
    "wrist": ("{s}hand", "{s}wrist"),
}
REQUIRED = ("hip", "knee", "ankle", "shoulder", "elbow")
# Directions of SMPL's bones at rest (T-pose) on the left side: x left, y up, z forward. The right side mirrors x.
REST = {
    "hip": (0, -1, 0), "knee": (0, -1, 0), "ankle": (0, -0.45, 0.89), "collar": (0.97, 0.2, 0),
    "shoulder": (1, 0, 0), "elbow": (1, 0, 0), "wrist": (1, 0, 0),
}  # fmt: skip
CHAINS = (("hip", "knee", "ankle"), ("collar", "shoulder", "elbow", "wrist"))
NEXT = {"hip": "knee", "knee": "ankle", "ankle": "foot", "collar": "shoulder", "shoulder": "elbow", "elbow": "wrist"}
LEG = 0.82  # metres from hip to ankle of a typical adult
UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "CMU units": 0.0254 / 0.45}


@dataclass
class _Skeleton:
    """Joints in the file's order: names, parents, offsets (J, 3) and the names of each joint's channels."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray
    channels: list[list[str]]


def read_bvh(file: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Poses (N, 72) radians, trans (N, 3) metres of the pelvis, and frames a second. y is up, +z forward at rest.

    Raises InputError if the file is not a whole BVH file or a required joint has no known name. The unit of length is
    guessed from the legs and printed on stderr.
    """
    skeleton, values, fps = _parse(file)
    joints = _match(file, skeleton)
    rotations, positions = _forward(skeleton, values)
    at_rest = _forward(skeleton, np.zeros((1, values.shape[1])))[1][:, 0]  # (J, 3)
    unit, scale = _unit(at_rest, joints)
    print(f"{file.name}: {len(values)} frames at {fps:g} fps, unit of length: {unit}", file=sys.stderr)
    head, hips = joints.get("head", joints["left_shoulder"]), joints["pelvis"]
    rise = np.abs(positions[head] - positions[hips]).mean(0)
    to_y_up = Rotation.from_euler("x", -90 if rise[2] > 1.5 * rise[1] else 0, degrees=True)
    fix = _rest_corrections(joints, at_rest, rotations)
    world = {name: to_y_up * rotations[joints[name]] * fix[name] for name in fix}
    pelvis, chest = world["pelvis"], world["spine3"]
    bend = (pelvis.inv() * chest).as_rotvec()  # spread evenly if the file's back has fewer joints than SMPL's
    world.setdefault("spine1", pelvis * Rotation.from_rotvec(bend / 3))
    world.setdefault("spine2", pelvis * Rotation.from_rotvec(bend * 2 / 3))
    poses = np.zeros((len(values), 24, 3))
    for index, name in enumerate(SMPL_JOINTS):
        if index == 0:
            poses[:, 0] = pelvis.as_rotvec()
            continue
        above = SMPL_JOINTS[SMPL_PARENTS[index]]
        world.setdefault(name, world[above])
        poses[:, index] = (world[above].inv() * world[name]).as_rotvec()
    return poses.reshape(-1, 72), to_y_up.apply(positions[hips]) * scale, fps


def _parse(file: Path) -> tuple[_Skeleton, np.ndarray, float]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        top, motion = text.split("MOTION", 1)
        words = iter(top.split())
        if next(words) != "HIERARCHY":
            raise ValueError("it does not begin with HIERARCHY")
        skeleton = _Skeleton([], [], np.zeros((0, 3)), [])
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
        skeleton.offsets = np.array(offsets)
        found = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*([0-9.eE+-]+)", motion)
        if not found or float(found[2]) <= 0:
            raise ValueError("no 'Frames:' and 'Frame Time:' after MOTION")
        width = sum(map(len, skeleton.channels))
        values = np.array(motion[found.end() :].split(), dtype=np.float64)
        frames = int(found[1])
        if width == 0 or frames < 2 or len(values) != frames * width or not np.isfinite(values).all():
            raise ValueError(f"{len(values)} numbers for {frames} frames of {width} channels")
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise InputError(f"{file}: is not a whole BVH file ({error or 'it ends early'})") from None
    return skeleton, values.reshape(frames, width), 1 / float(found[2])


def _match(file: Path, skeleton: _Skeleton) -> dict[str, int]:
    """SMPL joint name -> index in the file, for the joints that the file has."""
    plain = [re.sub(r"[^a-z0-9]", "", re.sub(r"^.*[:|]|mixamorig\d*", "", name.lower())) for name in skeleton.names]
    where = {name: index for index, name in reversed(list(enumerate(plain)))}
    joints = {"pelvis": next((where[n] for n in ("hips", "pelvis", "hip", "root") if n in where), 0)}
    for side, letter in (("left", "l"), ("right", "r")):
        for joint, patterns in NAMES.items():
            names = [p.format(s=s) for p in patterns for s in (side, letter)]
            index = next((where[n] for n in names if n in where), None)
            if index is not None:
                joints[f"{side}_{joint}"] = index
        # If the upper arm is called "arm", "shoulder" is the collar bone.
        collar = next((where[n] for n in (f"{side}shoulder", f"{letter}shoulder") if n in where), None)
        if collar is not None and f"{side}_collar" not in joints and joints[f"{side}_shoulder"] != collar:
            joints[f"{side}_collar"] = collar
    for name in ("neck", "head"):
        if name in where:
            joints[name] = where[name]
    # SMPL's own names: the toes are "foot" (after "ankle"), and the fingers "hand" (after "wrist").
    if set(SMPL_JOINTS) <= set(skeleton.names):
        joints = {name: skeleton.names.index(name) for name in SMPL_JOINTS}
    missing = [f"{side}_{joint}" for side in ("left", "right") for joint in REQUIRED if f"{side}_{joint}" not in joints]
    if missing:
        raise InputError(
            f"{file}: no joint that could be {missing[0]} among {skeleton.names[:8]} ...; rename the joints"
        )
    # The back: the joints from the pelvis to the last one that both arms descend from.
    paths = []
    for side in ("left", "right"):
        path, index = [], skeleton.parents[joints[f"{side}_shoulder"]]
        while index >= 0 and index != joints["pelvis"]:
            path.append(index)
            index = skeleton.parents[index]
        paths.append(path[::-1])
    back = [a for a, b in zip(*paths, strict=False) if a == b]
    if not back:
        raise InputError(
            f"{file}: no back between the hips and the arms; is '{skeleton.names[joints['pelvis']]}' the hips?"
        )
    joints["spine3"] = back[-1]
    if len(back) >= 3:
        joints["spine1"] = back[-(-len(back) // 3) - 1]
        joints["spine2"] = back[-(-2 * len(back) // 3) - 1]
    return joints


def _forward(skeleton: _Skeleton, values: np.ndarray) -> tuple[list[Rotation], np.ndarray]:
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


def _unit(at_rest: np.ndarray, joints: dict[str, int]) -> tuple[str, float]:
    """The unit of length that gives the legs the most likely length: its name and its size in metres."""
    hip, knee, ankle = (at_rest[joints[f"left_{j}"]] for j in ("hip", "knee", "ankle"))
    leg = float(np.linalg.norm(hip - knee) + np.linalg.norm(knee - ankle))
    return min(UNITS.items(), key=lambda unit: abs(float(np.log(max(leg, 1e-9) * unit[1] / LEG))))


def _rest_corrections(joints: dict[str, int], at_rest: np.ndarray, rotations: list[Rotation]) -> dict[str, Rotation]:
    """For each matched joint, the rotation C from SMPL's rest frame to the file's: SMPL's global rotation is the
    file's global rotation times C."""
    middle = 0.5 * (at_rest[joints["left_hip"]] + at_rest[joints["right_hip"]])
    up = 0.5 * (at_rest[joints["left_shoulder"]] + at_rest[joints["right_shoulder"]]) - middle
    left = at_rest[joints["left_hip"]] - at_rest[joints["right_hip"]]
    pelvis = Rotation.align_vectors([up, left], [[0, 1, 0], [1, 0, 0]], weights=[np.inf, 1])[0]
    fix = {name: pelvis for name in joints if not name.startswith(("left", "right"))}
    for side, flip in (("left", 1), ("right", -1)):
        for chain in CHAINS:
            above, far, names = pelvis, False, []
            for joint in chain:
                name, child = f"{side}_{joint}", f"{side}_{NEXT.get(joint)}"
                if name not in joints:
                    continue
                if child in joints:
                    bone = at_rest[joints[child]] - at_rest[joints[name]]
                    if np.linalg.norm(bone) > 1e-9:
                        step = _shortest(above.apply(np.array(REST[joint]) * [flip, 1, 1]), bone)
                        far |= step.magnitude() > np.pi / 3 and joint in ("hip", "shoulder")
                        above = step * above
                fix[name] = above
                names.append(name)
            if far:  # between such different rest poses, the shortest rotation does not determine the twist
                _twist(fix, names, joints, rotations, flip=flip, leg="hip" in chain)
    return fix


def _twist(
    fix: dict[str, Rotation],
    names: list[str],
    joints: dict[str, int],
    rotations: list[Rotation],
    *,
    flip: int,
    leg: bool,
) -> None:
    """Turns a limb's corrections about its bone so that, over the clip, knees bend backwards and elbows forwards."""
    upper, lower = [n for n in names if n.endswith(("hip", "knee") if leg else ("shoulder", "elbow"))]
    axis = np.array([0, -1, 0] if leg else [flip, 0, 0])  # along the bone, in SMPL's rest frame
    hinge = np.array([1, 0, 0] if leg else [0, -flip, 0])  # the axis of bending
    bend = (rotations[joints[upper]] * fix[upper]).inv() * rotations[joints[lower]] * fix[lower]
    bend = bend.as_rotvec().mean(0)
    angle = np.arctan2(np.dot(np.cross(hinge, bend), axis), np.dot(hinge, bend))
    for name in names:
        if not name.endswith("collar"):
            fix[name] = fix[name] * Rotation.from_rotvec(axis * angle)


def _shortest(start: np.ndarray, end: np.ndarray) -> Rotation:
    """The smallest rotation from one direction to another."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    size = np.linalg.norm(axis)
    if size < 1e-9:
        if np.dot(start, end) > 0:
            return Rotation.identity()
        axis = np.cross(start, np.eye(3)[np.argmin(np.abs(start))])  # opposite directions: any perpendicular axis
        return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.pi)
    return Rotation.from_rotvec(axis / size * np.arctan2(size, np.dot(start, end)))
