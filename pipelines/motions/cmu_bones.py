"""A moving figure with the bones of the CMU database in, SMPL poses out.

The world rotation of a joint is that of the figure's bone since its rest pose, times one constant turn from the open
body's rest bone to the figure's. These turns are chained from hip to toes and from shoulder to hand.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pipelines.motions.world_rotations import half_way, local_poses, shortest_turn

# The joint of the body that a bone of CMU's turns. {s} is l or r.
BONES = {"pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax", "head": "head"}
NECK = ("lowerneck", "upperneck")  # the body's neck is half way between them
LIMBS = {
    "hip": "{s}femur", "knee": "{s}tibia", "ankle": "{s}foot", "foot": "{s}toes", "collar": "{s}clavicle",
    "shoulder": "{s}humerus", "elbow": "{s}radius", "wrist": "{s}hand",
}  # fmt: skip
# The wrist turns by {s}wrist and {s}hand together; its bone begins where {s}wrist begins.
CHAINS = (
    ("hip", "{s}femur", "{s}tibia"), ("knee", "{s}tibia", "{s}foot"), ("ankle", "{s}foot", "{s}toes"),
    ("foot", "", ""), ("shoulder", "{s}humerus", "{s}radius"), ("elbow", "{s}radius", "{s}wrist"),
    ("wrist", "{s}wrist", "{s}fingers"),
)  # fmt: skip
# Directions of the open body's bones at rest on the left side: x left, y up, z forward. The right side mirrors x.
REST = {
    "hip": (0.041, -0.999, -0.001), "knee": (0.039, -0.999, 0.0), "ankle": (-0.046, -0.325, 0.945),
    "shoulder": (1.0, 0.001, 0.001), "elbow": (1.0, 0.0, 0.001), "wrist": (1.0, -0.011, -0.002),
}  # fmt: skip
PELVIS_FROM_HIPS = np.array([0.0, 0.0136, 0.008])  # metres, from the middle of the open body's hips to its pelvis


NEEDED = (*BONES.values(), *NECK, *(bone.format(s=s) for s in "lr" for bone in LIMBS.values()))
# Joints of the BVH conversions for MotionBuilder and 3dsMax -> the bone of CMU's that begins there and turns so. In
# lower case; {side} is left or right, {s} is l or r.
FOR_MOTIONBUILDER = {
    "hips": "root", "lowerback": "lowerback", "spine": "upperback", "spine1": "thorax", "neck": "lowerneck",
    "neck1": "upperneck", "head": "head", "{side}upleg": "{s}femur", "{side}leg": "{s}tibia", "{side}foot": "{s}foot",
    "{side}toebase": "{s}toes", "{side}shoulder": "{s}clavicle", "{side}arm": "{s}humerus",
    "{side}forearm": "{s}radius", "{side}hand": "{s}wrist", "{side}fingerbase": "{s}hand",
    "{side}handindex1": "{s}fingers",
}  # fmt: skip
FOR_3DSMAX = {
    "hips": "root", "lowerback": "lowerback", "chest": "upperback", "chest2": "thorax", "lowerneck": "lowerneck",
    "neck": "upperneck", "head": "head", "{side}hip": "{s}femur", "{side}knee": "{s}tibia", "{side}ankle": "{s}foot",
    "{side}toe": "{s}toes", "{side}collar": "{s}clavicle", "{side}shoulder": "{s}humerus",
    "{side}elbow": "{s}radius", "{side}wrist": "{s}wrist", "{s}hand": "{s}hand", "{s}fingers": "{s}fingers",
}  # fmt: skip


def bones_by_joint(names: list[str]) -> dict[str, int]:
    """CMU's bone -> its joint's index among ``names`` of a BVH file; empty if the file is no such conversion."""
    where = {name.lower(): index for index, name in enumerate(names)}
    for conversion in (FOR_MOTIONBUILDER, FOR_3DSMAX):
        bones = {}
        for side in ("left", "right"):
            for joint, bone in conversion.items():
                index = where.get(joint.format(side=side, s=side[0]))
                if index is not None:
                    bones[bone.format(s=side[0])] = index
        if set(NEEDED) <= set(bones) and "lhipjoint" in where:
            return bones
    return {}


@dataclass(frozen=True)
class CmuFigure:
    """A moving figure with CMU's bones, in the world's axes: y up, +z forward at rest.

    ``rotations``: of each bone since its rest pose, N each. ``starts``: where each bone begins at rest, (3,), in any
    unit. ``hips`` (N, 3): the middle of the two hips, metres.
    """

    rotations: dict[str, Rotation]
    starts: dict[str, np.ndarray]
    hips: np.ndarray


def to_smpl(figure: CmuFigure) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 72), axis-angle in radians, local, T-pose at rest, and trans (N, 3) of the pelvis, metres."""
    world = {joint: figure.rotations[bone] for joint, bone in BONES.items()}
    world["neck"] = half_way(*(figure.rotations[bone] for bone in NECK))
    fix = rest_turns(figure.starts)
    for side in ("left", "right"):
        for joint, bone in LIMBS.items():
            turn = fix.get(f"{side}_{joint}", Rotation.identity())  # the collars are as they are
            world[f"{side}_{joint}"] = figure.rotations[bone.format(s=side[0])] * turn
    return local_poses(world), figure.hips + world["pelvis"].apply(PELVIS_FROM_HIPS)


def rest_turns(starts: dict[str, np.ndarray]) -> dict[str, Rotation]:
    """For each joint of a limb, the turn from the body's rest bone to the source's."""
    fix = {}
    for side, flip in (("left", 1), ("right", -1)):
        turn = Rotation.identity()
        for joint, start, end in CHAINS:
            if joint == "shoulder":
                turn = Rotation.identity()
            ends = [starts.get(name.format(s=side[0])) for name in (start, end)]
            if joint in REST and ends[0] is not None and ends[1] is not None:
                bone = ends[1] - ends[0]
                if np.linalg.norm(bone) > 1e-9:
                    turn = shortest_turn(turn.apply(np.array(REST[joint]) * [flip, 1, 1]), bone) * turn
            fix[f"{side}_{joint}"] = turn
    return fix
