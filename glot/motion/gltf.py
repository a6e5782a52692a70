"""Motions in; one animated glTF 2.0 file (.glb), which Blender, browsers and game engines open, out.

Metres, y up, z towards the camera. The video's camera is in the file: at the origin, looking along -z. Each person is a
mesh with the shape of the mean betas, skinned to SMPL's 24 joints. glTF blends linearly between at most four joints a
vertex. So SMPL's pose blendshapes are left out (the open body has none), and so is any change of betas between frames.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body
from glot.human.joints import JOINTS, SMPL_JOINTS, SMPL_PARENTS
from glot.location import write_whole
from glot.motion.person_motion import Motion

JOINTS_A_VERTEX = 4
COLOURS = (
    (0.45, 0.62, 0.90),
    (0.93, 0.60, 0.36),
    (0.50, 0.75, 0.48),
    (0.78, 0.56, 0.82),
    (0.86, 0.78, 0.42),
)  # linear RGB
FLOAT, UINT8, UINT32 = 5126, 5121, 5125
COMPONENTS = {FLOAT: np.float32, UINT8: np.uint8, UINT32: np.uint32}
VERTICES, FACES = 34962, 34963  # targets of a buffer view, as glTF numbers them
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def write_gltf(path: Path, motions: Sequence[Motion], body: Body) -> None:
    """Writes all people of one video, with the times of the video: frame f is at f / fps seconds.

    Players slerp between frames. Before the first and after the last frame of a person, the person has size 0.
    InputError if ``motions`` are not from one video.
    """
    if not motions:
        raise InputError("there is nobody to put into a glTF file; it needs at least one motion")
    if len({(each.fps, each.width, each.height, each.focal) for each in motions}) > 1:
        raise InputError("the people of one glTF file must be from one video: fps, size and focal length differ")
    first, last = min(each.frames[0] for each in motions), max(each.frames[-1] for each in motions)
    document = _Document()
    joints, shares = skin_weights(body)
    skinning = {
        "JOINTS_0": document.add(joints, UINT8, VERTICES),
        "WEIGHTS_0": document.add(shares, FLOAT, VERTICES),
    }
    faces = document.add(body.faces.reshape(-1, 1), UINT32, FACES)
    for number, motion in enumerate(motions):
        _add_person(document, motion, body, skinning, faces, colour=COLOURS[number % len(COLOURS)])
        _add_presence(document, motion, first=int(first), last=int(last))
    one = motions[0]
    lens = {"aspectRatio": one.width / one.height, "yfov": 2 * np.arctan(one.height / 2 / one.focal), "znear": 0.05}
    document.tree["cameras"] = [{"type": "perspective", "perspective": lens}]
    document.root({"name": "camera", "camera": 0})
    write_whole(path, document.glb())


def skin_weights(body: Body) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each vertex's four strongest joints (V, 4) and their weights (V, 4), which sum to one.

    SMPL and the open body have at most four joints a vertex, so their weights are complete.
    """
    weights = body.weights.numpy().astype(np.float64)
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :JOINTS_A_VERTEX]
    shares = np.take_along_axis(weights, joints, axis=1)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    shares[:, 0] = 1 - shares[:, 1:].sum(axis=1, dtype=np.float64)  # so that the rounded weights sum to one, too
    return np.where(shares > 0, joints, 0).astype(np.uint8), shares


