"""A camera, a floor, a panorama and a light in; the picture behind the meshes, with their shadows on the floor, out.

The world's y is up and its floor is at y = 0, metres. Cameras are OpenCV's: x right, y down, z forward.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

PANORAMA_UP, PANORAMA_DOWN = np.deg2rad(60.0), np.deg2rad(-30.0)
PANORAMA_STEP = 8  # px: directions vary slowly, so every 8th pixel is computed and the rest interpolated
LOWEST_EYE = 0.02  # m above the floor; for a lower camera, no floor is drawn
SHADOW_CELL = 0.025  # metres, width of a cell of the floor's shadow map
WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True)
class Light:
    """A distant key light, a weaker fill from the other side, and light from everywhere (sky above, ground below)."""

    direction: tuple[float, float, float] = (0.4, 0.8, 0.5)  # towards the key light, world; need not be a unit vector
    key: tuple[float, float, float] = (0.75, 0.73, 0.70)
    fill: tuple[float, float, float] = (0.18, 0.19, 0.22)
    sky: tuple[float, float, float] = (0.38, 0.40, 0.43)
    ground: tuple[float, float, float] = (0.22, 0.20, 0.18)
    gloss: float = 0.06
    shadow: float = 0.45  # share of the ground's brightness that the key light's shadow removes


@dataclass(frozen=True)
class Surroundings:
    """A textured floor at y = 0 and a far panorama.

    ``floor`` (h, h, 3) uint8 RGB covers ``floor_size`` metres around the origin and is repeated beyond; ``panorama``
    (h, w, 3) covers one full turn to the right (from left to right), from 60 degrees up (top row) to 30 degrees down.
    """

    floor: np.ndarray
    panorama: np.ndarray
    floor_size: float = 24.0
    fade: float = 25.0  # distance in metres at which most of the floor has faded into the panorama


@dataclass(frozen=True)
class View:
    """The camera of a picture: the size in px, K (3, 3) in px, and a rigid (4, 4) from world to camera, metres."""

    width: int
    height: int
    intrinsics: np.ndarray
    world_to_camera: np.ndarray

    @property
    def eye(self) -> np.ndarray:
        """(3,) m, the camera in the world."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    @property
    def to_rays(self) -> np.ndarray:
        """(3, 3): (u, v, 1) px -> direction in the world, of depth 1."""
        return self.world_to_camera[:3, :3].T @ np.linalg.inv(self.intrinsics)


def backdrop(
    view: View, around: Surroundings, light: Light, *, casting: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """(H, W, 3) uint8 RGB: panorama and floor. ``casting``: vertices (V, 3) m and faces (F, 3) that cast shadows."""
    eye, to_rays = view.eye, view.to_rays
    panorama = _panorama(view, around.panorama, to_rays)
    if eye[1] < LOWEST_EYE:
        return panorama
    x = np.arange(view.width, dtype=np.float32)[None, :]
    y = np.arange(view.height, dtype=np.float32)[:, None]
    falling = -(to_rays[1, 0] * x + to_rays[1, 1] * y + to_rays[1, 2]).astype(np.float32)
    size = around.floor.shape[0] / around.floor_size  # texture pixels a metre
    # Pixel -> point on the floor -> texture pixel, as one homography: p = eye - d * eye_y / d_y.
    to_floor = np.stack(
        [eye[0] * -to_rays[1] + eye[1] * to_rays[0], eye[2] * -to_rays[1] + eye[1] * to_rays[2], -to_rays[1]]
    )
    centre = (around.floor.shape[0] - 1) / 2
    to_texture = np.array([[size, 0, centre], [0, size, centre], [0, 0, 1]]) @ to_floor
    shape = (view.width, view.height)
    # Not BORDER_REFLECT: OpenCV reflects step by step, which takes seconds near the horizon.
    floor = cv2.warpPerspective(around.floor, to_texture, shape, flags=WARP, borderMode=cv2.BORDER_WRAP)
    shade = _shadow(light, casting, to_floor, shape)
    # A ray that falls by d_y a unit of depth meets the floor at depth eye_y / d_y.
    share = np.exp(-np.square(float(eye[1] / around.fade) / np.maximum(falling, 1e-6))) * (falling > 0)
    picture: Any = cv2.multiply(panorama, cv2.merge([1 - share] * 3), dtype=cv2.CV_32F)
    picture += cv2.multiply(floor, cv2.merge([share * shade] * 3), dtype=cv2.CV_32F)
    return cv2.convertScaleAbs(picture)


def _panorama(view: View, panorama: np.ndarray, to_rays: np.ndarray) -> np.ndarray:
    """(H, W, 3) the part of the panorama that the camera sees."""
    step = PANORAMA_STEP
    x = np.arange(0, view.width + step, step, dtype=np.float64)
    y = np.arange(0, view.height + step, step, dtype=np.float64)
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1) @ to_rays.T
    middle = [view.width / 2, view.height / 2, 1]
    ahead = np.arctan2(to_rays[0] @ middle, to_rays[2] @ middle)
    yaw = np.arctan2(rays[..., 0], rays[..., 2]) - ahead
    yaw = (yaw + np.pi) % (2 * np.pi) - np.pi + ahead % (2 * np.pi)
    level = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    height, width = panorama.shape[:2]
    u = (width - yaw / (2 * np.pi) * width).astype(np.float32)  # yaw grows to the left, the picture to the right
    v = ((PANORAMA_UP - level) / (PANORAMA_UP - PANORAMA_DOWN) * (height - 1)).astype(np.float32)
    grid = np.array([[1 / step, 0, 0], [0, 1 / step, 0]], dtype=np.float32)
    u, v = (cv2.warpAffine(m, grid, (view.width, view.height), flags=WARP) for m in (u, v))
    return cv2.remap(panorama, u % width, np.clip(v, 0, height - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _shadow(
    light: Light, casting: Iterable[tuple[np.ndarray, np.ndarray]], to_floor: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """(H, W) float32 in 0-1, factors of the floor's colour: each mesh is projected onto the floor along the key light.

    ``to_floor`` (3, 3) maps pixels to points of the floor; ``shape`` is (W, H).
    """
    shade = np.ones(shape[::-1], dtype=np.float32)
    direction = np.asarray(light.direction, dtype=np.float64)
    if light.shadow <= 0 or direction[1] <= 0.05:
        return shade
    slope = (direction[[0, 2]] / direction[1]).astype(np.float32)
    for vertices, faces in casting:
        mask, low = _footprint(vertices[:, [0, 2]] - vertices[:, 1:2] * slope, faces)
        to_mask = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, SHADOW_CELL]]) @ to_floor
        dark = cv2.warpPerspective(mask, to_mask, shape, flags=WARP)
        shade *= 1 - light.shadow * dark
    return shade


def _footprint(flat: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mesh projected onto the floor (V, 2: x, z m) -> its floor cells (h, w) 0-1, and (x, z) m of the first cell."""
    low = flat.min(0) - 0.4
    cells = np.round((flat - low) / SHADOW_CELL).astype(np.int64)
    size = np.minimum(cells.max(0) + 17, 800)
    mask = np.zeros((size[1], size[0]), dtype=np.float32)
    if len(faces) > 2000:  # a mesh so fine that its vertices alone leave no holes
        inside = (cells < size).all(1)
        mask[cells[inside, 1], cells[inside, 0]] = 1
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    else:
        for triangle in cells[faces].clip(-(2**14), 2**14).astype(np.int32):
            cv2.fillConvexPoly(mask, triangle, 1.0)
    return cv2.GaussianBlur(mask, (0, 0), 2.0), low
