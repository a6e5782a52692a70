"""A motion in the format of cgspeed's BVH conversion of the CMU database for DAZ Studio: a figure with Poser's joints,
in centimetres, with a T-pose as its first frame. The lengths are invented."""

import numpy as np
from scipy.spatial.transform import Rotation

from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS
from pipelines.motions.motion_clip import MotionClip, resample

# joint: parent, offset in centimetres (x left, y up, z forward), SMPL's joint that turns as it does.
MIDDLE = {
    "hip": ("", (0, 0, 0), "pelvis"),
    "abdomen": ("hip", (0, 20, -1), "spine1"),
    "chest": ("abdomen", (0, 12, 0), "spine3"),
    "neck": ("chest", (0, 22, -2), "neck"),
    "head": ("neck", (0, 7, 1), "head"),
    "leftEye": ("head", (4, 8, 8), ""),
    "rightEye": ("head", (-4, 8, 8), ""),
}
LIMBS = {
    "Collar": ("chest", (3, 19, -5), "collar"), "Shldr": ("Collar", (9, -2, 1.5), "shoulder"),
    "ForeArm": ("Shldr", (28, 0, 0), "elbow"), "Hand": ("ForeArm", (23, 0, 0), "wrist"),
    "Thumb1": ("Hand", (1, 0, 3), ""), "Thumb2": ("Thumb1", (3, 0, 3), ""), "Index1": ("Hand", (8, 1, 6), ""),
    "Index2": ("Index1", (3, 0, 1), ""), "Mid1": ("Hand", (8, 1, 3), ""), "Mid2": ("Mid1", (3, 0, 1), ""),
    "Ring1": ("Hand", (9, 0, 1), ""), "Ring2": ("Ring1", (3, 0, 0), ""), "Pinky1": ("Hand", (8, 0, 0), ""),
    "Pinky2": ("Pinky1", (2, 0, 0), ""), "Buttock": ("hip", (9, 4, 1), ""), "Thigh": ("Buttock", (0, -2, -2), "hip"),
    "Shin": ("Thigh", (0, -37, 0), "knee"), "Foot": ("Shin", (0, -45, 0), "ankle"),
}  # fmt: skip


def daz_text(clip: MotionClip) -> str:
    """The clip at 120 fps, with the T-pose in front."""
    clip = resample(clip, fps=120)
    world: list[Rotation] = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = Rotation.from_rotvec(clip.poses[:, joint])
        world.append(world[parent] * local if joint else local)
    joints = {name: (above, np.array(offset, dtype=float), like) for name, (above, offset, like) in MIDDLE.items()}
    for side in "rl":
        for name, (above, offset, part) in LIMBS.items():
            like = f"{'left' if side == 'l' else 'right'}_{part}" if part else ""
            parent = above if above in MIDDLE else side + above
            joints[side + name] = (parent, np.array(offset) * [1 if side == "l" else -1, 1, 1], like)
    turns: dict[str, Rotation] = {}
    lines, cells = ["HIERARCHY"], [clip.trans * 100]

    def write(name: str, depth: int) -> None:
        above, offset, like = joints[name]
        space = "  " * depth
        turns[name] = world[SMPL_JOINTS.index(like)] if like else turns[above]
        order = "ZXY" if above else "ZYX"
        lines.extend([f"{space}{'JOINT' if above else 'ROOT'} {name}", space + "{"])
        lines.append(f"{space}  OFFSET " + " ".join(f"{value:g}" for value in offset))
        place = "" if above else "Xposition Yposition Zposition "
        channels = " ".join(f"{axis}rotation" for axis in order)
        lines.append(f"{space}  CHANNELS {3 if above else 6} {place}{channels}")
        local = turns[above].inv() * turns[name] if above else turns[name]
        cells.append(local.as_euler(order, degrees=True))
        children = [child for child, (parent, _, _) in joints.items() if parent == name]
        for child in children:
            write(child, depth + 1)
        if not children:
            lines.extend([f"{space}  End Site", space + "  {", f"{space}    OFFSET 1 0 0", space + "  }"])
        lines.append(space + "}")

    write("hip", 0)
    rows = np.concatenate(cells, axis=1)
    rows = np.concatenate([np.where(np.arange(rows.shape[1]) < 3, rows[:1], 0), rows])
    lines += ["MOTION", f"Frames: {len(rows)}", "Frame Time: 0.00833333"]
    return "\n".join([*lines, *(" ".join(f"{value:.6g}" for value in row) for row in rows)]) + "\n"
