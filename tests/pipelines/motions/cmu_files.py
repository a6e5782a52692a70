"""An invented person with the bones of the CMU database, and motions of them in all formats in which CMU's are shared.

The skeleton has the structure, axes and degrees of freedom of CMU's .asf files; the lengths are invented.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

UNIT = 0.0254 / 0.45  # metres
# bone: parent, bone at rest (the file's units; x left, y up, z forward), its axes in degrees, what a motion gives.
LEFT = {
    "lhipjoint": ("root", (1.6, -1.7, 0.8), (0, 0, 0), ""), "lfemur": ("lhipjoint", (2.4, -6.6, 0), (0, 0, 20), "xyz"),
    "ltibia": ("lfemur", (2.5, -6.9, 0), (0, 0, 20), "x"), "lfoot": ("ltibia", (0.1, -0.5, 2.1), (-90, 0, 20), "xz"),
    "ltoes": ("lfoot", (0, 0, 1.1), (-90, 0, 20), "x"), "lclavicle": ("thorax", (3.2, 1.3, -0.2), (0, 0, 0), "yz"),
    "lhumerus": ("lclavicle", (4.9, 0, 0), (180, -30, -90), "xyz"),
    "lradius": ("lhumerus", (3.4, 0, 0), (180, -30, -90), "x"), "lwrist": ("lradius", (1.7, 0, 0), (0, 90, 90), "y"),
    "lhand": ("lwrist", (0.7, 0, 0), (0, 90, 90), "xz"), "lfingers": ("lhand", (0.6, 0, 0), (0, 90, 90), "x"),
    "lthumb": ("lwrist", (0.5, 0, 0.5), (90, 45, 0), "xz"),
}  # fmt: skip
MIDDLE = {
    "lowerback": ("root", (0, 2.0, -0.1)),
    "upperback": ("lowerback", (0.1, 2.0, 0)),
    "thorax": ("upperback", (0, 2, 0)),
    "lowerneck": ("thorax", (0, 1.7, 0.2)),
    "upperneck": ("lowerneck", (0.1, 1.7, -0.1)),
    "head": ("upperneck", (0, 1.7, 0)),
}
# The order of the bones in CMU's motions; in skeletons they have another one.
ORDER = (
    "lowerback", "upperback", "thorax", "lowerneck", "upperneck", "head", "rhipjoint", "rfemur", "rtibia", "rfoot",
    "rtoes", "rclavicle", "rhumerus", "rradius", "rwrist", "rhand", "rfingers", "rthumb", "lclavicle", "lhumerus",
    "lradius", "lwrist", "lhand", "lfingers", "lthumb", "lhipjoint", "lfemur", "ltibia", "lfoot", "ltoes",
)  # fmt: skip


@dataclass(frozen=True)
class TestBone:
    """A bone of the invented skeleton; ``rest`` (3,) from its beginning to its end in the file's units."""

    __test__ = False
    parent: str
    rest: np.ndarray
    axis: tuple[float, ...]
    dof: str


def _bone(name: str) -> TestBone:
    if name in MIDDLE:
        return TestBone(MIDDLE[name][0], np.array(MIDDLE[name][1]), (0, 0, 0), "xyz")
    parent, rest, axis, dof = LEFT["l" + name[1:]]
    if name[0] == "l":
        return TestBone(parent, np.array(rest), axis, dof)
    parent = parent if parent in ("root", "thorax") else "r" + parent[1:]
    return TestBone(parent, np.array(rest) * [-1, 1, 1], (axis[0], -axis[1], -axis[2]), dof)


_NAMES = [*list(LEFT)[:5], *("r" + name[1:] for name in list(LEFT)[:5]), *MIDDLE]
_NAMES += [*list(LEFT)[5:], *("r" + name[1:] for name in list(LEFT)[5:])]
BONES = {name: _bone(name) for name in _NAMES}


def children(parent: str) -> list[str]:
    return [name for name, bone in BONES.items() if bone.parent == parent]


