"""Meshes, a camera and a light in, an RGB picture out: a small software renderer in numpy and OpenCV.

No GPU, display or OpenGL library is needed (VTK crashes where libEGL is absent). Cameras are OpenCV's: x right, y down,
z forward; integer pixel coordinates are pixel centres. The world's y is up.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy import sparse

from glot.pictures.rasterizer import Hits, rasterize
from glot.pictures.surroundings import Light, Surroundings, View, backdrop


@dataclass
class Mesh:
    vertices: np.ndarray  # (V, 3) m, world
    faces: np.ndarray  # (F, 3)
    colours: np.ndarray  # (V, 3) 0-1
    face_to_vertex: sparse.csr_matrix  # (V, F), adds up the faces around each vertex
    casts_shadow: bool = True

    def normals(self) -> np.ndarray:
        """(V, 3) unit vertex normals: the mean of the faces around a vertex, weighted by their area."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        normals = self.face_to_vertex @ np.cross(b - a, c - a)
        return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


@dataclass(frozen=True)
class Snapshot:
    """``image`` (H, W, 3) uint8 RGB; ``labels`` (H, W) the number of the mesh, -1 without; ``depth`` (H, W)."""

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


class Scene:
    """Named meshes in front of one camera. ``supersample`` 2 gives smooth edges for about 2.5 times the time."""

    def __init__(self, width: int, height: int, *, supersample: int = 1) -> None:
        self.width, self.height, self.supersample = width, height, supersample
        self.light = Light()
        self.surroundings: Surroundings | None = None
        self.background = np.full((height, width, 3), 235, dtype=np.uint8)
        self.intrinsics = np.array(
            [[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], dtype=np.float64
        )
        self.world_to_camera = np.eye(4)
        self._meshes: dict[str, Mesh] = {}

    def set_camera(self, intrinsics: np.ndarray, world_to_camera: np.ndarray) -> None:
        """Sets K (3, 3), pixels, and the rigid transform (4, 4) from world to camera, metres."""
        self.intrinsics = np.asarray(intrinsics, dtype=np.float64)
        self.world_to_camera = np.asarray(world_to_camera, dtype=np.float64)

    def set_background(self, image: np.ndarray) -> None:
        """Sets the picture behind the meshes: (H, W, 3) uint8 RGB, or a colour (3,). ``surroundings`` replace it."""
        self.background = np.broadcast_to(np.asarray(image, dtype=np.uint8), (self.height, self.width, 3))

    def set_mesh(
        self, name: str, vertices: np.ndarray, faces: np.ndarray, *, colours: np.ndarray, casts_shadow: bool = True
    ) -> None:
        """Adds or replaces a mesh: vertices (V, 3) m, world; faces (F, 3), counter-clockwise seen from outside;
        colours (V, 3) or (3,), 0-1."""
        faces = np.asarray(faces, dtype=np.int64)
        count = len(faces)
        ones = np.ones(3 * count, dtype=np.float32)
        face_to_vertex = sparse.csr_matrix(
            (ones, (faces.ravel(), np.repeat(np.arange(count), 3))), shape=(len(vertices), count)
        )
        colours = np.broadcast_to(np.asarray(colours, dtype=np.float32), (len(vertices), 3))
        self._meshes[name] = Mesh(np.asarray(vertices, dtype=np.float32), faces, colours, face_to_vertex, casts_shadow)

    def update_mesh(self, name: str, vertices: np.ndarray, *, colours: np.ndarray | None = None) -> None:
        """Moves the vertices of a mesh, and may colour them anew. This is fast: nothing else is computed again."""
        self._meshes[name].vertices = np.asarray(vertices, dtype=np.float32)
        if colours is not None:
            self._meshes[name].colours = np.asarray(colours, dtype=np.float32)

    def remove_mesh(self, name: str) -> None:
        del self._meshes[name]

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self.snapshot().image

    def snapshot(self) -> Snapshot:
        """The picture, with the mesh and the depth at every pixel, from one pass."""
        picture = self._backdrop()
        hits, meshes = self._trace()
        shape = (self.height * self.supersample, self.width * self.supersample)
        labels, nearness = np.full(shape, -1, dtype=np.int16), np.zeros(shape, dtype=np.float32)
        if len(hits.pixel):
            sizes = [len(mesh.faces) for mesh in meshes]
            labels.reshape(-1)[hits.pixel] = np.repeat(np.arange(len(sizes), dtype=np.int16), sizes)[hits.triangle]
            nearness.reshape(-1)[hits.pixel] = hits.nearness
            colours, alpha = self._layer(hits, self._shade(hits, meshes))
            picture = np.clip(colours + picture * (1 - alpha[..., None]) + 0.5, 0, 255).astype(np.uint8)
        half = self.supersample // 2  # the sample next to the pixel's centre
        centres = (slice(half, None, self.supersample),) * 2
        with np.errstate(divide="ignore"):
            return Snapshot(picture, labels[centres], 1 / nearness[centres])

    def render_mask(self) -> np.ndarray:
        """(H, W) float32, the share of each pixel that meshes cover."""
        hits, _ = self._trace()
        return self._layer(hits, np.zeros((len(hits.pixel), 3), dtype=np.float32))[1]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) -> pixels (..., 2) and depths (...), metres."""
        local = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        depth = local[..., 2]
        image = local @ self.intrinsics.T
        return image[..., :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[..., None], depth

    def _trace(self) -> tuple[Hits, list[Mesh]]:
        """The nearest triangle under every pixel of the (supersampled) picture."""
        scale = self.supersample
        meshes = list(self._meshes.values())
        if not meshes:
            return Hits.none(), meshes
        points = np.concatenate([mesh.vertices for mesh in meshes])
        pixels, depth = self.project(points)
        pixels = pixels * scale + (scale - 1) / 2
        return rasterize(pixels, depth, _all_faces(meshes), self.width * scale, self.height * scale), meshes

    def _shade(self, hits: Hits, meshes: list[Mesh]) -> np.ndarray:
        """Colour (n, 3), 0-255, of the hits: wrapped diffuse key, fill, sky and ground light, and a little gloss."""
        attributes = np.concatenate([np.hstack([m.normals(), m.colours, m.vertices]) for m in meshes]).astype(
            np.float32
        )
        corners = attributes[_all_faces(meshes)[hits.triangle]]  # (n, 3 corners, 9)
        blended = np.einsum("nk,nkc->nc", hits.weights, corners)
        normal, colour, point = blended[:, :3], blended[:, 3:6], blended[:, 6:9]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        towards = np.asarray(self.light.direction, dtype=np.float32)
        towards /= np.linalg.norm(towards)
        eye = self._view().eye.astype(np.float32) - point
        eye /= np.linalg.norm(eye, axis=1, keepdims=True) + 1e-9
        facing = normal @ towards
        key = np.clip((facing + 0.25) / 1.25, 0, None)[:, None]
        fill = np.clip(normal @ (towards * np.array([-1, 0.3, -1], np.float32)), 0, None)[:, None]
        up = (0.5 + 0.5 * normal[:, 1])[:, None]
        lamp = self.light
        tints = [np.array(tint, dtype=np.float32) for tint in (lamp.key, lamp.fill, lamp.sky, lamp.ground)]
        light = key * tints[0] + fill * tints[1] + up * tints[2] + (1 - up) * tints[3]
        half = eye + towards
        half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-9
        gloss = lamp.gloss * np.clip((normal * half).sum(1), 0, 1) ** 24 * (facing > 0)
        return 255 * (colour * light + gloss[:, None].astype(np.float32))

    def _layer(self, hits: Hits, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour (H, W, 3) and coverage (H, W) of the hits at the picture's own resolution."""
        scale = self.supersample
        flat = np.zeros((self.height * scale * self.width * scale, 4), dtype=np.float32)
        flat[hits.pixel, :3] = np.clip(colours, 0, 255)
        flat[hits.pixel, 3] = 1
        layer: Any = flat.reshape(self.height * scale, self.width * scale, 4)
        if scale > 1:
            layer = cv2.resize(layer, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return layer[..., :3], layer[..., 3]

    def _backdrop(self) -> np.ndarray:
        """The surroundings with the meshes' soft shadows, or the plain background."""
        if self.surroundings is None:
            return self.background.copy()
        casting = [(mesh.vertices, mesh.faces) for mesh in self._meshes.values() if mesh.casts_shadow]
        return backdrop(self._view(), self.surroundings, self.light, casting=casting)

    def _view(self) -> View:
        return View(self.width, self.height, self.intrinsics, self.world_to_camera)


def _all_faces(meshes: list[Mesh]) -> np.ndarray:
    """(F, 3) faces of all meshes, which index the vertices of all meshes one after the other."""
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)])
