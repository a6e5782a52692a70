"""pipelines/motions: all file formats give the same 24 joints; mirrored, resampled and joined clips obey their laws."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS
from pipelines.motions.deepmimic import FOLDER, JOINTS, convert_clip, convert_wheel
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import (
    FPS,
    MotionClip,
    heading,
    is_cycle,
    join,
    mirror,
    pose_distance,
    resample,
    turned,
)
from pipelines.motions.spec import MakeMotionsSpec

# Bones of a plain T-pose figure, metres: x left, y up, z forward.
REST = {
    "left_hip": (0.09, 0, 0), "left_knee": (0, -0.4, 0), "left_ankle": (0, -0.4, 0), "left_foot": (0, -0.055, 0.11),
    "spine1": (0, 0.1, 0), "spine2": (0, 0.13, 0), "spine3": (0, 0.06, 0), "neck": (0, 0.21, 0), "head": (0, 0.1, 0),
    "left_collar": (0.07, 0.12, 0), "left_shoulder": (0.12, 0.0247, 0), "left_elbow": (0.26, 0, 0),
    "left_wrist": (0.25, 0, 0), "left_hand": (0.08, 0, 0),
}  # fmt: skip
CMU = {
    "pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1", "neck": "Neck", "head": "Head",
    "hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase", "collar": "Shoulder", "shoulder": "Arm",
    "elbow": "ForeArm", "wrist": "Hand", "hand": "FingerBase",
}  # fmt: skip


def offset(name: str) -> np.ndarray:
    if name.startswith("right"):
        return np.array(REST[name.replace("right", "left")]) * [-1, 1, 1]
    return np.array(REST.get(name, (0, 0, 0)), dtype=float)


def places(poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """(N, 24, 3) joints of that figure."""
    turns, out = [], []
    for j, parent in enumerate(SMPL_PARENTS):
        local = Rotation.from_rotvec(poses[:, j])
        turns.append(local if j == 0 else turns[parent] * local)
        out.append(trans if j == 0 else out[parent] + turns[parent].apply(offset(SMPL_JOINTS[j])))
    return np.stack(out, axis=1)


def bvh_text(
    motion: MotionClip, *, rest: dict[str, Rotation], names: dict[str, str], unit: float, order: str = "ZYX"
) -> str:
    """The motion as a BVH whose zero pose is the T-pose with each joint's frame turned by ``rest`` (global)."""

    def called(j: int) -> str:
        side, _, part = SMPL_JOINTS[j].rpartition("_")
        return side.capitalize() + names[part] if side else names[part]

    frame = [rest.get(n, Rotation.identity()) for n in SMPL_JOINTS]
    lines = ["HIERARCHY"]

    def write(j: int) -> None:
        bone = offset(SMPL_JOINTS[j]) if j else np.zeros(3)
        # A bone is given in its parent's frame, so zero rotations show it turned by that frame.
        bone = frame[SMPL_PARENTS[j]].inv().apply(bone) if j else bone
        position = "Xposition Yposition Zposition " if j == 0 else ""
        lines.append(f"{'JOINT' if j else 'ROOT'} {called(j)} {{ OFFSET {' '.join(f'{v / unit:.6f}' for v in bone)}")
        lines.append(f"CHANNELS {6 if j == 0 else 3} {position}{' '.join(c + 'rotation' for c in order)}")
        columns.append(j)
        children = [k for k, parent in enumerate(SMPL_PARENTS) if parent == j]
        for child in children:
            write(child)
        lines.append("}" if children else "End Site { OFFSET 0 0 0 } }")

    columns: list[int] = []
    write(0)
    cells = [motion.trans / unit]
    for j in columns:
        above = frame[SMPL_PARENTS[j]] if j else Rotation.identity()
        local = above.inv() * Rotation.from_rotvec(motion.poses[:, j]) * frame[j]
        cells.append(local.as_euler(order, degrees=True))
    table = np.concatenate(cells, axis=1)
    lines += ["MOTION", f"Frames: {len(table)}", f"Frame Time: {1 / motion.fps:.7f}"]
    return "\n".join(lines + [" ".join(f"{v:.6f}" for v in row) for row in table]) + "\n"


