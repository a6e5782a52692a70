"""Khronos' validator finds no error, and the skin moves the mesh to where the body's vertices are."""

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.motion.gltf import skin_weights, steady_quaternions, vertex_normals, write_gltf
from glot.motion.person_motion import Y_UP, Motion, vertices, with_bodies
from tests.fixtures import synthetic_body
from tests.fixtures.motion import GAPPY, moving

COMPONENTS = {5126: "<f4", 5121: "u1", 5125: "<u4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
VALIDATE = """
const validator = require("gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


class Glb:
    """A .glb file read as the standard says, and its scene at a time."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack("<4sII", data[:12])
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack("<I4s", data[12:20])
        assert kind == b"JSON"
        self.tree: dict[str, Any] = json.loads(data[20 : 20 + size])
        rest = data[20 + size :]
        size, kind = struct.unpack("<I4s", rest[:8])
        assert kind == b"BIN\0" and len(rest) == 8 + size
        self.buffer = rest[8:]

    def values(self, accessor: int) -> np.ndarray:
        one = self.tree["accessors"][accessor]
        view = self.tree["bufferViews"][one["bufferView"]]
        width = WIDTHS[one["type"]]
        flat = np.frombuffer(
            self.buffer, COMPONENTS[one["componentType"]], count=one["count"] * width, offset=view["byteOffset"]
        )
        return flat.reshape(-1, width).astype(np.float64)

    def at(self, time: float) -> list[dict[str, Any]]:
        """The nodes at a time of the animation."""
        nodes = [dict(node) for node in self.tree["nodes"]]
        for channel in self.tree["animations"][0]["channels"]:
            sampler = self.tree["animations"][0]["samplers"][channel["sampler"]]
            times, values = self.values(sampler["input"])[:, 0], self.values(sampler["output"])
            before = int(np.clip(np.searchsorted(times, time + 1e-6) - 1, 0, len(times) - 1))
            after = min(before + 1, len(times) - 1)
            share = np.clip((time - times[before]) / max(times[after] - times[before], 1e-9), 0, 1)
            share = 0 if sampler["interpolation"] == "STEP" else share
            a, b = values[before], values[after]
            path = channel["target"]["path"]
            if path == "rotation":  # slerp as in the standard, along the shorter arc
                turn = Rotation.from_quat(a).inv() * Rotation.from_quat(b)
                value = (Rotation.from_quat(a) * Rotation.from_rotvec(share * turn.as_rotvec())).as_quat()
            else:
                value = a + share * (b - a)
            nodes[channel["target"]["node"]][path] = value
        return nodes

    def mesh(self, number: int, time: float) -> np.ndarray:
        """(V, 3) of the skinned mesh of one person, in the scene."""
        nodes = self.at(time)
        worlds: dict[int, np.ndarray] = {}

        def visit(index: int, above: np.ndarray) -> None:
            node = nodes[index]
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, :3] *= node.get("scale", [1, 1, 1])
            local[:3, 3] = node.get("translation", [0, 0, 0])
            worlds[index] = above @ local
            for child in node.get("children", []):
                visit(child, worlds[index])

        for root in self.tree["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        skinned = [node for node in nodes if "skin" in node][number]
        skin = self.tree["skins"][skinned["skin"]]
        attributes = self.tree["meshes"][skinned["mesh"]]["primitives"][0]["attributes"]
        binds = self.values(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([worlds[joint] for joint in skin["joints"]]) @ binds
        joints = self.values(attributes["JOINTS_0"]).astype(int)
        weights = self.values(attributes["WEIGHTS_0"])
        points = np.pad(self.values(attributes["POSITION"]), ((0, 0), (0, 1)), constant_values=1)
        return np.einsum("vk,vkab,vb->va", weights, moves[joints], points)[:, :3]


def of_one_shape(motion: Motion, body: Body) -> Motion:
    betas = np.tile(motion.betas.mean(axis=0), (len(motion), 1))
    return with_bodies(motion, body, rotmats=motion.rotmats, betas=betas, transl=motion.transl)


def test_the_skin_is_the_body(body: Body, tmp_path: Path) -> None:
    """The open body has no pose blendshapes and four joints a vertex: nothing is lost but rounding."""
    motion = of_one_shape(moving(body), body)
    write_gltf(tmp_path / "a.glb", [motion], body)
    file, wanted = Glb(tmp_path / "a.glb"), vertices(motion, body) @ Y_UP
    for row in range(len(motion)):
        np.testing.assert_allclose(file.mesh(0, GAPPY[row] / 25), wanted[row], rtol=0, atol=1e-4)
    assert (
        wanted[0, :, 1].max() - wanted[0, :, 1].min() > 1.2 and wanted[0, :, 2].max() < -1
    )  # upright, before the camera


def test_changing_betas_are_written_as_their_mean(body: Body, tmp_path: Path) -> None:
    motion = moving(body)
    write_gltf(tmp_path / "a.glb", [motion], body)
    gap = np.linalg.norm(Glb(tmp_path / "a.glb").mesh(0, GAPPY[4] / 25) - vertices(motion, body)[4] @ Y_UP, axis=-1)
    assert 1e-4 < gap.max() < 0.01


def test_the_error_of_four_joints_a_vertex_is_bounded(tmp_path: Path) -> None:
    """A made-up body with all 24 joints at every vertex and with pose blendshapes of centimetres."""
    other = load_body(synthetic_body.write(tmp_path))
    lost = 1 - np.sort(other.weights.numpy(), axis=1)[:, -4:].sum(axis=1)
    motion = of_one_shape(moving(other), other)
    write_gltf(tmp_path / "a.glb", [motion], other)
    gap = np.linalg.norm(Glb(tmp_path / "a.glb").mesh(0, GAPPY[2] / 25) - vertices(motion, other)[2] @ Y_UP, axis=-1)
    assert lost.max() > 0.01  # so the test has an error to bound
    assert np.median(gap) < 0.02 and gap.max() < 0.15


def test_weights_sum_to_one_and_name_each_joint_once(body: Body) -> None:
    joints, shares = skin_weights(body)
    assert np.abs(shares.sum(axis=1, dtype=np.float64) - 1).max() < 2e-7 and (shares >= 0).all()
    for row in range(0, len(joints), 97):
        used = joints[row][shares[row] > 0]
        assert len(set(used)) == len(used)
    dense = np.zeros_like(body.weights.numpy())
    np.add.at(dense, (np.arange(len(joints))[:, None], joints), shares)
    np.testing.assert_allclose(dense, body.weights.numpy(), atol=1e-4)


def test_quaternions_do_not_change_sign() -> None:
    turns = Rotation.from_rotvec(np.linspace(0, 20, 200)[:, None] * [[0.6, 0, 0.8]])
    found = steady_quaternions(turns.as_matrix())
    assert ((found[1:] * found[:-1]).sum(axis=1) > 0.99).all()
    np.testing.assert_allclose(Rotation.from_quat(found).as_matrix(), turns.as_matrix(), atol=1e-12)


def test_normals_point_outwards(body: Body) -> None:
    rest = body.template.numpy()
    normals = vertex_normals(rest, body.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    head = rest[:, 1] > np.quantile(rest[:, 1], 0.98)
    away = rest[head] - rest[head].mean(axis=0) + [0, 0.1, 0]
    assert ((away * normals[head]).sum(axis=1) > 0).mean() > 0.8


def test_people_come_and_go(body: Body, tmp_path: Path) -> None:
    early, late = moving(body, frames=range(6)), moving(body, person="2", frames=range(4, 10), seed=1)
    write_gltf(tmp_path / "a.glb", [early, late], body)
    file = Glb(tmp_path / "a.glb")
    tall = {t: [np.ptp(file.mesh(n, t / 25)[:, 1]) > 1 for n in (0, 1)] for t in (0, 4, 5, 6, 9)}
    assert tall == {0: [True, False], 4: [True, True], 5: [True, True], 6: [False, True], 9: [False, True]}
    assert [mesh["name"] for mesh in file.tree["meshes"]] == ["person 1", "person 2"]


def test_one_file_is_of_one_video(body: Body, tmp_path: Path) -> None:
    motion = moving(body, frames=range(3))
    with pytest.raises(InputError, match="one video"):
        write_gltf(tmp_path / "a.glb", [motion, replace(motion, fps=30.0)], body)
    with pytest.raises(InputError, match="nobody"):
        write_gltf(tmp_path / "a.glb", [], body)


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where node finds Khronos' gltf-validator."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text("{}")
    try:
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "gltf-validator@2.0.0-dev.3.10"],
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer in two minutes")
    if done.returncode:
        pytest.skip(f"npm cannot install gltf-validator: {done.stderr.strip()[-200:]}")
    return folder


def issues(folder: Path, file: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "-e", VALIDATE, str(file)], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


def test_khronos_validator_finds_nothing_wrong(validator: Path, body: Body, tmp_path: Path) -> None:
    people = [moving(body), moving(body, person="2", frames=range(5, 30), seed=1), moving(body, person="3", frames=[8])]
    for name, motions in {"three": people, "one": people[:1], "still": people[2:]}.items():
        write_gltf(tmp_path / f"{name}.glb", motions, body)
        found = issues(validator, tmp_path / f"{name}.glb")
        assert (found["numErrors"], found["numWarnings"]) == (0, 0), found["messages"]
    # It does find something in a file that is wrong.
    data = (tmp_path / "one.glb").read_bytes()
    (tmp_path / "wrong.glb").write_bytes(data.replace(b'"VEC4"', b'"VEC3"', 1))
    assert issues(validator, tmp_path / "wrong.glb")["numErrors"] > 0