class _Document:
    """The tree of a glTF file and its one buffer."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "glot"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
            "skins": [],
            "animations": [{"name": "video", "channels": [], "samplers": []}],
            "accessors": [],
            "bufferViews": [],
        }
        self.buffer = bytearray()

    def add(self, values: NDArray, component: int, target: int | None = None) -> int:
        """Values (N, k) -> the index of their accessor, which has their bounds where the format asks for them."""
        values = np.ascontiguousarray(values, COMPONENTS[component])
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": values.nbytes}
        self.tree["bufferViews"].append(view | ({"target": target} if target else {}))
        self.buffer += values.tobytes() + bytes(-values.nbytes % 4)
        accessor = {
            "bufferView": len(self.tree["bufferViews"]) - 1,
            "componentType": component,
            "count": len(values),
            "type": KINDS[values.shape[1]],
        }
        if component == FLOAT and values.shape[1] in (1, 3):  # positions and times must have bounds
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self.append("accessors", accessor)

    def append(self, group: str, value: dict[str, Any]) -> int:
        """Adds a value to a group of the tree; returns its index there."""
        self.tree[group].append(value)
        return len(self.tree[group]) - 1

    def root(self, node: dict[str, Any]) -> int:
        index = self.append("nodes", node)
        self.tree["scenes"][0]["nodes"].append(index)
        return index

    def animate(self, node: int, what: str, times: int, values: int, *, how: str = "LINEAR") -> None:
        animation = self.tree["animations"][0]
        animation["samplers"].append({"input": times, "output": values, "interpolation": how})
        target = {"node": node, "path": what}
        animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": target})

    def glb(self) -> bytes:
        self.tree["buffers"] = [{"byteLength": len(self.buffer)}]
        text = json.dumps(self.tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.buffer), b"BIN\0") + self.buffer
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _add_person(
    document: _Document, motion: Motion, body: Body, skinning: dict[str, int], faces: int, *, colour: tuple
) -> None:
    """Adds the mesh of a person, the skeleton, the skin and its animation."""
    vertices, rest = motion.at_rest(body)
    rotmats, pelvis = motion.y_up()
    name = f"person {motion.person}"
    material = {"name": name, "pbrMetallicRoughness": {
        "baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8,
    }}  # fmt: skip
    attributes = {
        "POSITION": document.add(vertices, FLOAT, VERTICES),
        "NORMAL": document.add(vertex_normals(vertices, body.faces), FLOAT, VERTICES),
    }
    primitive = {
        "attributes": attributes | skinning,
        "indices": faces,
        "material": document.append("materials", material),
    }
    mesh = document.append("meshes", {"name": name, "primitives": [primitive]})

    start = len(document.tree["nodes"])
    places = np.array([rest[joint] - rest[parent] if joint else pelvis[0]
                       for joint, parent in enumerate(SMPL_PARENTS)], np.float64)  # fmt: skip
    for joint, place in enumerate(places):
        below = [start + child for child, parent in enumerate(SMPL_PARENTS) if parent == joint]
        node = {"name": SMPL_JOINTS[joint], "translation": place.tolist()} | ({"children": below} if below else {})
        document.append("nodes", node) if joint else document.root(node)
    unbind = np.tile(np.eye(4), (JOINTS, 1, 1))
    unbind[:, :3, 3] = -rest
    skin = {
        "name": name,
        "skeleton": start,
        "joints": list(range(start, start + JOINTS)),
        "inverseBindMatrices": document.add(unbind.transpose(0, 2, 1).reshape(-1, 16), FLOAT),  # column by column
    }
    document.root({"name": f"{name} mesh", "mesh": mesh, "skin": document.append("skins", skin)})

    times = document.add((motion.frames / motion.fps)[:, None], FLOAT)
    document.animate(start, "translation", times, document.add(pelvis, FLOAT))
    for joint in range(JOINTS):
        document.animate(start + joint, "rotation", times, document.add(steady_quaternions(rotmats[:, joint]), FLOAT))


def _add_presence(document: _Document, motion: Motion, *, first: int, last: int) -> None:
    """Gives the person size 0 from frame ``first`` to the motion's first, and after its last to ``last``."""
    keys = [(first, 0)] if motion.frames[0] > first else []
    keys += [(int(motion.frames[0]), 1)]
    keys += [(int(motion.frames[-1]) + 1, 0)] if motion.frames[-1] < last else []
    if len(keys) > 1:
        pelvis = document.tree["skins"][-1]["skeleton"]
        times = document.add(np.array([[frame / motion.fps] for frame, _ in keys]), FLOAT)
        sizes = document.add(np.array([[size] * 3 for _, size in keys]), FLOAT)
        document.animate(pelvis, "scale", times, sizes, how="STEP")


def steady_quaternions(rotmats: NDArray) -> NDArray[np.float64]:
    """rotmats (N, 3, 3) -> unit quaternions (N, 4: x, y, z, w), with the sign that is nearer to the one before."""
    out = Rotation.from_matrix(rotmats).as_quat(canonical=True)
    flips = (out[1:] * out[:-1]).sum(axis=1) < 0
    out[1:][np.logical_xor.accumulate(flips)] *= -1
    return out


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """(V, 3), (F, 3) -> unit normals (V, 3): the mean over the faces of a vertex, by area; (0, 1, 0) without faces."""
    corners = vertices[faces].astype(np.float64)
    per_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(out, faces[:, corner], per_face)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
