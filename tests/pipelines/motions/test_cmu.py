"""CMU's motions: ASF/AMC pairs and their BVH conversions become the same person, in metres, at 30 fps, facing +z."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.human.body import Body, load_body
from glot.human.joints import SMPL_JOINTS, SMPL_PARENTS
from glot.human.rotation import axis_angle_to_rotmat
from pipelines.motions.cmu_bones import rest_turns
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip, heading
from tests.fixtures.places import ROOT
from tests.pipelines.motions import cmu_files
from tests.pipelines.motions.daz_file import daz_text

AT = SMPL_JOINTS.index
REAL = ROOT.parent / "shared" / "data" / "motion" / "cmu_more_smpl24_30fps.npz"
BONES = (
    ("hip", "knee", "femur", "tibia"), ("knee", "ankle", "tibia", "foot"), ("ankle", "foot", "foot", "toes"),
    ("shoulder", "elbow", "humerus", "radius"), ("elbow", "wrist", "radius", "wrist"),
    ("wrist", "hand", "hand", "fingers"),
)  # fmt: skip


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def joints_of(body: Body, clip: MotionClip) -> np.ndarray:
    """(N, 24, 3) metres, the clip's world."""
    rotmats = axis_angle_to_rotmat(torch.from_numpy(clip.poses))
    joints = body.smpl_joints(rotmats, torch.zeros(len(clip), 10)).numpy()
    return joints - joints[:, :1] + clip.trans[:, None]


