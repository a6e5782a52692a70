"""A random generator in, the look of a scene out: light, floor, panorama, clothes, obstacles, the camera's sensor.

Everything is procedural (noise, gradients, stripes, blocks), so no assets and no licences are needed.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from glot.human.body import Body
from glot.human.joints import SMPL_JOINTS
from glot.pictures.renderer import Scene
from glot.pictures.surroundings import Light, Surroundings

TEXTURES = 128  # number of floors and of panoramas; each is made at its first use and kept (all together: 350 MB)
SKIN = np.array([[0.96, 0.80, 0.69], [0.89, 0.69, 0.55], [0.76, 0.55, 0.40], [0.58, 0.40, 0.28], [0.38, 0.26, 0.19]])
HAIR = np.array([[0.09, 0.07, 0.06], [0.25, 0.16, 0.10], [0.45, 0.30, 0.17], [0.75, 0.62, 0.40], [0.55, 0.55, 0.55]])
UPPER_BODY = ("spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder")
LOWER_BODY = ("pelvis", "spine1", "left_hip", "right_hip", "left_knee", "right_knee")
FEET = ("left_ankle", "right_ankle", "left_foot", "right_foot")


def random_light(rng: np.random.Generator) -> Light:
    """A sun or lamp above the people, from any side, warm or cold, strong or soft."""
    yaw, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.6)
    key, warmth = rng.uniform(0.45, 0.95), rng.uniform(-0.08, 0.08)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    ambient = rng.uniform(0.3, 0.55)
    return Light(
        direction=(np.sin(yaw), height, np.cos(yaw)),
        key=triple(key * tint),
        fill=triple(rng.uniform(0.05, 0.25) / tint),
        sky=triple(ambient / tint),
        ground=triple(ambient * rng.uniform(0.4, 0.8) * tint),
        gloss=rng.uniform(0.0, 0.12),
        shadow=0.8 * key / (key + ambient),
    )


def random_surroundings(rng: np.random.Generator) -> Surroundings:
    """One of the floors with one of the panoramas."""
    return Surroundings(
        floor=_floor(int(rng.integers(TEXTURES))),
        panorama=_panorama(int(rng.integers(TEXTURES))),
        floor_size=rng.uniform(10, 22),
        fade=rng.uniform(8, 30),
    )


def triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, first: int = 3, octaves: int = 6) -> np.ndarray:
    """(height, width) float32, 0-1: smooth noise, weaker in finer octaves. The left edge continues the right one."""
    total, strength = np.zeros((height, width), np.float32), 1.0
    for octave in range(octaves):
        rows, columns = first * 2**octave, max(1, round(first * 2**octave * width / height))
        if rows > height:
            break
        grid = rng.random((rows + 1, columns), dtype=np.float32)
        grid = np.concatenate([grid, grid[:, :1]], axis=1)
        total += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        strength *= 0.55
    total -= total.min()
    return total / total.max()


def _colour(rng: np.random.Generator, low: float = 40, high: float = 215) -> np.ndarray:
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 20, 3), 0, 255).astype(np.float32)


@lru_cache(maxsize=TEXTURES)
def _floor(seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    size = 384
    rough = smooth_noise(rng, size, size, first=4, octaves=6)
    first, second = _colour(rng), _colour(rng)
    second = first + (second - first) * rng.uniform(0.2, 0.8)
    y, x = np.mgrid[:size, :size]
    kind = rng.integers(5)
    if kind == 0:  # grass, gravel, asphalt
        blend = np.clip((rough - 0.5) * rng.uniform(1, 3) + 0.5 + 0.25 * rng.standard_normal((size, size)), 0, 1)
    elif kind == 1:  # chequered
        tile = int(rng.choice([24, 32, 48, 96]))
        blend = ((x // tile + y // tile) % 2).astype(np.float32) * 0.8 + 0.2 * rough
    elif kind == 2:  # paving stones
        tile = int(rng.choice([32, 48, 64]))
        each = rng.random((size // tile + 1, size // tile + 1), dtype=np.float32)
        blend = 0.6 * each[y // tile, x // tile] + 0.3 * rough
        blend = np.where((x % tile < 2) | (y % tile < 2), 1, blend)
    elif kind == 3:  # boards
        width = int(rng.choice([12, 16, 24, 32]))
        each = rng.random(size // width + 1, dtype=np.float32)
        grain = cv2.resize(rough[::8], (size, size))
        blend = 0.6 * each[x // width] + 0.4 * grain
        blend = np.where(x % width < 1, 0, blend)
    else:  # patches
        blend = (np.clip((rough - rng.uniform(0.35, 0.65)) * 12, 0, 1) * 0.8) + 0.2 * rng.random((size, size))
    floor = first + (second - first) * blend[..., None].astype(np.float32)
    floor = np.clip(floor + 10 * (rough[..., None] - 0.5), 0, 255).astype(np.uint8)
    floor = np.concatenate([floor, floor[::-1]])  # mirrored, so that it repeats without seams
    return np.concatenate([floor, floor[:, ::-1]], axis=1)


@lru_cache(maxsize=TEXTURES)
def _panorama(seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 2])
    height, width = 288, 1152
    top, bottom = _colour(rng, 110, 235), _colour(rng, 90, 220)
    rise = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    picture = top + (bottom - top) * rise + 50 * (smooth_noise(rng, height, width)[..., None] - 0.5)
    kind = rng.integers(4)
    horizon = int(height * 60 / 90)
    if kind == 0:  # houses with windows
        x = 0
        while x < width:
            w, h = int(rng.integers(40, 180)), int(rng.integers(30, 200))
            wall = _colour(rng, 50, 200)
            picture[horizon - h : horizon + 40, x : x + w] = wall
            gap = int(rng.integers(14, 32))
            for row in range(horizon - h + 8, horizon - 10, gap):
                for column in range(x + 6, min(x + w, width) - 10, gap):
                    picture[row : row + gap // 2, column : column + gap // 2] = wall * rng.uniform(0.3, 1.5)
            x += w
    elif kind == 1:  # trees and hedges
        leaves = smooth_noise(rng, height, width, first=6, octaves=7)
        line = horizon - 20 - 140 * smooth_noise(rng, 64, width, first=2, octaves=4)[32]
        crowns = np.arange(height)[:, None] > line[None] + 40 * (leaves - 0.5)
        picture = np.where(crowns[..., None], _colour(rng, 30, 120) * (0.5 + leaves[..., None]), picture)
    elif kind == 2:  # a room: a wall with things on it
        picture = _colour(rng, 90, 230) + 25 * (smooth_noise(rng, height, width, first=2)[..., None] - 0.5)
        if rng.random() < 0.5:
            stripe = int(rng.choice([12, 24, 48]))
            picture = picture * np.where((np.arange(width) // stripe) % 2, 1.0, rng.uniform(0.75, 0.95))[None, :, None]
        for _ in range(int(rng.integers(4, 16))):
            x, y = int(rng.integers(width - 60)), int(rng.integers(horizon - 200, horizon - 10))
            w, h = int(rng.integers(20, 110)), int(rng.integers(20, 110))
            picture[y : y + h, x : x + w] = _colour(rng)
            picture[y + 3 : y + h - 3, x + 3 : x + w - 3] = _colour(rng)
    else:  # blurred colours
        for _ in range(40):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            picture = np.ascontiguousarray(picture, dtype=np.float32)
            cv2.circle(picture, centre, int(rng.integers(10, 90)), _colour(rng).tolist(), -1)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), rng.uniform(0.6, 4 if kind == 3 else 2))
    return np.clip(picture, 0, 255).astype(np.uint8)


def vertex_parts(body: Body) -> np.ndarray:
    """(V,) "skin", "hair", "shirt", "trousers", "shoes" or "eyes": from the body file, else guessed by the weights."""
    if body.vertex_part is not None:
        return np.asarray(body.part_names)[body.vertex_part]
    joint = np.asarray(SMPL_JOINTS)[body.weights.numpy().argmax(1)]
    parts = np.full(len(joint), "skin", dtype="U8")
    for part, joints in (("shirt", UPPER_BODY), ("trousers", LOWER_BODY), ("shoes", FEET)):
        parts[np.isin(joint, joints)] = part
    return parts


def random_clothes(rng: np.random.Generator, body: Body) -> np.ndarray:
    """(V, 3) colours, 0-1: skin, hair, shirt and trousers (long or short, plain or striped), shoes."""
    parts = vertex_parts(body)
    joint, rest = body.weights.numpy().argmax(1), body.template.numpy()
    skin = between(rng, SKIN)
    colours = np.tile(skin, (len(parts), 1))
    colours[parts == "hair"] = between(rng, HAIR)
    colours[parts == "eyes"] = [0.92, 0.92, 0.92]
    colours[parts == "shoes"] = _cloth(rng)
    for part in ("shirt", "trousers"):
        worn = parts == part
        colours[worn] = _cloth(rng)
        if rng.random() < 0.35:
            wave, axis = rng.uniform(0.04, 0.16), 1 if rng.random() < 0.7 else 0
            colours[worn & (np.sin(2 * np.pi * rest[:, axis] / wave) > rng.uniform(-0.4, 0.4))] = _cloth(rng)
        if rng.random() < 0.45:  # short sleeves, shorts
            ends = ("elbow", "wrist", "hand") if part == "shirt" else ("knee", "ankle")
            colours[worn & np.isin(joint, [i for i, name in enumerate(SMPL_JOINTS) if name.endswith(ends)])] = skin
    if rng.random() < 0.12:  # overalls: all one colour
        colours[np.isin(parts, ("shirt", "trousers"))] = _cloth(rng)
    return np.clip(colours, 0, 1).astype(np.float32)


def between(rng: np.random.Generator, table: np.ndarray) -> np.ndarray:
    place = rng.uniform(0, len(table) - 1)
    low = int(place)
    return table[low] + (place - low) * (table[low + 1] - table[low]) + rng.normal(0, 0.015, 3)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    hue, saturation, value = rng.uniform(0, 360), rng.beta(1.5, 2), rng.uniform(0.12, 0.95)
    pixel = np.array([[[hue, saturation, value]]], dtype=np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]


BOX_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip


def add_box(scene: Scene, name: str, *, centre: np.ndarray, size: np.ndarray, yaw: float, colour: np.ndarray) -> None:
    """A block with flat sides. No two sides share a vertex, so the shading has sharp edges."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    vertices = (corners @ turn.T + centre)[BOX_FACES.reshape(-1)]
    scene.set_mesh(name, vertices, np.arange(36).reshape(12, 3), colours=colour)


