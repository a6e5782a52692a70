"""Meshes, a camera and a light in, an RGB picture out: a small software renderer in numpy and OpenCV.

No GPU, display or OpenGL library is needed (VTK crashes where libEGL is absent). Cameras are OpenCV's: x right, y down,
z forward; integer pixel coordinates are pixel centres. The world's y is up.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy import sparse

NEAR = 0.05  # metres; triangles that reach closer to the camera are left out


@dataclass(frozen=True)
class Light:
    """A distant key light, a weaker fill from the other side, and light from everywhere (sky above, ground below)."""

    direction: tuple[float, float, float] = (0.4, 0.8, 0.5)  # towards the key light, world; need not be a unit vector
    key: tuple[float, float, float] = (0.75, 0.73, 0.70)
    fill: tuple[float, float, float] = (0.18, 0.19, 0.22)
    sky: tuple[float, float, float] = (0.38, 0.40, 0.43)
    ground: tuple[float, float, float] = (0.22, 0.20, 0.18)
    gloss: float = 0.06
    shadow: float = 0.45  # how much of the ground's brightness the key shadow takes


@dataclass(frozen=True)
class Surroundings:
    """A textured floor at y = 0 and a far panorama.

    ``floor`` (h, h, 3) uint8 RGB covers ``floor_size`` metres round the origin and is repeated beyond; ``panorama``
    (h, w, 3) runs once round (left to right as one turns right), from 60 degrees up (top row) to 30 degrees down.
    """

    floor: np.ndarray
    panorama: np.ndarray
    floor_size: float = 24.0
    fade: float = 25.0  # metres after which the floor has mostly melted into the panorama


PANORAMA_UP, PANORAMA_DOWN = np.deg2rad(60.0), np.deg2rad(-30.0)
EDGE = 1e-4  # barycentric slack, so that float32 rounding leaves no cracks between neighbours
SHADOW_CELL = 0.025  # metres of the ground's shadow map


@dataclass
class _Mesh:
    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    face_to_vertex: sparse.csr_matrix
    casts_shadow: bool = True


@dataclass
class _Hits:
    """What the camera sees, one row a covered pixel: flat index, triangle, barycentric weights (n, 3), 1 / depth."""

    pixel: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray
    nearness: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """``image`` (H, W, 3) uint8 RGB; ``labels`` (H, W) the mesh seen, by order of adding, -1 none; ``depth`` (H, W)."""

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


class Scene:
    """Named meshes before one camera. ``supersample`` 2 gives smooth edges for about 2.5 times the time."""

    def __init__(self, width: int, height: int, *, supersample: int = 1) -> None:
        self.width, self.height, self.supersample = width, height, supersample
        self.light = Light()
        self.surroundings: Surroundings | None = None
        self.background = np.full((height, width, 3), 235, dtype=np.uint8)
        self.intrinsics = np.array(
            [[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], dtype=np.float64
        )
        self.world_to_camera = np.eye(4)
        self._meshes: dict[str, _Mesh] = {}
        self._pixels = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))

    def set_camera(self, intrinsics: np.ndarray, world_to_camera: np.ndarray) -> None:
        """K (3, 3) in pixels and a rigid (4, 4), metres."""
        self.intrinsics = np.asarray(intrinsics, dtype=np.float64)
        self.world_to_camera = np.asarray(world_to_camera, dtype=np.float64)

    def set_background(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB that meshes are drawn over, or one colour (3,); only seen without ``surroundings``."""
        self.background = np.broadcast_to(np.asarray(image, dtype=np.uint8), (self.height, self.width, 3))

    def set_mesh(
        self, name: str, vertices: np.ndarray, faces: np.ndarray, *, colours: np.ndarray, casts_shadow: bool = True
    ) -> None:
        """Adds or replaces a mesh: vertices (V, 3) m, world; faces (F, 3), counter-clockwise seen from outside;
        colours (V, 3) or (3,), 0-1."""
        faces = np.asarray(faces, dtype=np.int64)
        count = len(faces)
        ones = np.ones(3 * count, dtype=np.float32)
        spread = sparse.csr_matrix(
            (ones, (faces.ravel(), np.repeat(np.arange(count), 3))), shape=(len(vertices), count)
        )
        colours = np.broadcast_to(np.asarray(colours, dtype=np.float32), (len(vertices), 3))
        self._meshes[name] = _Mesh(np.asarray(vertices, dtype=np.float32), faces, colours, spread, casts_shadow)

    def update_mesh(self, name: str, vertices: np.ndarray) -> None:
        """Moves the vertices of a mesh; cheap, nothing is rebuilt."""
        self._meshes[name].vertices = np.asarray(vertices, dtype=np.float32)

    def remove_mesh(self, name: str) -> None:
        del self._meshes[name]

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self.snapshot().image

    def snapshot(self) -> "Snapshot":
        """The picture together with what is seen where, from one pass."""
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

    def _trace(self) -> tuple[_Hits, list[_Mesh]]:
        """The nearest triangle under every pixel of the (supersampled) picture."""
        scale = self.supersample
        meshes = list(self._meshes.values())
        if not meshes:
            none = np.zeros(0, dtype=np.int64)
            return _Hits(none, none, np.zeros((0, 3), dtype=np.float32), none.astype(np.float32)), meshes
        offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
        points = np.concatenate([mesh.vertices for mesh in meshes])
        faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)])
        pixels, depth = self.project(points)
        pixels = pixels * scale + (scale - 1) / 2
        return _rasterize(pixels, depth, faces, self.width * scale, self.height * scale), meshes

    def _shade(self, hits: _Hits, meshes: list[_Mesh]) -> np.ndarray:
        """Colour (n, 3), 0-255, of the hits: wrapped diffuse key, fill, sky and ground light, and a little gloss."""
        offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
        faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)])
        attributes = np.concatenate([np.hstack([_normals(m), m.colours, m.vertices]) for m in meshes]).astype(
            np.float32
        )
        corners = attributes[faces[hits.triangle]]  # (n, 3 corners, 9)
        blended = np.einsum("nk,nkc->nc", hits.weights, corners)
        normal, colour, point = blended[:, :3], blended[:, 3:6], blended[:, 6:9]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        towards = np.asarray(self.light.direction, dtype=np.float32)
        towards /= np.linalg.norm(towards)
        eye = (-self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]).astype(np.float32) - point
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

    def _layer(self, hits: _Hits, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
        """The floor (with the meshes' soft shadows) and the panorama, or the plain background."""
        around = self.surroundings
        if around is None:
            return self.background.copy()
        to_world = self.world_to_camera[:3, :3].T
        eye = -to_world @ self.world_to_camera[:3, 3]
        to_rays = to_world @ np.linalg.inv(self.intrinsics)  # (u, v, 1) -> direction, world
        panorama = self._panorama(around, to_rays)
        if eye[1] < 0.02:
            return panorama
        x, y = self._pixels
        falling = -(to_rays[1, 0] * x + to_rays[1, 1] * y + to_rays[1, 2]).astype(np.float32)
        size = around.floor.shape[0] / around.floor_size  # texture pixels a metre
        # Pixel -> point on the floor -> texture pixel, as one homography: p = eye - d * eye_y / d_y.
        to_floor = np.stack(
            [eye[0] * -to_rays[1] + eye[1] * to_rays[0], eye[2] * -to_rays[1] + eye[1] * to_rays[2], -to_rays[1]]
        )
        centre = (around.floor.shape[0] - 1) / 2
        to_texture = np.array([[size, 0, centre], [0, size, centre], [0, 0, 1]]) @ to_floor
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shape = (self.width, self.height)
        # Not BORDER_REFLECT: OpenCV reflects step by step, which takes seconds near the horizon.
        floor = cv2.warpPerspective(around.floor, to_texture, shape, flags=flags, borderMode=cv2.BORDER_WRAP)
        shade = self._shadow(to_floor, shape)
        # A ray that falls by d_y a unit of depth meets the floor at depth eye_y / d_y.
        share = np.exp(-np.square(float(eye[1] / around.fade) / np.maximum(falling, 1e-6))) * (falling > 0)
        picture: Any = cv2.multiply(panorama, cv2.merge([1 - share] * 3), dtype=cv2.CV_32F)
        picture += cv2.multiply(floor, cv2.merge([share * shade] * 3), dtype=cv2.CV_32F)
        return cv2.convertScaleAbs(picture)

    def _panorama(self, around: Surroundings, to_rays: np.ndarray) -> np.ndarray:
        step = 8  # directions vary slowly: every 8th pixel is computed, the rest interpolated
        x = np.arange(0, self.width + step, step, dtype=np.float64)
        y = np.arange(0, self.height + step, step, dtype=np.float64)
        rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1) @ to_rays.T
        ahead = np.arctan2(
            to_rays[0] @ [self.width / 2, self.height / 2, 1], to_rays[2] @ [self.width / 2, self.height / 2, 1]
        )
        yaw = np.arctan2(rays[..., 0], rays[..., 2]) - ahead
        yaw = (yaw + np.pi) % (2 * np.pi) - np.pi + ahead % (2 * np.pi)
        level = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
        height, width = around.panorama.shape[:2]
        u = (width - yaw / (2 * np.pi) * width).astype(np.float32)  # yaw grows to the left, the picture to the right
        v = ((PANORAMA_UP - level) / (PANORAMA_UP - PANORAMA_DOWN) * (height - 1)).astype(np.float32)
        grid = np.array([[1 / step, 0, 0], [0, 1 / step, 0]], dtype=np.float32)
        u, v = (
            cv2.warpAffine(m, grid, (self.width, self.height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            for m in (u, v)
        )
        return cv2.remap(
            around.panorama, u % width, np.clip(v, 0, height - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )

    def _shadow(self, to_floor: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 in 0-1 that the floor's colour is multiplied with: each mesh laid flat along the key light."""
        shade = np.ones((self.height, self.width), dtype=np.float32)
        direction = np.asarray(self.light.direction, dtype=np.float64)
        if self.light.shadow <= 0 or direction[1] <= 0.05:
            return shade
        slope = (direction[[0, 2]] / direction[1]).astype(np.float32)
        for mesh in self._meshes.values():
            if not mesh.casts_shadow:
                continue
            flat = mesh.vertices[:, [0, 2]] - mesh.vertices[:, 1:2] * slope
            low = flat.min(0) - 0.4
            cells = np.round((flat - low) / SHADOW_CELL).astype(np.int64)
            size = np.minimum(cells.max(0) + 17, 800)
            mask = np.zeros((size[1], size[0]), dtype=np.float32)
            if len(mesh.faces) > 2000:  # fine enough for its vertices alone to leave no holes
                inside = (cells < size).all(1)
                mask[cells[inside, 1], cells[inside, 0]] = 1
                mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
            else:
                for triangle in cells[mesh.faces].clip(-(2**14), 2**14).astype(np.int32):
                    cv2.fillConvexPoly(mask, triangle, 1.0)
            mask = cv2.GaussianBlur(mask, (0, 0), 2.0)
            to_mask = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, SHADOW_CELL]]) @ to_floor
            dark = cv2.warpPerspective(mask, to_mask, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            shade *= 1 - self.light.shadow * dark
        return shade


def _normals(mesh: _Mesh) -> np.ndarray:
    """(V, 3) unit vertex normals: the mean of the faces round a vertex, weighted by their area."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    normals = mesh.face_to_vertex @ np.cross(b - a, c - a)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


def _rasterize(pixels: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> _Hits:
    """Which triangle covers which pixel centre, nearest first. pixels (V, 2), depth (V,), faces (F, 3)."""
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    doubled_area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.ceil(np.minimum(np.minimum(a, b), c)).clip(0, None)
    high = np.floor(np.maximum(np.maximum(a, b), c)).clip(None, [width - 1, height - 1])
    # Outside is counter-clockwise with y up, so with y down a face that looks at us has a negative area.
    seen = (doubled_area < -1e-9) & (high >= low).all(1) & (depth[faces] > NEAR).all(1)
    which = np.flatnonzero(seen)
    a, b, c, low, area = a[which], b[which], c[which], low[which].astype(np.int64), doubled_area[which]
    span = high[which].astype(np.int64) - low + 1
    # Weights of corners a and b, and 1/depth, are affine in pixel coordinates; relative to the box corner for accuracy.
    inverse = 1 / depth[faces[which]]
    wa = np.stack([b[:, 1] - c[:, 1], c[:, 0] - b[:, 0], (b[:, 0] - low[:, 0]) * (c[:, 1] - low[:, 1])
                   - (b[:, 1] - low[:, 1]) * (c[:, 0] - low[:, 0])], axis=1) / area[:, None]  # fmt: skip
    wb = np.stack([c[:, 1] - a[:, 1], a[:, 0] - c[:, 0], (c[:, 0] - low[:, 0]) * (a[:, 1] - low[:, 1])
                   - (c[:, 1] - low[:, 1]) * (a[:, 0] - low[:, 0])], axis=1) / area[:, None]  # fmt: skip
    count = span[:, 0] * span[:, 1]
    owner = np.repeat(np.arange(len(which)), count)
    ends = np.cumsum(count)
    inside_box = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
    y, x = np.divmod(inside_box, np.repeat(span[:, 0], count))
    table = np.hstack([wa, wb]).astype(np.float32)[owner]
    x_, y_ = x.astype(np.float32), y.astype(np.float32)
    first = table[:, 0] * x_ + table[:, 1] * y_ + table[:, 2]
    second = table[:, 3] * x_ + table[:, 4] * y_ + table[:, 5]
    keep = np.flatnonzero((first >= -EDGE) & (second >= -EDGE) & (first + second <= 1 + EDGE))
    owner, first, second = owner[keep], first[keep], second[keep]
    pixel = (low[owner, 1] + y[keep]) * width + low[owner, 0] + x[keep]
    weights = np.stack([first, second, 1 - first - second], axis=1) * inverse[owner].astype(np.float32)
    nearness = weights.sum(1)
    assert nearness.dtype == np.float32  # the comparison below must be of equal types
    nearest = np.zeros(width * height, dtype=np.float32)
    np.maximum.at(nearest, pixel, nearness)
    winners = np.flatnonzero(nearness == nearest[pixel])
    # Two triangles at the very same depth (a shared edge): the later one.
    last = np.full(width * height, -1, dtype=np.int64)
    last[pixel[winners]] = winners
    winners = last[last >= 0]
    return _Hits(pixel[winners], which[owner[winners]], weights[winners] / nearness[winners, None], nearness[winners])