@pytest.fixture(scope="module")
def shipped() -> dict[str, MotionClip]:
    return load_motions()


def test_the_shipped_clips_are_whole(shipped: dict[str, MotionClip]) -> None:
    assert len(shipped) == 20 and 34 < sum(len(m) for m in shipped.values()) / FPS < 45
    for motion in shipped.values():
        assert motion.poses.shape == (len(motion), 24, 3) and motion.poses.dtype == np.float32
        assert motion.trans.shape == (len(motion), 3) and motion.fps == 30
        assert np.linalg.norm(motion.poses, axis=-1).max() <= np.pi + 0.01
    assert is_cycle(shipped["walk"]) and not is_cycle(shipped["getup_faceup"])


def test_people_walk_forwards_upright_and_bend_the_right_way(shipped: dict[str, MotionClip]) -> None:
    walk = shipped["walk"]
    moved = walk.trans[-1] - walk.trans[0]
    assert moved[2] > 1 and abs(moved[0]) < 0.2
    assert abs(heading(walk.poses[10])) < 0.3
    joints = places(walk.poses, walk.trans)
    at = SMPL_JOINTS.index
    assert (joints[:, at("head"), 1] > joints[:, at("pelvis"), 1] + 0.4).all()
    for motion in (shipped["walk"], shipped["run"], shipped["dance_b"]):
        for side, sign in (("left", 1), ("right", -1)):
            assert motion.poses[:, at(f"{side}_knee"), 0].mean() > 0.1  # the shin goes back
            assert sign * motion.poses[:, at(f"{side}_elbow"), 1].mean() < -0.1  # the forearm comes forward
    # One arm swings with the other leg.
    leg = joints[:, at("left_ankle"), 2] - joints[:, at("right_ankle"), 2]
    arm = joints[:, at("left_wrist"), 2] - joints[:, at("right_wrist"), 2]
    assert np.corrcoef(leg, arm)[0, 1] < -0.5


def test_mirror(shipped: dict[str, MotionClip]) -> None:
    motion = shipped["kick"]
    twice = mirror(mirror(motion))
    np.testing.assert_array_equal(twice.poses, motion.poses)
    other = {"left": "right", "right": "left"}
    names = ["_".join(other.get(part, part) for part in name.split("_")) for name in SMPL_JOINTS]
    swapped = [SMPL_JOINTS.index(name) for name in names]
    there = places(mirror(motion).poses, mirror(motion).trans)
    np.testing.assert_allclose(there, places(motion.poses, motion.trans)[:, swapped] * [-1, 1, 1], atol=1e-5)


def test_turning_keeps_the_motion(shipped: dict[str, MotionClip]) -> None:
    motion = shipped["run"]
    other = turned(motion, yaw=1.2, to=np.array([3.0, -2.0]))
    np.testing.assert_allclose(other.trans[0, [0, 2]], [3, -2], atol=1e-6)
    a, b = places(motion.poses, motion.trans), places(other.poses, other.trans)
    np.testing.assert_allclose(np.linalg.norm(a[:, :, None] - a[:, None], axis=-1)[5],
                               np.linalg.norm(b[:, :, None] - b[:, None], axis=-1)[5], atol=1e-5)  # fmt: skip
    assert pose_distance(motion.poses[3], other.poses[3]) < 1e-3
    assert np.isclose(
        (heading(other.poses[0]) - heading(motion.poses[0]) + np.pi) % (2 * np.pi) - np.pi, 1.2, atol=1e-3
    )


