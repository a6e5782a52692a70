"""The shipped open body is a person: closed, symmetric, adult, its joints where joints are, its left on +x."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from glot.errors import InputError
from glot.human.body_files import OPEN_BODY
from glot.human.joints import EXTRA_JOINTS, SMPL_JOINTS, SMPL_PARENTS, VERTEX_JOINTS
from pipelines import make_body
from pipelines.open_body.anny_people import FLIP, MIRRORED
from pipelines.open_body.building import H36M_JOINTS
from pipelines.open_body.lighter_mesh import is_closed
from pipelines.open_body.spec import MakeBodySpec

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def stored() -> Arrays:
    with np.load(OPEN_BODY, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def body(stored: Arrays) -> Arrays:
    """The file as plain float64 arrays, restored here by the docstring's table and not by glot.human.body."""
    count = len(stored["v_template"])
    weights = np.zeros((count, 24))
    np.add.at(weights, (np.arange(count)[:, None], stored["weights_joint"]), stored["weights_value"] / 65535)
    out = {
        "template": stored["v_template"].astype(float),
        "shapes": stored["shapedirs"].astype(float),
        "faces": stored["f"].astype(int),
        "weights": weights,
    }
    for name, rows in (("J_regressor", 24), ("J_regressor_extra", 9), ("J_regressor_h36m", 17)):
        out[name] = np.zeros((rows, count))
        np.add.at(out[name], (stored[f"{name}_row"], stored[f"{name}_col"]), stored[f"{name}_value"])
    return out


@pytest.fixture(scope="module")
def mirror(body: Arrays) -> np.ndarray:
    return cKDTree(body["template"]).query(body["template"] * FLIP)[1]


def skeleton(body: Arrays, betas: np.ndarray) -> np.ndarray:
    return body["J_regressor"] @ (body["template"] + body["shapes"] @ betas)


def test_file_is_small_and_complete(stored: Arrays) -> None:
    count = len(stored["v_template"])
    assert OPEN_BODY.stat().st_size < 1.5e6
    assert 6500 < count < 7300
    assert stored["shapedirs"].shape == (count, 3, 10)
    assert stored["weights_joint"].shape == stored["weights_value"].shape == (count, 4)
    assert stored["mean_pose"].shape == (144,) and stored["mean_shape"].shape == (10,)
    assert np.array_equal(stored["mean_cam"], np.float32([0.9, 0, 0]))
    assert stored["kintree_table"][0, 1:].tolist() == list(SMPL_PARENTS[1:])
    assert stored["kintree_table"][0, 0] == 2**32 - 1
    assert all(
        array.dtype != object and np.isfinite(array).all() for array in stored.values() if array.dtype.kind in "fiu"
    )


def test_skinning_weights_sum_to_one_with_at_most_four(stored: Arrays, body: Arrays) -> None:
    assert (stored["weights_value"].astype(int).sum(1) == 65535).all()
    assert ((body["weights"] > 0).sum(1) <= 4).all()
    assert (body["weights"].max(0) > 0.4).all(), "a joint that hardly moves anything"


