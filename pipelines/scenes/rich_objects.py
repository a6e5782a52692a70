"""A scene with people and a random generator in; furniture, posts, plants and occluders around the people out."""

from typing import Any

import numpy as np

from glot.pictures.renderer import Scene
from glot.pictures.surroundings import Light
from pipelines.scenes.appearance import triple
from pipelines.scenes.rich_backgrounds import natural_colour

GRID = 5  # a side of a box has GRID x GRID cells, so that it can have a pattern
LEAF = np.array([[0, 0, 0], [0.4, 0.35, 0.1], [0, 1, 0], [-0.4, 0.35, 0.1]])
LEAF_FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 2, 1], [0, 3, 2]])  # seen from both sides


def random_rich_light(rng: np.random.Generator) -> Light:
    """Sun, high or low, before or behind the people; clouds; a lamp; hardly any light."""
    yaw, kind = rng.uniform(0, 2 * np.pi), rng.choice(["sun", "clouds", "lamp"], p=[0.4, 0.3, 0.3])
    warmth = rng.normal(0.06 if kind == "lamp" else 0, 0.07)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    key = {"sun": rng.uniform(0.7, 1.3), "clouds": rng.uniform(0.05, 0.35), "lamp": rng.uniform(0.3, 0.9)}[str(kind)]
    ambient = {"sun": rng.uniform(0.15, 0.45), "clouds": rng.uniform(0.5, 0.85), "lamp": rng.uniform(0.15, 0.5)}
    sky = ambient[str(kind)]
    low = 0.25 if kind == "sun" and rng.random() < 0.3 else 0.6
    # Cameras expose for the people, more or less.
    exposure = rng.uniform(0.85, 1.35) / (0.6 * key + 0.8 * sky)
    key, sky = key * exposure, sky * exposure
    return Light(
        direction=(np.sin(yaw), rng.uniform(low, low + 1.2), np.cos(yaw)),
        key=triple(key * tint),
        fill=triple(rng.uniform(0.02, 0.25) * key / tint),
        sky=triple(sky / tint),
        ground=triple(sky * rng.uniform(0.25, 0.9) * tint),
        gloss=rng.uniform(0, 0.05),
        shadow=0.85 * key / (key + sky),
    )


def add_rich_objects(scene: Scene, rng: np.random.Generator, *, people: np.ndarray, eyes: np.ndarray) -> int:
    """Puts 0-12 objects around the people, and 0-3 of them between the camera and the people. Returns their number.

    ``people`` (m, 3) and ``eyes`` (n, 3) are places of the people and of the camera over time, metres. An object that a
    person or the camera would pass through is left out.
    """
    middle, eye = people.mean(0) * [1, 0, 1], eyes.mean(0) * [1, 0, 1]
    away = middle - eye
    distance = np.linalg.norm(away) + 1e-6
    side = np.array([away[2], 0, -away[0]]) / distance
    before = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))
    around = int(rng.integers(*((0, 1), (1, 5), (4, 10))[rng.choice(3, p=[0.3, 0.4, 0.3])]))
    tracks, added = np.concatenate([people, eyes])[:, [0, 2]], 0
    for number in range(before + around):
        if number < before:
            at = eye + away * rng.uniform(0.3, 0.8) + side * rng.normal(0, 0.1 + 0.12 * distance)
        else:
            turn = np.arctan2(away[0], away[2]) + rng.normal(0, 0.8)
            at = middle + rng.uniform(0.9, 6) * np.array([np.sin(turn), 0, np.cos(turn)])
        boxes, leaves = _random_object(rng)
        reach = max([np.hypot(*(np.abs(c[[0, 2]]) + s[[0, 2]] / 2)) for c, s in boxes] + [0.5 * bool(len(leaves))])
        if np.linalg.norm(tracks - at[[0, 2]], axis=1).min() < 0.45 + reach:
            continue
        yaw = np.arctan2(away[0], away[2]) + rng.normal(0, 0.5)
        turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        parts = [_box(rng, centre, size) for centre, size in boxes]
        if len(leaves):
            parts.append(_leaves(rng, leaves))
        starts = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
        vertices = np.concatenate([part[0] for part in parts]) @ turn_y.T + at
        faces = np.concatenate([part[1] + start for part, start in zip(parts, starts, strict=True)])
        scene.set_mesh(f"object{added}", vertices, faces, colours=np.concatenate([part[2] for part in parts]))
        added += 1
    return added