def test_resampling_there_and_back(shipped: dict[str, MotionClip]) -> None:
    motion = shipped["walk"]
    double = resample(motion, fps=60)
    np.testing.assert_allclose(places(double.poses, double.trans)[::2], places(motion.poses, motion.trans), atol=1e-4)


def test_joined_clips_have_no_jump(shipped: dict[str, MotionClip]) -> None:
    for first, second in (("walk", "walk"), ("getup_faceup", "kick"), ("run", "dance_a")):
        both = join(shipped[first], shipped[second])
        joints = places(both.poses, both.trans)
        fastest = max(
            np.linalg.norm(np.diff(places(m.poses, m.trans), axis=0), axis=-1).max()
            for m in (shipped[first], shipped[second])
        )
        assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 1.5 * fastest + 0.02
        np.testing.assert_array_equal(both.poses[: len(shipped[first])], shipped[first].poses)


@pytest.mark.parametrize("style", ["T-pose", "arms down", "all bones along x"])
def test_bvh_gives_the_same_person(shipped: dict[str, MotionClip], tmp_path: Path, style: str) -> None:
    motion = shipped["run"]
    rest: dict[str, Rotation] = {}
    if style == "arms down":  # zero rotations leave the arms at an angle: what Mixamo calls an A-pose, and more
        for side, sign in (("left", 1), ("right", -1)):
            tilt = Rotation.from_euler("z", sign * 50, degrees=True)
            rest |= {f"{side}_{j}": tilt for j in ("shoulder", "elbow", "wrist", "hand")}
    if style == "all bones along x":  # LAFAN: every joint's x axis lies along its bone
        up, down = Rotation.from_euler("z", 90, degrees=True), Rotation.from_euler("z", -90, degrees=True)
        rest = {name: up for name in SMPL_JOINTS}
        for side in ("left", "right"):
            rest |= {f"{side}_{j}": down for j in ("hip", "knee")}
            arm = Rotation.from_euler("y", 0 if side == "left" else 180, degrees=True)
            rest |= {f"{side}_{j}": arm for j in ("collar", "shoulder", "elbow", "wrist", "hand")}
            foot = Rotation.align_vectors([offset(f"{side}_foot")], [[1, 0, 0]])[0]
            rest |= {f"{side}_{j}": foot for j in ("ankle", "foot")}
    file = tmp_path / "run.bvh"
    file.write_text(bvh_text(motion, rest=rest, names=CMU, unit=0.01))
    back = load_motions(file)["run"]
    assert len(back) == len(motion)
    tolerance = 0.002 if style == "T-pose" else 0.05  # the twist of a straight arm cannot be told from directions
    error = np.linalg.norm(places(back.poses, back.trans) - places(motion.poses, motion.trans), axis=-1)
    worst = SMPL_JOINTS[error.max(0).argmax()]
    assert error.max() < tolerance, (worst, error.max(0).round(3))


