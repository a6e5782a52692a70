"""A BVH motion file in, SMPL poses out: joints are matched by name (SMPL, CMU, Mixamo, LAFAN, Poser, DAZ).

The file's rest pose is corrected to SMPL's T-pose. Only global rotations and bone directions are used: a joint that
SMPL lacks adds to its descendants' rotations, and a joint that the file lacks follows its parent.
(glot/motion/bvh.py writes BVH.)
"""

import re
import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS
from pipelines.motions.bvh_parser import BvhSkeleton, in_world, parse_bvh
from pipelines.motions.cmu_bones import CmuFigure, bones_by_joint, to_smpl
from pipelines.motions.world_rotations import local_poses, shortest_turn

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


# The first frame is a T-pose that nobody made if, from it to the second, joints turn by more than this (mean, radians),
# or the hips move by more than this (metres), and by more than so many times any of the next frames.
POSED_RADIANS, POSED_METRES, POSED_TIMES = 0.05, 0.1, 5
NEXT_FRAMES = 10


def read_bvh(file: Path, *, tell: bool = True) -> tuple[np.ndarray, np.ndarray, float]:
    """Poses (N, 72) radians, trans (N, 3) metres of the pelvis, and frames a second. y is up, +z forward at rest.

    Raises InputError if the file is not a whole BVH file or a required joint has no known name. The unit of length is
    guessed from the legs and, if ``tell``, printed on stderr. A T-pose that somebody put before the motion, as in
    conversions of the CMU database, is left out.
    """
    skeleton, values, fps = parse_bvh(file)
    joints = _match(file, skeleton)
    rotations, positions = in_world(skeleton, values)
    at_rest = in_world(skeleton, np.zeros((1, values.shape[1])))[1][:, 0]  # (J, 3)
    unit, scale = _unit(at_rest, joints)
    if bones := bones_by_joint(skeleton.names):
        hips = 0.5 * (positions[bones["lfemur"]] + positions[bones["rfemur"]]) * scale
        turns = {bone: rotations[index] for bone, index in bones.items()}
        poses, trans = to_smpl(CmuFigure(turns, {bone: at_rest[index] for bone, index in bones.items()}, hips))
    else:
        poses, trans = _to_smpl(joints, at_rest, rotations, positions)
        trans = trans * scale
    start = int(_begins_posed(poses, trans))
    if tell:
        left_out = "; the first, a T-pose before the motion, is left out" if start else ""
        print(f"{file.name}: {len(values)} frames at {fps:g} fps, unit of length: {unit}{left_out}", file=sys.stderr)
    return poses[start:], trans[start:], fps


def _to_smpl(
    joints: dict[str, int], at_rest: np.ndarray, rotations: list[Rotation], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 72) radians and trans (N, 3) in the file's units, of any figure."""
    head, hips = joints.get("head", joints["left_shoulder"]), joints["pelvis"]
    rise = np.abs(positions[head] - positions[hips]).mean(0)
    to_y_up = Rotation.from_euler("x", -90 if rise[2] > 1.5 * rise[1] else 0, degrees=True)
    fix = _rest_corrections(joints, at_rest, rotations)
    world = {name: to_y_up * rotations[joints[name]] * fix[name] for name in fix}
    pelvis, chest = world["pelvis"], world["spine3"]
    bend = (pelvis.inv() * chest).as_rotvec()  # spread evenly if the file's back has fewer joints than SMPL's
    world.setdefault("spine1", pelvis * Rotation.from_rotvec(bend / 3))
    world.setdefault("spine2", pelvis * Rotation.from_rotvec(bend * 2 / 3))
    return local_poses(world), to_y_up.apply(positions[hips])


def _begins_posed(poses: np.ndarray, trans: np.ndarray) -> bool:
    """Whether the first frame of poses (N, 72) and trans (N, 3) is no part of the motion."""
    first = Rotation.from_rotvec(poses[: NEXT_FRAMES + 2].reshape(-1, 3)).as_quat().reshape(-1, 24, 4)
    if len(first) < 4:
        return False
    cosines = np.abs((first[1:] * first[:-1]).sum(-1)).clip(0, 1)
    turned = 2 * np.arccos(cosines).mean(1)
    moved = np.linalg.norm(np.diff(trans[: NEXT_FRAMES + 2], axis=0), axis=1)
    return any(
        steps[0] > least and steps[0] > POSED_TIMES * steps[1:].max()
        for steps, least in ((turned, POSED_RADIANS), (moved, POSED_METRES))
    )


def _match(file: Path, skeleton: BvhSkeleton) -> dict[str, int]:
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
                        step = shortest_turn(above.apply(np.array(REST[joint]) * [flip, 1, 1]), bone)
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