def world_of(clip: MotionClip) -> list[Rotation]:
    turns: list[Rotation] = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = Rotation.from_rotvec(clip.poses[:, joint])
        turns.append(turns[parent] * local if joint else local)
    return turns


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between directions (..., 3)."""
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.rad2deg(np.arccos(cosine.clip(-1, 1)))


def moved(tmp_path: Path, **angles: tuple[float, ...]) -> MotionClip:
    """A motion in which nothing moves except what is given, degrees; the root stands at a height of 17 units."""
    still = {name: 0 * values for name, values in cmu_files.random_motion(frames=8).items()}
    still["root"][:, 1] = 17
    for name, values in angles.items():
        still[name][:, -len(values) :] = values
    file = cmu_files.write_pair(tmp_path)
    file.write_text(cmu_files.amc_text(still))
    return load_motions(file)["01_01"]


def test_bones_point_where_the_sources_bones_point(body: Body, tmp_path: Path) -> None:
    clip = load_motions(cmu_files.write_pair(tmp_path, frames=61))["01_01"]
    assert len(clip) == 16 and clip.fps == 30, "every 4th of 120 frames a second"
    turns, places = cmu_files.turns_and_places(cmu_files.random_motion(frames=61))
    joints = joints_of(body, clip)
    for side in ("left", "right"):
        for start, end, bone, following in BONES:
            source = (places[side[0] + following] - places[side[0] + bone])[::4]
            here = joints[:, AT(f"{side}_{end}")] - joints[:, AT(f"{side}_{start}")]
            assert apart(source, here).max() < 0.2, (side, start)
    hips = 0.5 * (places["lfemur"] + places["rfemur"])[::4]
    np.testing.assert_allclose(joints[:, [AT("left_hip"), AT("right_hip")]].mean(1), hips, atol=1e-3)
    world = world_of(clip)
    for joint, bone in (("pelvis", "root"), ("spine1", "lowerback"), ("spine2", "upperback"), ("spine3", "thorax"),
                        ("head", "head"), ("left_collar", "lclavicle"), ("right_collar", "rclavicle")):  # fmt: skip
        error = world[AT(joint)] * Rotation.from_matrix(turns[bone][::4]).inv()
        assert error.magnitude().max() < 1e-3, joint
    neck = [(Rotation.from_matrix(turns[bone][::4]).inv() * world[AT("neck")]).magnitude()
            for bone in ("lowerneck", "upperneck")]  # fmt: skip
    np.testing.assert_allclose(neck[0], neck[1], atol=1e-4)


def test_at_rest_a_person_stands_upright_and_faces_plus_z(body: Body, tmp_path: Path) -> None:
    clip = moved(tmp_path)
    joints = joints_of(body, clip)[0]
    assert abs(heading(clip.poses[0])) < 1e-6
    assert joints[AT("left_hip"), 0] > 0.05 and joints[AT("left_wrist"), 0] > 0.5
    assert joints[AT("left_foot"), 2] > joints[AT("left_ankle"), 2] + 0.1
    assert joints[AT("head"), 1] > joints[AT("spine3"), 1] > joints[AT("pelvis"), 1] > joints[AT("left_knee"), 1]
    assert abs(joints[AT("pelvis"), 1] - (17 - 1.7) * 0.056444) < 0.02, "17 units are 96 cm; hips are 1.7 units lower"


@pytest.mark.parametrize("degrees", [20.0, 75.0])
def test_known_angles(body: Body, tmp_path: Path, degrees: float) -> None:
    still, clip = moved(tmp_path), moved(tmp_path, ltibia=(degrees,), rradius=(degrees,), root=(0, degrees, 0))
    changed = Rotation.from_rotvec(still.poses[0]).inv() * Rotation.from_rotvec(clip.poses[0])
    size = np.rad2deg(changed.magnitude())
    for joint in ("pelvis", "left_knee", "right_elbow"):
        assert abs(size[AT(joint)] - degrees) < 0.01, joint
    others = np.delete(size, [AT("pelvis"), AT("left_knee"), AT("right_elbow")])
    assert others.max() < 0.01
    assert abs(np.rad2deg(heading(clip.poses[0])) - degrees) < 0.01, "about y, from z to x"
    turned_back = MotionClip(clip.poses.copy(), clip.trans)
    turned_back.poses[:, 0] = 0
    joints, rest = joints_of(body, turned_back)[0], joints_of(body, still)[0]
    assert joints[AT("left_ankle"), 2] < rest[AT("left_ankle"), 2] - 0.1, "the shin goes back"
    assert joints[AT("right_wrist"), 2] > rest[AT("right_wrist"), 2] + 0.05, "the forearm comes forward"


@pytest.mark.parametrize("conversion", ["for MotionBuilder", "for 3dsMax"])
@pytest.mark.parametrize("t_pose", [False, True])
def test_cgspeeds_conversions_are_the_same_motion(tmp_path: Path, conversion: str, t_pose: bool) -> None:
    original = load_motions(cmu_files.write_pair(tmp_path, frames=48))["01_01"]
    names = cmu_files.MOTIONBUILDER if conversion == "for MotionBuilder" else cmu_files.MAX
    text = cmu_files.bvh_text(
        cmu_files.random_motion(frames=48), names=names, arms_down=names is cmu_files.MAX, t_pose=t_pose
    )
    file = tmp_path / "bvh" / "01_01.bvh"
    file.parent.mkdir()
    file.write_text(text)
    clip = load_motions(file)["01_01"]
    assert len(clip) == len(original) == 12 and clip.subject == original.subject == "01"
    error = Rotation.from_rotvec(clip.poses.reshape(-1, 3)).inv() * Rotation.from_rotvec(original.poses.reshape(-1, 3))
    assert np.rad2deg(error.magnitude()).max() < 0.1
    np.testing.assert_allclose(clip.trans, original.trans, atol=1e-3)


def test_the_conversion_for_daz_moves_alike(body: Body, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = load_motions(cmu_files.write_pair(tmp_path, frames=48))["01_01"]
    (tmp_path / "02_01.bvh").write_text(daz_text(original))
    clip = load_motions(tmp_path / "02_01.bvh")["02_01"]
    assert "centimetres; the first, a T-pose" in capsys.readouterr().err
    assert len(clip) == len(original) and clip.subject == "02"
    here, there = joints_of(body, clip), joints_of(body, original)
    for side in ("left", "right"):
        for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            bones = [joints[:, AT(f"{side}_{end}")] - joints[:, AT(f"{side}_{start}")] for joints in (here, there)]
            assert apart(*bones).max() < 3, (side, start)
    np.testing.assert_allclose(clip.trans, original.trans, atol=0.002)


@pytest.mark.skipif(not REAL.is_file(), reason="motions of the CMU database are not at hand")
def test_real_knees_and_elbows_turn_about_cmus_axes() -> None:
    # Knees and elbows of CMU's skeletons have one degree of freedom, and their axes are the same for all people.
    clips = load_motions(REAL)
    with np.load(REAL) as npz:
        kinds = dict(zip(npz["clips"].tolist(), npz["kinds"].tolist(), strict=True))
    originals = [clips[name] for name in clips if kinds[name] == "amc"]
    assert len(originals) > 20
    poses = np.concatenate([clip.poses for clip in originals])
    ends: dict[str, np.ndarray] = {}
    for name, bone in cmu_files.BONES.items():  # legs at 20 degrees, as in all of CMU's skeletons
        below = Rotation.from_euler("z", 20 if name[0] == "l" else -20, degrees=True).apply([0, -1, 0])
        straight = below if name[1:] in ("femur", "tibia") else bone.rest
        ends[name] = ends.get(bone.parent, np.zeros(3)) + straight
    fix = rest_turns({name: ends.get(bone.parent, np.zeros(3)) for name, bone in cmu_files.BONES.items()})
    for joint, above, bone in (("knee", "hip", "tibia"), ("elbow", "shoulder", "radius")):
        for side in ("left", "right"):
            own = Rotation.from_euler("xyz", cmu_files.BONES[side[0] + bone].axis, degrees=True)
            local = Rotation.from_rotvec(poses[:, AT(f"{side}_{joint}")])
            turn = own.inv() * fix[f"{side}_{above}"] * local * fix[f"{side}_{joint}"].inv() * own
            vectors = np.rad2deg(turn.as_rotvec())
            assert np.percentile(np.abs(vectors[:, 1:]), 99) < 1, (side, joint)
            assert np.ptp(vectors[:, 0]) > 60 and np.median(vectors[:, 0]) > 0


@pytest.mark.skipif(not REAL.is_file(), reason="motions of the CMU database are not at hand")
def test_real_clips_have_subjects_and_splits() -> None:
    clips = load_motions(REAL)
    with np.load(REAL) as npz:
        table = {
            c: (s, p) for c, s, p in zip(*(npz[key].tolist() for key in ("clips", "subjects", "splits")), strict=True)
        }
    assert {name: (clip.subject, clip.split) for name, clip in clips.items()} == table
    walk = next(clip for name, clip in clips.items() if name.startswith("35_") or "walk" in name)
    assert 0.7 < np.median(walk.trans[:, 1]) < 1.2, "metres"