def _random_object(rng: np.random.Generator) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Boxes (centre, size) and places of leaves (n, 3), metres, about the object's place on the floor."""
    u, boxes, leaves = rng.uniform, [], np.zeros((0, 3))

    def box(x: float, y: float, z: float, w: float, h: float, d: float) -> None:
        boxes.append((np.array([x, y, z]), np.array([w, h, d])))

    kind = rng.integers(8)
    if kind == 0:  # post, pillar, lamp post
        h = u(1.2, 4)
        box(0, h / 2, 0, u(0.05, 0.4), h, u(0.05, 0.4))
    elif kind == 1:  # wall, screen, counter
        h = u(0.3, 2.4) if rng.random() < 0.4 else u(0.3, 0.9)
        box(0, h / 2, 0, u(0.6, 3), h, u(0.05, 0.3))
    elif kind == 2:  # crate, cupboard, bin
        w, h, d = u(0.25, 0.9), u(0.25, 1.2), u(0.25, 0.8)
        box(0, h / 2, 0, w, h, d)
    elif kind == 3:  # table, bench
        w, h, d = u(0.6, 1.8), u(0.4, 0.8), u(0.35, 0.8)
        box(0, h, 0, w, 0.05, d)
        for x in (-w / 2 + 0.05, w / 2 - 0.05):
            for z in (-d / 2 + 0.05, d / 2 - 0.05):
                box(x, h / 2, z, 0.05, h, 0.05)
    elif kind == 4:  # chair
        w = u(0.38, 0.5)
        box(0, 0.45, 0, w, 0.06, w)
        box(0, 0.72, -w / 2, w, u(0.3, 0.55), 0.04)
        for x in (-w / 2 + 0.03, w / 2 - 0.03):
            for z in (-w / 2 + 0.03, w / 2 - 0.03):
                box(x, 0.22, z, 0.04, 0.44, 0.04)
    elif kind == 5:  # rail, fence
        w, h = u(1.2, 3.5), u(0.6, 1.3)
        box(0, h, 0, w, u(0.03, 0.12), 0.06)
        for x in np.linspace(-w / 2, w / 2, int(rng.integers(2, 9))):
            box(float(x), h / 2, 0, 0.04, h, 0.04)
    elif kind == 6:  # shelf
        w, h = u(0.6, 1.4), u(1, 2)
        for y in np.linspace(0.05, h, int(rng.integers(3, 6))):
            box(0, float(y), 0, w, 0.04, 0.3)
            box(u(-0.3, 0.3) * w, float(y) + 0.13, 0, w * u(0.1, 0.4), u(0.1, 0.2), 0.2)
        box(-w / 2, h / 2, 0, 0.04, h, 0.3)
        box(w / 2, h / 2, 0, 0.04, h, 0.3)
    else:  # plant, bush
        h = u(0.3, 2)
        box(0, h / 4, 0, u(0.05, 0.3), h / 2, u(0.05, 0.3))
        leaves = rng.normal(0, 1, (int(rng.integers(50, 160)), 3)) * [0.16, 0.2 * h, 0.16] + [0, 0.7 * h, 0]
    return boxes, leaves


def _box(rng: np.random.Generator, centre: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and colours of a block with a pattern. No two sides share a vertex, so its edges are sharp."""
    cells = GRID if size.max() > 0.3 else 1
    line = np.linspace(-0.5, 0.5, cells + 1)
    a, b = (grid.ravel() for grid in np.meshgrid(line, line, indexing="ij"))
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    square = np.array([[0, cells + 1, cells + 2], [0, cells + 2, 1]])
    of_side = (corner[:, None, None] + square).reshape(-1, 3)
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    for axis in range(3):
        for sign in (-0.5, 0.5):
            side = np.zeros((len(a), 3))
            side[:, axis], side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = sign, a, b
            faces.append((of_side if sign > 0 else of_side[:, ::-1]) + len(a) * len(faces))
            vertices.append(side)
    paint: Any = np.tile(natural_colour(rng, 0.05) / 255, (6 * len(a), 1))
    if rng.random() < 0.5:
        paint = paint + rng.uniform(0.02, 0.25) * rng.standard_normal((len(paint), 1))
    if rng.random() < 0.3:
        paint[:, :] = np.where(rng.random((len(paint), 1)) < 0.5, paint, natural_colour(rng) / 255)
    return np.concatenate(vertices) * size + centre, np.concatenate(faces), np.clip(paint, 0, 1)


def _leaves(rng: np.random.Generator, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and colours of a leaf at each of the places."""
    turns = np.linalg.qr(rng.standard_normal((len(places), 3, 3)))[0]
    shape = LEAF * [rng.uniform(0.3, 1), 1, 1] * rng.uniform(0.08, 0.25)
    vertices = np.einsum("nij,vj->nvi", turns, shape) + places[:, None]
    faces = LEAF_FACES + 4 * np.arange(len(places))[:, None, None]
    green = np.array([rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.45), rng.uniform(0.05, 0.2)])
    colours = green * rng.uniform(0.5, 1.4, (len(places), 1, 1)) * np.ones((1, 4, 1))
    return vertices.reshape(-1, 3), faces.reshape(-1, 3), np.clip(colours.reshape(-1, 3), 0, 1)
