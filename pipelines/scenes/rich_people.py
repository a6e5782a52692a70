"""A body and a random generator in; clothes that are thicker than paint, and light that bodies hide, out.

Clothes are the skin, smoothed and moved outwards. So labels of joints stay as they are. V vertices, N frames.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from scipy import sparse

from glot.human.body import Body
from glot.human.joints import SMPL_JOINTS
from glot.pictures.surroundings import Light
from pipelines.scenes.appearance import HAIR, SKIN, between, vertex_parts
from pipelines.scenes.posed_person import PosedPerson
from pipelines.scenes.rich_backgrounds import natural_colour

CELL = 0.03  # metres, of the grids on which vertices hide each other from the light
SMOOTHINGS = 12
SKY = 9  # number of directions from which light of the sky comes


@dataclass(frozen=True)
class Outfit:
    """``colours`` (V, 3) 0-1; ``thickness`` (V,) metres; ``loose`` (V,) 0-1, how much of the body's relief is hidden"""

    colours: np.ndarray
    thickness: np.ndarray
    loose: np.ndarray


def random_outfit(rng: np.random.Generator, body: Body) -> Outfit:
    """Skin, hair or a hat, shirt or coat, trousers, shorts or a skirt, shoes: plain, striped, checked or printed."""
    parts, rest = vertex_parts(body), body.template.numpy()
    limb = np.asarray(SMPL_JOINTS)[body.weights.numpy().argmax(1)]
    skin = np.clip(between(rng, SKIN) * rng.uniform(0.8, 1.08), 0, 1)
    colours = np.tile(skin, (len(parts), 1)) * (1 + 0.06 * _waves(rng, rest, size=0.1)[:, None])
    thickness, loose = np.zeros(len(parts)), np.zeros(len(parts))
    colours[parts == "eyes"] = [0.92, 0.92, 0.92]
    hair = parts == "hair"
    hat = rng.random() < 0.2
    colours[hair] = natural_colour(rng) / 255 if hat else between(rng, HAIR)
    thickness[hair] = (
        0.012 if hat else np.clip(rng.uniform(0, 0.03) * (1 + 0.6 * _waves(rng, rest[hair], size=0.05)), 0, 1)
    )
    shoes = parts == "shoes"
    colours[shoes], thickness[shoes], loose[shoes] = natural_colour(rng, 0.03) / 255, rng.uniform(0.002, 0.012), 0.9
    worn = {part: parts == part for part in ("shirt", "trousers")}
    if rng.random() < 0.3:  # a coat, a dress, a long shirt: down to somewhere on the thighs
        below = rest[parts == "trousers"][:, 1].max() - rng.uniform(0.08, 0.5)
        longer = worn["trousers"] & (rest[:, 1] > below)
        worn["shirt"], worn["trousers"] = worn["shirt"] | longer, worn["trousers"] & ~longer
    for part, cloth in worn.items():
        paint = _cloth(rng, rest)
        bare = np.zeros(len(parts), dtype=bool)
        if rng.random() < 0.45:  # short sleeves, none; shorts, short trousers
            axis, ends = (0, ("elbow", "wrist", "hand")) if part == "shirt" else (1, ("knee", "ankle", "foot"))
            bare = cloth & np.array([name.endswith(ends) for name in limb])
            if rng.random() < 0.4 and axis == 0:
                bare = cloth & (np.abs(rest[:, 0]) > rng.uniform(0.18, 0.4))
        covered = cloth & ~bare
        colours[covered] = paint[covered]
        wide = rng.choice(
            [rng.uniform(0, 0.006), rng.uniform(0.008, 0.022), rng.uniform(0.022, 0.045)], p=[0.25, 0.45, 0.3]
        )
        folds = _waves(rng, rest * [1, rng.uniform(0.3, 1), 1], size=rng.uniform(0.04, 0.12))
        deep = min(rng.uniform(0.1, 0.4) * wide, 0.005)
        thickness[covered] = np.clip(wide + deep * folds[covered], 0, None)
        loose[covered] = np.clip(wide / 0.012, 0, 1)
    return Outfit(np.clip(colours, 0, 1).astype(np.float32), thickness, loose)