def add_obstacles(scene: Scene, rng: np.random.Generator, *, people: np.ndarray, eyes: np.ndarray) -> int:
    """Puts 0-2 posts, walls, crates or rails between the camera and the people. Returns the number of obstacles.

    ``people`` (m, 3) and ``eyes`` (n, 3) are places of the people and of the camera over time, metres. An obstacle that
    a person or the camera would pass through is left out.
    """
    wanted = int(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2]))
    away = (people.mean(0) - eyes.mean(0)) * [1, 0, 1]
    distance = np.linalg.norm(away) + 1e-6
    away, side = away / distance, np.array([away[2], 0, -away[0]]) / distance
    added = 0
    for _ in range(wanted):
        at = eyes.mean(0) * [1, 0, 1] + away * distance * rng.uniform(0.45, 0.75) + side * rng.normal(0, 0.4)
        kind = rng.integers(4)
        if kind == 0:  # post
            size = np.array([rng.uniform(0.06, 0.25), rng.uniform(1.5, 4.0), rng.uniform(0.06, 0.25)])
        elif kind == 1:  # low wall
            size = np.array([rng.uniform(0.8, 2.5), rng.uniform(0.3, 0.8), 0.2])
        elif kind == 2:  # crate
            size = rng.uniform(0.25, 0.8, 3)
        else:  # rail
            size = np.array([rng.uniform(1.5, 4), rng.uniform(0.05, 0.15), 0.1])
        height = rng.uniform(0.6, 1.7) if kind == 3 else size[1] / 2
        yaw, colour = np.arctan2(away[0], away[2]) + rng.normal(0, 0.4), _cloth(rng)
        gap = np.linalg.norm((np.concatenate([people, eyes]) - at)[:, [0, 2]], axis=1).min()
        if gap > 0.55 + 0.35 * max(size[0], size[2]):
            add_box(scene, f"obstacle{added}", centre=at + [0, height, 0], size=size, yaw=yaw, colour=colour)
            added += 1
    return added


@dataclass(frozen=True)
class Sensor:
    """The camera's sensor: what it does to a picture."""

    gain: float
    gamma: float
    noise: float
    blur: float
    tint: tuple[float, float, float]

    def expose(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image (H, W, 3) uint8 with blur, exposure, tint and grain; same size and type."""
        if self.blur > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        levels = (np.arange(256) / 255) ** self.gamma * self.gain * 255
        table = np.clip(levels[:, None] * self.tint, 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table[None])
        grain = np.empty(image.shape[:2], np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(grain, np.zeros(1), np.full(1, self.noise))
        return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def random_sensor(rng: np.random.Generator) -> Sensor:
    """A sensor with random exposure, contrast, grain, blur and tint."""
    return Sensor(
        gain=rng.uniform(0.85, 1.15),
        gamma=rng.uniform(0.8, 1.2),
        noise=rng.uniform(1, 5),
        blur=rng.uniform(0, 0.9),
        tint=triple(rng.uniform(0.94, 1.06, 3)),
    )
