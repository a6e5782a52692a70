"""A Motion in; a BVH file, which animation programs open, out. (pipelines/motions/bvh_reader.py reads such files.)

Centimetres, y up, z towards the camera, which is at the origin. The skeleton has SMPL's 24 joints, with bones of the
person's mean betas. Its rest pose is a T-pose that faces +z.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glot.human.body import Body
from glot.human.joints import JOINTS, SMPL_JOINTS, SMPL_PARENTS
from glot.location import write_whole
from glot.motion.person_motion import Motion
from glot.motion.smoothing import fill_gaps

CENTIMETRES = 100.0
CHANNELS = "Zrotation Xrotation Yrotation"  # the most common order; some readers know no other
TIP = 0.08  # m from the last joint of a limb to its end, for programs that draw bones
CHILDREN = [[child for child, parent in enumerate(SMPL_PARENTS) if parent == joint] for joint in range(JOINTS)]


def write_bvh(path: Path, motion: Motion, body: Body) -> None:
    """Writes every frame from the first to the last; gaps are filled, so that the file has the video's frame rate.

    The pelvis is exact in every frame. The other joints differ from ``joints3d`` by as much as the bones of the
    frame's betas differ from the bones of the mean betas.
    """
    full = fill_gaps(motion, body)
    _, rest = motion.at_rest(body)
    lines = ["HIERARCHY"]
    order: list[int] = []
    _describe(0, rest * CENTIMETRES, 0, lines, order)
    rotmats, pelvis = full.y_up()
    angles = np.rad2deg(steady_angles(rotmats))[:, order].reshape(len(full), -1)
    lines += ["MOTION", f"Frames: {len(full)}", f"Frame Time: {1 / full.fps:.10f}"]
    lines += [
        " ".join(f"{value:.5f}" for value in row) for row in np.concatenate((pelvis * CENTIMETRES, angles), axis=1)
    ]
    write_whole(path, ("\n".join(lines) + "\n").encode())


def steady_angles(rotmats: NDArray) -> NDArray[np.float64]:
    """rotmats (N, J, 3, 3) = Rz(a) Rx(b) Ry(c) -> (N, J, 3: a, b, c) rad that do not jump from frame to frame.

    (a, b, c) and (a + pi, pi - b, c + pi), each plus whole turns, are the same rotation. The triple nearest to the
    triple of the frame before is taken.
    """
    middle = np.arctan2(rotmats[..., 2, 1], np.hypot(rotmats[..., 2, 0], rotmats[..., 2, 2]))
    first = np.arctan2(-rotmats[..., 0, 1], rotmats[..., 1, 1])
    out = np.empty((*middle.shape, 3))
    before = np.zeros((rotmats.shape[1], 3))
    for i, turns in enumerate(rotmats):
        # Where b is a quarter turn, only a + c or a - c is determined. Then a stays, and c is computed for that a.
        a = np.where(np.abs(np.cos(middle[i])) < 1e-6, before[:, 0], first[i])
        b = middle[i]
        # Row 0 of Rz(a)^T R is row 0 of Rx(b) Ry(c): (cos c, 0, sin c).
        row = np.cos(a)[:, None] * turns[:, 0] + np.sin(a)[:, None] * turns[:, 1]
        c = np.arctan2(row[:, 2], row[:, 0])
        both = np.stack((np.stack((a, b, c), -1), np.stack((a + np.pi, np.pi - b, c + np.pi), -1)))
        both -= 2 * np.pi * np.round((both - before) / (2 * np.pi))
        other = np.abs(both[1] - before).sum(-1) < np.abs(both[0] - before).sum(-1)
        out[i] = before = np.where(other[:, None], both[1], both[0])
    return out


def _describe(joint: int, rest: NDArray, depth: int, lines: list[str], order: list[int]) -> None:
    """Adds a joint and all joints below it to ``lines`` and, in the order of their channels, to ``order``.

    ``rest`` (24, 3) are the joints of the rest pose, cm.
    """
    tab, parent = "\t" * depth, SMPL_PARENTS[joint]
    bone = rest[joint] - rest[parent] if depth else np.zeros(3)  # the position channels alone place the root
    order.append(joint)
    lines += [f"{tab}{'JOINT' if depth else 'ROOT'} {SMPL_JOINTS[joint]}", f"{tab}{{", f"{tab}\t{_offset(bone)}"]
    lines.append(f"{tab}\tCHANNELS {'3' if depth else '6 Xposition Yposition Zposition'} {CHANNELS}")
    for child in CHILDREN[joint]:
        _describe(child, rest, depth + 1, lines, order)
    if not CHILDREN[joint]:
        tip = bone / np.linalg.norm(bone) * TIP * CENTIMETRES
        lines += [f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\t{_offset(tip)}", f"{tab}\t}}"]
    lines.append(f"{tab}}}")


def _offset(values: NDArray) -> str:
    return "OFFSET " + " ".join(f"{value:.5f}" for value in values)