@pytest.mark.parametrize("name", ["J_regressor", "J_regressor_extra", "J_regressor_h36m"])
def test_regressor_rows_are_averages(stored: Arrays, body: Arrays, name: str) -> None:
    assert np.allclose(body[name].sum(1), 1, atol=1e-6)
    assert (body[name] >= 0).all()
    pairs = np.stack([stored[f"{name}_row"], stored[f"{name}_col"]], 1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_surface_is_closed_and_faces_outwards(body: Arrays) -> None:
    faces, template = body["faces"], body["template"]
    assert faces.min() == 0 and faces.max() == len(template) - 1
    assert is_closed(faces)
    assert 0.05 < volume(template, faces) < 0.09  # cubic metres, so 50-90 kg


def test_mesh_weights_and_shapes_mirror(body: Arrays, mirror: np.ndarray) -> None:
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.allclose(body["template"][mirror], body["template"] * FLIP, atol=1e-6)
    assert np.allclose(body["shapes"][mirror], body["shapes"] * FLIP[:, None], atol=1e-4)
    assert np.allclose(body["weights"][mirror][:, MIRRORED], body["weights"], atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_skeleton_is_a_tpose_with_left_on_plus_x(body: Arrays, seed: int) -> None:
    betas = np.random.default_rng(seed).uniform(-2, 2, 10) * (seed > 0)  # the first is the mean body
    place = dict(zip(SMPL_JOINTS, skeleton(body, betas), strict=True))
    assert np.linalg.norm(place["pelvis"]) < 0.03
    assert np.allclose(skeleton(body, betas)[MIRRORED] * FLIP, skeleton(body, betas), atol=0.005)
    upwards = ["left_foot", "left_ankle", "left_knee", "left_hip", "spine1", "spine2", "spine3", "neck", "head"]
    heights = [place[name][1] for name in upwards]
    assert heights == sorted(heights)
    outwards = ["spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand"]
    across = [place[name][0] for name in outwards]
    assert across == sorted(across) and across[-1] > 0.5
    arm = [place[name][1:] for name in outwards[2:]]
    assert np.ptp(arm, 0).max() < 0.02
    assert place["left_foot"][2] > place["left_ankle"][2] + 0.08  # toes point forward


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    corners = vertices[faces]
    return float(np.einsum("fx,fx->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def test_people_are_adults(body: Arrays) -> None:
    rng = np.random.default_rng(0)
    for betas in [np.zeros(10), *rng.uniform(-2, 2, (50, 10))]:
        vertices = body["template"] + body["shapes"] @ betas
        height = np.ptp(vertices[:, 1])
        assert 1.45 < height < 2.05
        assert 13 < 1000 * volume(vertices, body["faces"]) / height**2 < 40  # kg / m^2, at the density of water
        if not betas.any():
            assert 1.6 < height < 1.8


def test_every_joint_is_inside_the_limbs_skin(body: Arrays) -> None:
    joints, ring = skeleton(body, np.zeros(10)), body["weights"] > 0.3
    for j, name in enumerate(SMPL_JOINTS):
        skin = body["template"][ring[:, j]]
        assert (skin.min(0) - 0.02 < joints[j]).all() and (joints[j] < skin.max(0) + 0.02).all(), name


def test_extra_and_h36m_rows_land_where_their_names_say(body: Arrays) -> None:
    template, joints = body["template"], skeleton(body, np.zeros(10))
    extra = dict(zip(EXTRA_JOINTS, body["J_regressor_extra"] @ template, strict=True))
    h36m = dict(zip(H36M_JOINTS, body["J_regressor_h36m"] @ template, strict=True))
    for name in set(extra) & set(h36m):
        assert np.allclose(extra[name], h36m[name]), name
    for limb in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        for side, letter in (("left", "l"), ("right", "r")):
            assert np.linalg.norm(h36m[letter + limb] - joints[SMPL_JOINTS.index(f"{side}_{limb}")]) < 0.01
    column = ["hip", "Spine (H36M)", "thorax", "neck", "Jaw (H36M)", "Head (H36M)", "headtop"]
    heights = [extra[name][1] for name in column]
    assert heights == sorted(heights)
    assert np.abs([extra[name][0] for name in column]).max() < 1e-3
    assert template[:, 1].max() - extra["headtop"][1] < 0.02


def test_picked_vertices_are_on_the_right_spots(stored: Arrays, body: Arrays) -> None:
    place = dict(zip(VERTEX_JOINTS, body["template"][stored["vertex_joint_ids"]], strict=True))
    for name, point in place.items():
        if name == "nose":
            continue
        assert (point[0] > 0.02) == name.startswith(("l", "L")), name
        other = {"l": "r", "r": "l", "L": "R", "R": "L"}[name[0]] + name[1:]
        assert np.allclose(place[other], point * FLIP, atol=1e-5)
    assert place["nose"][2] > place["leye"][2] > place["lear"][2]
    assert place["leye"][1] > place["nose"][1]
    assert place["LBigToe"][2] > place["LSmallToe"][2] > 0 > place["LHeel"][2]
    assert place["LBigToe"][0] < place["LSmallToe"][0]
    fingers = [place[name][2] for name in ("lthumb", "lindex", "lmiddle", "lring", "lpinky")]
    assert fingers == sorted(fingers, reverse=True)  # palms down, thumbs forward


def test_every_part_is_worn_where_it_belongs(stored: Arrays, body: Arrays) -> None:
    parts = {name: body["template"][stored["vertex_part"] == i] for i, name in enumerate(stored["part_names"])}
    assert all(len(points) >= 10 for points in parts.values())
    height = {name: points[:, 1].mean() for name, points in parts.items()}
    assert height["hair"] > height["eyes"] > height["shirt"] > height["trousers"] > height["shoes"]


def test_mean_pose_is_rotations_seen_by_a_camera_with_y_down(stored: Arrays) -> None:
    pose = stored["mean_pose"].reshape(24, 3, 2).astype(float)
    assert np.allclose(np.einsum("jxa,jxb->jab", pose, pose), np.eye(2), atol=1e-6)
    assert np.allclose(pose[0], np.diag([1.0, -1.0, -1.0])[:, :2])
    arm = {s: pose[SMPL_JOINTS.index(f"{s}_shoulder")][:, 0] for s in ("left", "right")}  # where x goes
    assert arm["left"][1] < -0.5 and arm["right"][1] > 0.5  # both arms go down


@pytest.mark.parametrize(
    ("option", "value"), [("out", Path("body.pkl")), ("people", 10), ("vertices", 100), ("seed", -1)]
)
def test_options_that_cannot_be_used_are_named(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"--{option}"):
        MakeBodySpec(**{option: value})


def test_without_anny_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "anny", None)  # importing it raises, as if it were not installed
    monkeypatch.setattr(sys, "argv", ["make_body.py", "--out", str(tmp_path / "body.npz")])
    with pytest.raises(SystemExit) as stop:
        make_body.command()
    assert stop.value.code == 2
    assert "pip install anny" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