def _cloth(rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
    """(V, 3) colours, 0-1, of a cloth at places (V, 3) m of the body at rest."""
    first, second = natural_colour(rng) / 255, natural_colour(rng) / 255
    kind = rng.choice(["plain", "stripes", "checks", "print", "sign", "halves"], p=[0.5, 0.14, 0.08, 0.12, 0.1, 0.06])
    axis = 1 if rng.random() < 0.7 else 0
    waves = np.sin(2 * np.pi * rest / rng.uniform(0.06, 0.2))
    if kind == "stripes":
        share = _step(waves[:, axis] - rng.uniform(-0.5, 0.5))
    elif kind == "checks":
        share = 0.5 * (_step(waves[:, 0]) + _step(waves[:, 1]))
    elif kind == "print":
        share = _step(_waves(rng, rest, size=rng.uniform(0.04, 0.15)) - rng.uniform(-0.5, 0.5))
    elif kind == "sign":  # on the chest or on the back
        centre, radius = [rng.normal(0, 0.03), rng.uniform(0.1, 0.3), rng.choice([-0.1, 0.1])], rng.uniform(0.06, 0.13)
        share = _step(4 * (radius - np.linalg.norm((rest - centre) * [1, 1.3, 0.4], axis=1)) / radius)
    elif kind == "halves":
        share = _step((rest[:, axis] - rng.uniform(-0.3, 0.3)) * 40)
    else:
        share = np.zeros(len(rest))
    worn_out = 1 + rng.uniform(0, 0.15) * _waves(rng, rest, size=0.15)
    return (first + share[:, None] * (second - first)) * worn_out[:, None]


def _step(values: np.ndarray) -> np.ndarray:
    """From 0 to 1 where ``values`` change their sign: as steep as the mesh can show, so that edges are not ragged."""
    return np.clip(0.5 + 1.2 * values, 0, 1)


def _waves(rng: np.random.Generator, places: np.ndarray, *, size: float) -> np.ndarray:
    """(V,) smooth random values with deviation 1 at places (V, 3), with features of about ``size`` metres."""
    turns = rng.standard_normal((6, 3))
    turns *= (2 * np.pi / size * rng.uniform(0.3, 1, (6, 1))) / np.linalg.norm(turns, axis=1, keepdims=True)
    return np.sin(places @ turns.T + rng.uniform(0, 2 * np.pi, 6)).sum(1) / np.sqrt(3)


class Cloth:
    """The mesh of a body: it smooths and thickens a posed person where the outfit says so."""

    def __init__(self, faces: np.ndarray, vertices: int) -> None:
        ones = np.ones(faces.size, dtype=np.float32)
        of_face = np.repeat(np.arange(len(faces)), 3)
        self.faces = faces
        self.face_to_vertex = sparse.csr_matrix((ones, (faces.ravel(), of_face)), shape=(vertices, len(faces)))
        around = (self.face_to_vertex @ self.face_to_vertex.T).astype(bool).astype(np.float32)
        self.mean_of_neighbours = sparse.diags(1 / around.sum(1).A1) @ around

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3) unit normals of vertices (V, 3)."""
        a, b, c = (vertices[self.faces[:, k]] for k in range(3))
        normals = self.face_to_vertex @ np.cross(b - a, c - a)
        return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)

    def wear(self, person: PosedPerson, outfit: Outfit) -> PosedPerson:
        """The person in the outfit; only vertices and colours change."""
        frames = len(person.vertices)
        flat = person.vertices.transpose(1, 0, 2).reshape(-1, 3 * frames)
        share = outfit.loose[:, None].astype(np.float32)
        for _ in range(SMOOTHINGS):
            flat = flat + share * (self.mean_of_neighbours @ flat - flat)
        smooth = flat.reshape(-1, frames, 3).transpose(1, 0, 2)
        out = outfit.thickness[:, None].astype(np.float32)
        vertices = np.stack([frame + out * self.normals(frame) for frame in smooth])
        return replace(person, vertices=vertices.astype(np.float32), colours=outfit.colours)


def lit_colours(cloth: Cloth, light: Light, bodies: list[np.ndarray], colours: list[np.ndarray]) -> list[np.ndarray]:
    """Each body's colours (V, 3) darkened where the bodies (V, 3) hide the light: folds, armpits, cast shadows."""
    everything = np.concatenate(bodies)
    normals = np.concatenate([cloth.normals(body) for body in bodies])
    key = np.asarray(light.direction, dtype=np.float64)
    key /= np.linalg.norm(key)
    facing = np.clip(normals @ key, 0, None)
    direct = float(np.mean(light.key)) * facing
    diffuse = 0.5 * float(np.mean(light.sky) + np.mean(light.ground)) + 0.05
    open_sky, total = np.full(len(everything), 0.15), np.full(len(everything), 0.15)
    for step in range(SKY):
        turn, rise = 2.4 * step, 0.15 + 0.8 * step / SKY
        towards = np.array([np.cos(turn) * np.sqrt(1 - rise**2), rise, np.sin(turn) * np.sqrt(1 - rise**2)])
        weight = np.clip(normals @ towards, 0, None)
        open_sky += weight * (1 - _hidden(everything, towards))
        total += weight
    left = (direct * (1 - 0.85 * _hidden(everything, key)) + diffuse * open_sky / total) / (direct + diffuse)
    ends = np.cumsum([len(body) for body in bodies])[:-1]
    return [c * share[:, None].astype(np.float32) for c, share in zip(colours, np.split(left, ends), strict=True)]


def _hidden(points: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """(V,) 0-1: how much each of the points (V, 3) is hidden by others from a light far away, ``towards`` (3,)."""
    side = np.cross(towards, [0.3, 0.1, 1.0])
    side /= np.linalg.norm(side)
    height = (points @ towards).astype(np.float32)
    cells = np.stack([points @ side, points @ np.cross(towards, side)], axis=1)
    cells = np.minimum(((cells - cells.min(0)) / CELL).astype(np.int64) + 1, 600)
    width = int(cells[:, 0].max()) + 2
    flat = cells[:, 1] * width + cells[:, 0]
    highest: Any = np.full((int(cells[:, 1].max()) + 2) * width, -1e3, dtype=np.float32)
    np.maximum.at(highest, flat, height)
    highest = cv2.dilate(highest.reshape(-1, width), np.ones((3, 3), np.uint8)).reshape(-1)
    return np.clip((highest[flat] - height - 0.06) / 0.1, 0, 1)