def random_motion(*, frames: int, seed: int = 0, scale: float = 25.0) -> dict[str, np.ndarray]:
    """Smooth angles (N, C), degrees, of each bone that moves; the root's first three are its place, in the file's
    units."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 120

    def waves(count: int) -> np.ndarray:
        phase, speed, middle = rng.uniform(0, 6, count), rng.uniform(2, 6, count), rng.uniform(-1, 1, count)
        return scale * (0.6 * middle + 0.4 * np.sin(speed * time + phase))

    root = np.concatenate([np.array([3.0, 17.5, -8.0]) + 0.02 * waves(3) * 2, waves(3)], axis=1)
    return {"root": root} | {name: waves(len(BONES[name].dof)) for name in ORDER if BONES[name].dof}


def turns_and_places(motion: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """World rotations (N, 3, 3) since rest of each bone, and where it begins, (N, 3) metres, by the definition of the
    format: a bone's angles follow each other, x first, about fixed axes that are the world's turned by its ``axis``."""

    def about(axis: str, degrees: np.ndarray) -> np.ndarray:
        a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        out = np.tile(np.eye(3), (len(degrees), 1, 1))
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        out[:, a, a], out[:, b, b], out[:, a, b], out[:, b, a] = cos, cos, -sin, sin
        return out

    def chained(axes: str, degrees: np.ndarray) -> np.ndarray:
        out = np.tile(np.eye(3), (len(degrees), 1, 1))
        for column, axis in enumerate(axes):
            out = about(axis, degrees[:, column]) @ out
        return out

    frames = len(motion["root"])
    turns = {"root": chained("xyz", motion["root"][:, 3:])}
    ends = {"root": motion["root"][:, :3]}
    starts = {"root": ends["root"]}
    waiting = list(BONES)
    while waiting:
        name = waiting.pop(0)
        bone = BONES[name]
        if bone.parent not in turns:
            waiting.append(name)
            continue
        own = chained("xyz", np.tile(bone.axis, (frames, 1)))
        angles = motion[name] if bone.dof else np.zeros((frames, 0))
        turns[name] = turns[bone.parent] @ own @ chained(bone.dof, angles) @ own.transpose(0, 2, 1)
        starts[name] = ends[bone.parent]
        ends[name] = starts[name] + turns[name] @ bone.rest
    return turns, {name: place * UNIT for name, place in starts.items()}


def asf_text() -> str:
    lines = [
        "# AST/ASF file generated using VICON BodyLanguage", "# -----------------------------------------------",
        ":version 1.10", ":name VICON", ":units", "  mass 1.0", "  length 0.45", "  angle deg", ":documentation",
        "   .ast/.asf automatically generated from VICON data using",
        "   VICON BodyBuilder and BodyLanguage model FoxedUp or BRILLIANT.MOD", ":root",
        "   order TX TY TZ RX RY RZ", "   axis XYZ", "   position 0 0 0  ", "   orientation 0 0 0 ", ":bonedata",
    ]  # fmt: skip
    for number, (name, bone) in enumerate(BONES.items(), 1):
        length = float(np.linalg.norm(bone.rest))
        direction = " ".join(f"{value:.9g}" for value in bone.rest / length)
        lines += ["  begin", f"     id {number} ", f"     name {name}", f"     direction {direction} "]
        lines += [f"     length {length:.9g} ", f"     axis {' '.join(f'{value:g}' for value in bone.axis)}  XYZ"]
        if bone.dof:
            lines.append(f"    dof {' '.join('r' + axis for axis in bone.dof)}")
            lines += ["    limits (-180.0 180.0)"] + ["           (-180.0 180.0)"] * (len(bone.dof) - 1)
        lines.append("  end")
    lines += [":hierarchy", "  begin"]
    for parent in ("root", *BONES):
        lines += [f"    {parent} {' '.join(children(parent))}"] if children(parent) else []
    return "\n".join([*lines, "  end"]) + "\n"


def amc_text(motion: dict[str, np.ndarray]) -> str:
    lines = ["#!OML:ASF F:\\VICON\\USERDATA\\INSTALL\\rory3\\rory3.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(motion["root"])):
        lines.append(str(frame + 1))
        lines += [f"{name} {' '.join(f'{value:.6f}' for value in motion[name][frame])}" for name in motion]
    return "\n".join(lines) + "\n"


def write_pair(folder: Path, *, subject: str = "01", trial: str = "01", frames: int = 48, seed: int = 0) -> Path:
    """``<subject>.asf`` and ``<subject>_<trial>.amc`` in ``folder``; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{subject}.asf").write_text(asf_text())
    file = folder / f"{subject}_{trial}.amc"
    file.write_text(amc_text(random_motion(frames=frames, seed=seed)))
    return file


