"""Motions out as one animated glTF 2.0 file (.glb): Blender, browsers and game engines open it.

Metres, y up, z towards the camera, which is in the file as it filmed: at the origin, looking along -z. Each person is a
mesh of the mean betas' shape, skinned to SMPL's 24 joints. Skins blend linearly between at most four joints a vertex:
SMPL's pose blendshapes are left out (the open body has none), and so are betas that change from frame to frame.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body
from glot.human.joints import JOINTS, SMPL_JOINTS, SMPL_PARENTS
from glot.location import write_whole
from glot.motion.person_motion import Y_UP, Motion

REACH = 4  # joints a vertex
COLOURS = ((0.45, 0.62, 0.90), (0.93, 0.60, 0.36), (0.50, 0.75, 0.48), (0.78, 0.56, 0.82), (0.86, 0.78, 0.42))  # linear
FLOAT, UINT8, UINT32 = 5126, 5121, 5125
COMPONENTS = {FLOAT: np.float32, UINT8: np.uint8, UINT32: np.uint32}
VERTICES, FACES = 34962, 34963  # what a buffer view is for
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def write_gltf(path: Path, motions: Sequence[Motion], body: Body) -> None:
    """All people of one video on its own clock: frame f stands at f / fps seconds, players slerp between frames.

    A person who comes later or leaves before the others has size 0 until and after then. InputError if ``motions`` are
    not of one video.
    """
    if not motions:
        raise InputError("there is nobody to put into a glTF file")
    if len({(each.fps, each.width, each.height, each.focal) for each in motions}) > 1:
        raise InputError("the people of one glTF file must be of one video: fps, size and focal length differ")
    first, last = min(each.frames[0] for each in motions), max(each.frames[-1] for each in motions)
    writer = _Writer()
    joints, shares = skin_weights(body)
    skinning = {
        "JOINTS_0": writer.add(joints, UINT8, VERTICES),
        "WEIGHTS_0": writer.add(shares, FLOAT, VERTICES),
    }
    faces = writer.add(body.faces.reshape(-1, 1), UINT32, FACES)
    for number, motion in enumerate(motions):
        _add_person(writer, motion, body, skinning, faces, colour=COLOURS[number % len(COLOURS)])
        _add_presence(writer, motion, first=int(first), last=int(last))
    one = motions[0]
    lens = {"aspectRatio": one.width / one.height, "yfov": 2 * np.arctan(one.height / 2 / one.focal), "znear": 0.05}
    writer.tree["cameras"] = [{"type": "perspective", "perspective": lens}]
    writer.root({"name": "camera", "camera": 0})
    write_whole(path, writer.glb())


def skin_weights(body: Body) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each vertex's four strongest joints (V, 4) and their weights (V, 4), which sum to one.

    SMPL's and the open body's own weights are of four joints already, so nothing is lost with them.
    """
    weights = body.weights.numpy().astype(np.float64)
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :REACH]
    shares = np.take_along_axis(weights, joints, axis=1)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    shares[:, 0] = 1 - shares[:, 1:].sum(axis=1, dtype=np.float64)  # to one after rounding, too
    return np.where(shares > 0, joints, 0).astype(np.uint8), shares


class _Writer:
    """A glTF tree and its one buffer."""

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
        """(N, k) -> the index of its accessor, with its bounds where the format wants them."""
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
        if component == FLOAT and values.shape[1] in (1, 3):  # positions and times must say where they end
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self.append("accessors", accessor)

    def append(self, group: str, value: dict[str, Any]) -> int:
        """-> its index in the group."""
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
    writer: _Writer, motion: Motion, body: Body, skinning: dict[str, int], faces: int, *, colour: tuple
) -> None:
    """Mesh, skeleton, skin and what moves it."""
    with torch.no_grad():
        vertices, rest = (
            values[0].numpy() for values in body.at_rest(torch.from_numpy(motion.betas.mean(axis=0, keepdims=True)))
        )
    name = f"person {motion.person}"
    material = {"name": name, "pbrMetallicRoughness": {
        "baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8,
    }}  # fmt: skip
    attributes = {
        "POSITION": writer.add(vertices, FLOAT, VERTICES),
        "NORMAL": writer.add(vertex_normals(vertices, body.faces), FLOAT, VERTICES),
    }
    primitive = {
        "attributes": attributes | skinning,
        "indices": faces,
        "material": writer.append("materials", material),
    }
    mesh = writer.append("meshes", {"name": name, "primitives": [primitive]})

    start = len(writer.tree["nodes"])
    places = np.array([rest[joint] - rest[parent] if joint else motion.joints3d[0, 0] @ Y_UP.T
                       for joint, parent in enumerate(SMPL_PARENTS)], np.float64)  # fmt: skip
    for joint, place in enumerate(places):
        below = [start + child for child, parent in enumerate(SMPL_PARENTS) if parent == joint]
        node = {"name": SMPL_JOINTS[joint], "translation": place.tolist()} | ({"children": below} if below else {})
        writer.append("nodes", node) if joint else writer.root(node)
    unbind = np.tile(np.eye(4), (JOINTS, 1, 1))
    unbind[:, :3, 3] = -rest
    skin = {
        "name": name,
        "skeleton": start,
        "joints": list(range(start, start + JOINTS)),
        "inverseBindMatrices": writer.add(unbind.transpose(0, 2, 1).reshape(-1, 16), FLOAT),  # column by column
    }
    writer.root({"name": f"{name} mesh", "mesh": mesh, "skin": writer.append("skins", skin)})

    times = writer.add((motion.frames / motion.fps)[:, None], FLOAT)
    writer.animate(start, "translation", times, writer.add(motion.joints3d[:, 0] @ Y_UP.T, FLOAT))
    turns = motion.rotmats.astype(np.float64)
    turns[:, 0] = Y_UP @ turns[:, 0]
    for joint in range(JOINTS):
        writer.animate(start + joint, "rotation", times, writer.add(steady_quaternions(turns[:, joint]), FLOAT))


def _add_presence(writer: _Writer, motion: Motion, *, first: int, last: int) -> None:
    """Size 0 while others are there and this person is not yet or no longer."""
    keys = [(first, 0)] if motion.frames[0] > first else []
    keys += [(int(motion.frames[0]), 1)]
    keys += [(int(motion.frames[-1]) + 1, 0)] if motion.frames[-1] < last else []
    if len(keys) > 1:
        pelvis = writer.tree["skins"][-1]["skeleton"]
        times = writer.add(np.array([[frame / motion.fps] for frame, _ in keys]), FLOAT)
        sizes = writer.add(np.array([[size] * 3 for _, size in keys]), FLOAT)
        writer.animate(pelvis, "scale", times, sizes, how="STEP")


def steady_quaternions(rotmats: NDArray) -> NDArray[np.float64]:
    """rotmats (N, 3, 3) -> unit quaternions (N, 4: x, y, z, w); of q and -q the one nearer to that before."""
    out = Rotation.from_matrix(rotmats).as_quat(canonical=True)
    flips = (out[1:] * out[:-1]).sum(axis=1) < 0
    out[1:][np.logical_xor.accumulate(flips)] *= -1
    return out


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """(V, 3), (F, 3) -> unit normals (V, 3): the faces' around a vertex, by their area; up where it has none."""
    corners = vertices[faces].astype(np.float64)
    per_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(out, faces[:, corner], per_face)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