def test_a_z_up_amass_file(shipped: dict[str, MotionClip], tmp_path: Path) -> None:
    motion = shipped["walk"]
    to_z_up = Rotation.from_euler("x", 90, degrees=True)
    poses = np.zeros((len(motion), 156))
    poses[:, :66] = motion.poses.reshape(-1, 72)[:, :66]
    poses[:, :3] = (to_z_up * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
    np.savez(tmp_path / "w_poses.npz", poses=poses, trans=to_z_up.apply(motion.trans), betas=np.zeros(16),
             gender="male", mocap_framerate=30.0)  # fmt: skip
    back = load_motions(tmp_path)["w_poses"]
    np.testing.assert_allclose(
        places(back.poses, back.trans)[:, :22], places(motion.poses, motion.trans)[:, :22], atol=1e-4
    )


def test_an_npz_of_many_clips(shipped: dict[str, MotionClip], tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **{"a/poses": shipped["run"].poses.reshape(-1, 72), "a/trans": shipped["run"].trans})
    np.testing.assert_array_equal(load_motions(tmp_path / "m.npz")["a"].poses, shipped["run"].poses)


def test_files_without_motion_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 nothing more")
    (tmp_path / "cut.bvh").write_text("HIERARCHY\nROOT Hips {")
    np.savez(tmp_path / "pickled.npz", poses=np.array([{"a": 1}], dtype=object), trans=np.zeros((1, 3)))
    np.savez(tmp_path / "no_rate.npz", poses=np.zeros((5, 72)), trans=np.zeros((5, 3)))
    np.savez(tmp_path / "nan.npz", **{"a/poses": np.full((5, 72), np.nan), "a/trans": np.zeros((5, 3))})
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in (
        "missing.bvh",
        "empty",
        "a.txt",
        "cut.npz",
        "cut.bvh",
        "pickled.npz",
        "no_rate.npz",
        "nan.npz",
        "other.npz",
    ):
        with pytest.raises(InputError, match=name) as error:
            load_motions(tmp_path / name)
        assert "\n" not in str(error.value)


def test_deepmimic_arms_hang_at_rest_and_its_forward_becomes_plus_z() -> None:
    frame = np.zeros((3, 44))
    frame[:, 0] = 1 / 30
    frame[:, 1:4] = [[0, 0.9, 0], [0.1, 0.9, 0], [0.2, 0.9, 0.05]]  # walks along +x, its forward, then to its right
    at = 4
    for _, is_angle in JOINTS:
        frame[:, at] = 0 if is_angle else 1  # w of a quaternion
        at += 1 if is_angle else 4
    frame[:, 20] = -0.5  # the right knee, bent
    poses, trans = convert_clip({"Frames": frame.tolist()})
    np.testing.assert_allclose(trans[:, 2], [0, 0.1, 0.2], atol=1e-9)
    np.testing.assert_allclose(trans[:, 0], [0, 0, -0.05], atol=1e-9)
    joints = places(poses.reshape(-1, 24, 3), trans)[0]
    where = SMPL_JOINTS.index
    for side in ("left", "right"):
        down = joints[where(f"{side}_wrist")] - joints[where(f"{side}_shoulder")]
        np.testing.assert_allclose(down, [0, -0.51, 0], atol=1e-9)
    assert joints[where("right_ankle"), 2] < -0.15 and abs(joints[where("left_ankle"), 2]) < 1e-9


def test_without_a_wheel_the_command_that_fetches_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--wheel.*\n.*pip download --no-deps pybullet"):
        MakeMotionsSpec()
    with pytest.raises(InputError, match="--wheel other.whl.*pip download --no-deps pybullet"):
        MakeMotionsSpec(wheel=Path("other.whl"))
    Path("pybullet-3.2.7.whl").touch()
    assert MakeMotionsSpec().wheel == Path("pybullet-3.2.7.whl")
    with pytest.raises(InputError, match="--out clips.txt"):
        MakeMotionsSpec(out=Path("clips.txt"))


def test_a_wheel_becomes_a_file_of_clips(tmp_path: Path) -> None:
    frame = [1 / 30, 0, 0.9, 0, *(value for _, is_angle in JOINTS for value in ([0] if is_angle else [1, 0, 0, 0]))]
    with zipfile.ZipFile(tmp_path / "pybullet.whl", "w") as archive:
        archive.writestr(f"{FOLDER}humanoid3d_stand.txt", json.dumps({"Frames": [frame] * 4}))
        archive.writestr(f"{FOLDER}laikago_walk.txt", "a robot's clip, which is left out")
    spec = MakeMotionsSpec(wheel=tmp_path / "pybullet.whl", out=tmp_path / "clips.npz")
    assert convert_wheel(spec) == {"stand": 4}
    assert {name: len(clip) for name, clip in load_motions(spec.out).items()} == {"stand": 4}
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(InputError, match="is it a pybullet wheel"):
        convert_wheel(MakeMotionsSpec(wheel=tmp_path / "other.whl", out=spec.out))
