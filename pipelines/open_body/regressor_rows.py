"""Body shapes and the rig in; rows of the joint regressors, picked vertices and parts of the body out."""

import numpy as np
from scipy.optimize import nnls

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS
from pipelines.open_body.anny_people import MIRRORED, Array, Rig
from pipelines.open_body.body_shapes import SHAPES, Shapes

PARTS = ("skin", "hair", "shirt", "trousers", "shoes", "eyes", "iris")
ROW_SPREAD = 3e-3  # strength of the preference for even weights: metres of error that it may cost


def regressor_row(shapes: Shapes, near: Array, goal: Array, goal_directions: Array) -> Array:
    """Weights (V,) of the vertices ``near``, not negative, with the sum 1, whose mean follows ``goal`` (3,) + (3, 10) @
    betas.

    The last equations of the system prefer even weights. The mean of a ring with even weights stays inside its limb
    when the limb bends. This matters since the extra and H36M rows are applied to posed vertices.
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
    """Indices of SMPL joints. A limb joint without a side is the left one."""
    return [SMPL_JOINTS.index(n if n in SMPL_JOINTS else f"left_{n}") for n in names]


# The vertices around a joint lie in a slab: its axis (x across, y up, z forward), half its thickness in metres, and the
# joints that move the skin in it. Left side and middle; the right side is the mirror image.
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
REACH = 0.22  # largest distance of a vertex from the joint, metres
MOST = 150  # largest number of vertices in a row; the face alone has a thousand


class Picker:
    """Finds vertices and regressor rows on the lighter mesh.

    A point is (3, 11): its place for the mean person, then how each beta moves it.
    """

    def __init__(self, shapes: Shapes, rig: Rig) -> None:
        self.shapes, self.rig = shapes, rig
        self.vertices = np.concatenate([shapes.template[..., None], shapes.directions], -1)  # (V, 3, 11)
        self.joints = np.concatenate([shapes.joints[..., None], shapes.joint_directions], -1)  # (24, 3, 11)
        self.main_joint = rig.weights.argmax(1)

    def vertex(self, bone: str, score: Array) -> int:
        """The vertex with the highest score (V,) among those that this bone of anny moves most."""
        return int(np.where(self.rig.bone_of == self.rig.bones.index(bone), score, -np.inf).argmax())

    def row(self, name: str, point: Array, ring: str) -> Array:
        """The row (V,) of joint ``name`` at ``point`` from the vertices in ``ring``, a key of RINGS."""
        axis, half, joints = RINGS[ring]
        offset = self.shapes.template - point[:, 0]
        moved = self.rig.weights[:, side_joints(*joints)].sum(1) > 0.5
        near = moved & (np.abs(offset[:, "xyz".index(axis)]) < half) & (np.linalg.norm(offset, axis=1) < REACH)
        if point[0, 0] > 0.05:
            near &= self.shapes.template[:, 0] > 0.0  # for a joint of the left side, only vertices of the left side
        found = np.flatnonzero(near)
        row = regressor_row(self.shapes, found[:: len(found) // MOST + 1], point[:, 0], point[:, 1:])
        miss = np.linalg.norm(np.einsum("v,vxk->xk", row, self.vertices)[:, 0] - point[:, 0])
        if miss > 0.01:
            raise InputError(f"joint {name}: the mean of the vertices around it is {miss * 100:.1f} cm away")
        return row

    def mirror(self, row: Array) -> Array:
        return row[self.rig.mirror]

    def joint_rows(self) -> Array:
        """J_regressor (24, V)."""
        rows = np.zeros((24, len(self.vertices)))
        for j, name in enumerate(SMPL_JOINTS):
            if name.startswith("right_"):
                rows[j] = self.mirror(rows[MIRRORED[j]])  # the left joint comes first in SMPL's order
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

        A name that is also an SMPL joint stands for that joint. The places of the other joints are our choice: the
        labels of pictures (LSP, MPII) and reflective markers (H36M) agree on them only to a few centimetres.
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
        """(V,) index into PARTS: hair, eyes and where clothes are."""
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

        # The hairline goes down from the forehead to the nape and leaves the ears free.
        head, eye, ear = moved_by == "head", self.shapes.template[picked["leye"]], self.shapes.template[picked["lear"]]
        slope = np.interp(z, [z[head].min(), eye[2]], [eye[1] - 0.11, eye[1] + 0.065])
        ears = np.hypot(y - ear[1], z - ear[2]) < 0.04
        part[head & (y > slope) & ~(ears & (np.abs(x) > ear[0] - 0.025))] = "hair"
        ball = np.isin(self.rig.bone_of, [self.rig.bones.index(b) for b in ("eye.L", "eye.R")]) & head
        part[ball] = "eyes"
        part[ball & (np.hypot(np.hypot(np.abs(x) - eye[0], y - eye[1]), z - eye[2]) < 0.006)] = "iris"
        return np.array([PARTS.index(p) for p in part], np.uint8)