# The joints of cgspeed's conversions in the files' order: (joint, bone that begins there, parent's joint).
MOTIONBUILDER = {
    "root": "Hips",
    "lowerback": "LowerBack",
    "upperback": "Spine",
    "thorax": "Spine1",
    "lowerneck": "Neck",
}
MOTIONBUILDER |= {"upperneck": "Neck1", "head": "Head"}
MAX = {"root": "Hips", "lowerback": "lowerback", "upperback": "Chest", "thorax": "Chest2", "lowerneck": "lowerneck"}
MAX |= {"upperneck": "Neck", "head": "Head"}
for _s, _side in (("l", "Left"), ("r", "Right")):
    _limbs = ["hipjoint", "femur", "tibia", "foot", "toes", "clavicle", "humerus", "radius", "wrist", "hand", "fingers"]
    _limbs.append("thumb")
    _mb = ("HipJoint", "UpLeg", "Leg", "Foot", "ToeBase", "Shoulder", "Arm", "ForeArm", "Hand", "FingerBase")
    _max = ("HipJoint", "Hip", "Knee", "Ankle", "Toe", "Collar", "Shoulder", "Elbow", "Wrist", "", "", "Thumb")
    for _bone_name, _joint in zip(_limbs, (*_mb, "HandIndex1", "Thumb"), strict=True):
        _short = _joint in ("HipJoint", "Thumb")
        MOTIONBUILDER[_s + _bone_name] = (_s.upper() if _short else _side) + _joint
    for _bone_name, _joint in zip(_limbs, _max, strict=True):
        _short = _joint in ("HipJoint", "Thumb")
        MAX[_s + _bone_name] = (_s.upper() if _short else _side) + _joint
    MAX |= {f"{_s}hand": f"{_s}hand", f"{_s}fingers": f"{_s.upper()}Fingers"}


def bvh_text(motion: dict[str, np.ndarray], *, names: dict[str, str], arms_down: bool, t_pose: bool) -> str:
    """The motion as cgspeed's BVH: CMU's bones, renamed. 3dsMax needs arms that hang when all angles are zero, and
    the order ZXY of their angles. A T-pose frame before the motion brings the legs together."""
    turns, places = turns_and_places(motion)
    down = {"l": Rotation.from_euler("z", -90, degrees=True), "r": Rotation.from_euler("z", 90, degrees=True)}

    def rest_turn(bone: str) -> Rotation:
        arm = bone[1:] in ("humerus", "radius", "wrist", "hand", "fingers", "thumb")
        return down[bone[0]] if arms_down and arm else Rotation.identity()

    lines, cells, first = ["HIERARCHY"], [places["root"] / UNIT], [places["root"][:1] / UNIT]

    def write(bone: str, depth: int) -> None:
        tabs, above = "\t" * depth, BONES[bone].parent if bone != "root" else ""
        # A bone on which several hang has no length in these files.
        rest = BONES[above].rest if above in BONES and len(children(above)) == 1 else np.zeros(3)
        order = "ZXY" if rest_turn(bone).magnitude() > 0 else "ZYX"
        lines.extend([f"{tabs}{'JOINT' if above else 'ROOT'} {names[bone]}", tabs + "{"])
        lines.append(f"{tabs}\tOFFSET " + " ".join(f"{value:.5f}" for value in rest_turn(above or "root").apply(rest)))
        channels = " ".join(f"{axis}rotation" for axis in order)
        head = "" if above else "Xposition Yposition Zposition "
        lines.append(f"{tabs}\tCHANNELS {3 if above else 6} {head}{channels}{'' if above else ' '}")
        world = Rotation.from_matrix(turns[bone]) * rest_turn(bone).inv()
        over = Rotation.from_matrix(turns[above]) * rest_turn(above).inv() if above else Rotation.identity()
        cells.append((over.inv() * world).as_euler(order, degrees=True))
        posed = {"lfemur": -20, "rfemur": 20}.get(bone, 0)
        local = rest_turn(above or "root") * Rotation.from_euler("z", posed, degrees=True) * rest_turn(bone).inv()
        first.append(local.as_euler(order, degrees=True)[None])
        for child in children(bone):
            write(child, depth + 1)
        if not children(bone):
            end = rest_turn(bone).apply(BONES[bone].rest)
            lines.extend([f"{tabs}\tEnd Site", tabs + "\t{", f"{tabs}\t\tOFFSET " + " ".join(f"{v:.5f}" for v in end)])
            lines.append(tabs + "\t}")
        lines.append(tabs + "}")

    write("root", 0)
    rows = np.concatenate(cells, axis=1)
    if t_pose:
        rows = np.concatenate([np.concatenate(first, axis=1), rows])
    lines += ["MOTION", f"Frames: {len(rows)}", "Frame Time: .0083333"]
    return "\n".join([*lines, *(" ".join(f"{value:.6f}" for value in row) for row in rows)]) + "\n"
