"""A random generator in; floors and panoramas of the look "rich" out: natural colours, clutter at every size, depth.

The dead-leaves pictures (shapes that hide each other, with sizes by a power law) have edges and spectra like those of
photographs.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from glot.pictures.surroundings import Surroundings
from pipelines.scenes.appearance import smooth_noise

TEXTURES = 160  # number of floors and of panoramas; each is made at its first use and kept (all together: 550 MB)
FLOOR, HEIGHT, WIDTH = 512, 480, 1920  # px
HORIZON = HEIGHT * 60 // 90
# Mean hue (degrees), its spread, largest saturation, and how frequent: greys, earth and wood, plants, sky and paint.
PALETTE = ((40, 60, 0.12, 0.42), (28, 12, 0.55, 0.25), (95, 25, 0.5, 0.13), (212, 18, 0.5, 0.12), (180, 180, 0.9, 0.08))


def natural_colour(
    rng: np.random.Generator, low: float = 0.08, high: float = 0.95, *, vivid: float = 1.0
) -> np.ndarray:
    """(3,) float32, 0-255: mostly greys and earth colours, as most of the world has.

    ``low`` and ``high`` are the range of its brightness; ``vivid`` scales its saturation.
    """
    hue, spread, saturation, _ = PALETTE[rng.choice(len(PALETTE), p=[row[3] for row in PALETTE])]
    pixel = [(hue + rng.normal(0, spread)) % 360, rng.random() * saturation * vivid, rng.uniform(low, high)]
    return 255 * cv2.cvtColor(np.array([[pixel]], dtype=np.float32), cv2.COLOR_HSV2RGB)[0, 0]


def rich_surroundings(rng: np.random.Generator) -> Surroundings:
    """One of the floors with one of the panoramas, turned, mirrored and tinted at random."""
    floor, panorama = _floor(int(rng.integers(TEXTURES))), _panorama(int(rng.integers(TEXTURES)))
    panorama = np.roll(panorama, int(rng.integers(WIDTH)), axis=1)[:, :: rng.choice([-1, 1])]
    tints = 1 + rng.normal(0, 0.06, (2, 3)) + rng.normal(0, 0.12, (2, 1))
    floor, panorama = (
        np.ascontiguousarray(cv2.LUT(t, _table(tint))) for t, tint in zip((floor, panorama), tints, strict=True)
    )
    return Surroundings(floor, panorama, floor_size=rng.uniform(5, 16), fade=float(np.exp(rng.uniform(1.9, 4.6))))


def _table(tint: np.ndarray) -> np.ndarray:
    return np.clip(np.arange(256)[:, None] * tint, 0, 255).astype(np.uint8)[None]


def dead_leaves(
    rng: np.random.Generator, height: int, width: int, *, shapes: int, colour: Callable[..., np.ndarray]
) -> np.ndarray:
    """(height, width, 3) float32, 0-255: shapes of all sizes that hide each other, some of them shaded."""
    picture: Any = np.full((height, width, 3), colour(rng), np.float32)
    sizes = np.minimum(0.02 * rng.random(shapes) ** -0.7, 0.5) * height
    for size in np.sort(sizes)[::-1] if rng.random() < 0.5 else sizes:
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h, angle = size, size * rng.uniform(0.2, 1), rng.uniform(0, 360)
        kind, paint = rng.integers(4), colour(rng).tolist()
        if kind == 0:
            cv2.ellipse(picture, (x, y), (int(w), int(h)), angle, 0, 360, paint, -1, cv2.LINE_8)
        elif kind == 1:
            upright = 0.0 if rng.random() < 0.6 else angle
            cv2.fillPoly(picture, [cv2.boxPoints(((x, y), (w * 2, h * 2), upright)).astype(np.int32)], paint)
        elif kind == 2:
            points = np.array([x, y]) + rng.normal(0, size, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(picture, [cv2.convexHull(points.astype(np.int32))], paint)
        else:
            end = (int(x + rng.normal(0, 3 * size)), int(y + rng.normal(0, 3 * size)))
            cv2.line(picture, (x, y), end, paint, max(1, int(size / 8)))
    return picture


@lru_cache(maxsize=TEXTURES)
def _floor(seed: int) -> np.ndarray:
    """(FLOOR, FLOOR, 3) uint8."""
    rng = np.random.default_rng([seed, 11])
    size = FLOOR // 2
    rough, fine = smooth_noise(rng, size, size, first=3, octaves=7), rng.random((size, size), dtype=np.float32)
    first, second = natural_colour(rng, 0.2, 0.85, vivid=0.5), natural_colour(rng, 0.15, 0.85, vivid=0.5)
    second = first + (second - first) * rng.uniform(0.15, 0.8)
    y, x = np.mgrid[:size, :size]
    kind = rng.integers(6)
    if kind == 0:  # asphalt, sand, grass, carpet
        blend = 0.5 + rng.uniform(0.3, 1.5) * (rough - 0.5) + rng.uniform(0.1, 0.7) * (fine - 0.5)
    elif kind == 1:  # tiles with joints
        tile, joint = int(rng.choice([16, 32, 64])), int(rng.integers(1, 3))
        each = rng.random((size // tile, size // tile), dtype=np.float32)
        blend = rng.uniform(0.05, 0.5) * each[y // tile, x // tile] + 0.2 * rough
        blend = np.where((x % tile < joint) | (y % tile < joint), 1, blend)
    elif kind == 2:  # boards with ends
        width = int(rng.choice([8, 16, 32]))
        row = x // width
        along = (y + 97 * row) // int(rng.integers(60, 200))
        each = rng.random((size // width, size), dtype=np.float32)
        grain = cv2.resize(smooth_noise(rng, size // 16, size, first=2), (size, size))
        blend = 0.5 * each[row, along] + 0.4 * grain.T + 0.1 * fine
        blend = np.where((x % width == 0) | (np.diff(along, axis=0, prepend=along[:1]) != 0), 1, blend)
    elif kind == 3:  # a pattern of two colours
        tile = int(rng.choice([16, 32, 64]))
        blend = 0.75 * ((x // tile + y // tile) % 2) + 0.25 * rough
    elif kind == 4:  # leaves, rubble, stains
        grey = dead_leaves(rng, size, size, shapes=int(rng.integers(60, 900)), colour=natural_colour).mean(-1) / 255
        blend = 0.7 * grey + 0.3 * rough
    else:  # lines on a court or a road
        blend = 0.3 * rough + 0.15 * fine
        for _ in range(int(rng.integers(1, 4))):
            place, thick = int(rng.integers(size)), int(rng.integers(2, 7))
            blend[:, place : place + thick] = 1
            if rng.random() < 0.4:
                cv2.circle(blend, (place, place), int(rng.integers(20, 90)), 1.0, thick)
    floor = first + (second - first) * np.clip(blend, 0, 1)[..., None].astype(np.float32)
    stains = smooth_noise(rng, size, size, first=2, octaves=4)[..., None]  # nothing is evenly clean or evenly lit
    floor = floor * (1 + rng.uniform(0.1, 0.7) * (stains - 0.5)) + rng.uniform(2, 14) * (fine[..., None] - 0.5)
    floor = np.clip(floor, 0, 255).astype(np.uint8)
    floor = np.concatenate([floor, floor[::-1]])  # mirrored, so that it repeats without seams
    return np.concatenate([floor, floor[:, ::-1]], axis=1)


@lru_cache(maxsize=TEXTURES)
def _panorama(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8."""
    rng = np.random.default_rng([seed, 12])
    makers = (_street, _park, _room, _room, _clutter, _haze)
    picture = makers[seed % len(makers)](rng)
    light = smooth_noise(rng, HEIGHT, WIDTH, first=2, octaves=3)[..., None]
    picture = picture * (1 + rng.uniform(0.1, 0.6) * (light - 0.5))
    fine = smooth_noise(rng, HEIGHT, WIDTH, first=30, octaves=5)[..., None]
    picture = picture + rng.uniform(5, 50) * (fine - 0.5)
    blur = float(np.exp(rng.normal(-0.2, 0.8)))  # mostly sharp, sometimes far out of focus
    if blur > 0.4:
        picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), min(blur, 6))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _sky(rng: np.random.Generator) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32: a clear or clouded sky, brighter at the horizon."""
    blue = np.array([rng.uniform(60, 150), rng.uniform(120, 180), rng.uniform(170, 240)], np.float32)
    grey = np.full(3, rng.uniform(130, 245), np.float32)
    rise = np.clip(np.arange(HEIGHT, dtype=np.float32) / HORIZON, 0, 1)[:, None, None]
    clear = blue + (grey - blue) * rise**2
    clouds = np.clip((smooth_noise(rng, HEIGHT, WIDTH, first=3, octaves=7) - rng.uniform(0.2, 0.8)) * 4, 0, 1)
    return clear + (grey - clear) * clouds[..., None]


def _trees(rng: np.random.Generator, picture: np.ndarray, *, top: float, light: float) -> np.ndarray:
    """The picture with a row of trees, bushes or hills up to about ``top`` px above the horizon."""
    leaves = smooth_noise(rng, HEIGHT, WIDTH, first=12, octaves=6)
    line = HORIZON - top * smooth_noise(rng, 64, WIDTH, first=int(rng.integers(1, 4)), octaves=5)[32]
    crowns = np.arange(HEIGHT)[:, None] > line[None] + rng.uniform(0, 70) * (leaves - 0.5)
    green = np.array([rng.uniform(40, 110), rng.uniform(55, 105), rng.uniform(25, 70)], np.float32) * light
    return np.where(crowns[..., None], green * (0.3 + 1.4 * leaves[..., None]), picture)


def _street(rng: np.random.Generator) -> np.ndarray:
    picture = _sky(rng)
    if rng.random() < 0.5:
        picture = _trees(rng, picture, top=rng.uniform(20, 120), light=1.2)
    for row in range(2):
        x = int(rng.integers(0, 80))
        while x < WIDTH:
            w, h = int(rng.integers(50, 260)), int(rng.integers(30, 300 if row else 200))
            wall = natural_colour(rng, 0.25, 0.9, vivid=0.6)
            part = picture[max(0, HORIZON - h) : HORIZON + 60, x : x + w]
            part[:] = wall * (1 + 0.3 * (smooth_noise(rng, *part.shape[:2], first=2)[..., None] - 0.5))
            step, glass = int(rng.integers(14, 44)), wall * rng.uniform(0.15, 0.6)
            wide, tall = step * rng.uniform(0.3, 0.8), step * rng.uniform(0.4, 0.8)
            for top in range(8, h - step, step):
                for left in range(6, w - step, step):
                    lit = glass if rng.random() < 0.85 else natural_colour(rng, 0.6, 1)
                    part[top : top + int(tall), left : left + int(wide)] = lit
            x += w + int(rng.integers(0, 120) if rng.random() < 0.5 else 0)
    _things(rng, picture, count=int(rng.integers(20, 70)), low=-12, high=30)
    return _trees(rng, picture, top=rng.uniform(10, 50), light=1) if rng.random() < 0.3 else picture


def _park(rng: np.random.Generator) -> np.ndarray:
    picture = _sky(rng)
    for layer in range(int(rng.integers(1, 5))):
        picture = _trees(rng, picture, top=rng.uniform(60, 320) / (1 + 0.5 * layer), light=1.3 - 0.2 * layer)
    for _ in range(int(rng.integers(0, 25))):  # trunks, posts
        x, w = int(rng.integers(WIDTH)), int(rng.integers(3, 26))
        picture[HORIZON - int(rng.integers(60, 320)) : HORIZON + 30, x : x + w] = natural_colour(rng, 0.1, 0.5)
    _things(rng, picture, count=int(rng.integers(0, 25)), low=-12, high=30)
    return picture


def _room(rng: np.random.Generator) -> np.ndarray:
    wall = natural_colour(rng, 0.35, 0.98, vivid=0.6)
    picture = np.tile(wall, (HEIGHT, WIDTH, 1)).astype(np.float32)
    foot = HORIZON + int(rng.integers(20, 110))
    picture[foot:] = natural_colour(rng, 0.1, 0.6)
    picture[foot - 6 : foot] = natural_colour(rng, 0.2, 1)
    for edge in np.sort(rng.integers(0, WIDTH, int(rng.integers(2, 7)))):  # other walls, in another light
        picture[:foot, edge:] = picture[:foot, edge:] * rng.uniform(0.75, 1.25)
    for _ in range(int(rng.integers(6, 36))):
        x, w, h = int(rng.integers(WIDTH - 40)), int(rng.integers(20, 260)), int(rng.integers(20, 260))
        y = int(rng.integers(max(1, foot - 330), foot - 20))
        kind = rng.integers(6)
        if kind == 0:  # window
            picture[y : y + h, x : x + w] = natural_colour(rng, 0.8, 1) * 1.1
            picture[y : y + h, x + w // 2 : x + w // 2 + 4] = wall * 0.6
        elif kind == 1:  # door
            picture[foot - 250 : foot, x : x + 100] = natural_colour(rng)
            picture[foot - 244 : foot, x + 6 : x + 94] = natural_colour(rng)
        elif kind == 2:  # curtain
            part = picture[: foot - 10, x : x + w]
            waves = 0.75 + 0.25 * np.sin(np.arange(part.shape[1]) / rng.uniform(1.5, 6))
            part[:] = natural_colour(rng) * waves[None, :, None]
        elif kind == 3:  # shelf with books
            for top in range(y, min(y + h, foot - 20), 34):
                picture[top : top + 36, x : x + w] = natural_colour(rng, 0.05, 0.4)
                at = x + 2
                while at < x + w - 8:
                    thick, tall = int(rng.integers(3, 12)), int(rng.integers(12, 30))
                    picture[top + 32 - tall : top + 32, at : at + thick] = natural_colour(rng)
                    at += thick + int(rng.random() < 0.2) * 8
        elif kind == 4:  # picture, poster, screen
            part = picture[y : y + h, x : x + w]
            part[:] = natural_colour(rng, 0.05, 1)
            inner = part[5:-5, 5:-5]
            if inner.size:
                inner[:] = dead_leaves(rng, *inner.shape[:2], shapes=int(rng.integers(3, 60)), colour=natural_colour)
        else:  # lamp
            glow: Any = np.zeros((HEIGHT, WIDTH), np.float32)
            cv2.circle(glow, (x, y), int(rng.integers(6, 30)), 1.0, -1)
            glow = cv2.GaussianBlur(glow, (0, 0), 12)
            picture += (260 * glow)[..., None] * np.array([1, 0.95, 0.8], np.float32)
    _things(rng, picture, count=int(rng.integers(3, 40)), low=foot - HORIZON - 90, high=foot - HORIZON + 30)
    return picture


def _clutter(rng: np.random.Generator) -> np.ndarray:
    return dead_leaves(rng, HEIGHT, WIDTH, shapes=int(rng.integers(100, 1500)), colour=natural_colour)


def _haze(rng: np.random.Generator) -> np.ndarray:
    """A studio's backdrop, a clouded wall: hardly any edge."""
    first, second, third = (natural_colour(rng, 0.1, 1, vivid=0.6) for _ in range(3))
    rise = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None] ** rng.uniform(0.4, 2.5)
    clouds = smooth_noise(rng, HEIGHT, WIDTH, first=2, octaves=int(rng.integers(1, 8)))[..., None]
    return first + (second - first) * rise + (third - first) * rng.uniform(0, 0.7) * clouds


def _things(rng: np.random.Generator, picture: np.ndarray, *, count: int, low: int, high: int) -> None:
    """Draws things that stand between ``low`` and ``high`` px below the horizon: boxes, cars, people far away."""
    for foot in np.sort(rng.integers(low, max(low + 1, high), count)) + HORIZON:
        x, w, h = int(rng.integers(WIDTH)), int(rng.integers(6, 120)), int(rng.integers(6, 110))
        paint, kind = natural_colour(rng).tolist(), rng.integers(3)
        if kind == 0:
            cv2.rectangle(picture, (x, foot - h), (x + w, foot), paint, -1)
            cv2.rectangle(picture, (x + w // 4, foot - h // 2), (x + w // 2, foot), natural_colour(rng).tolist(), -1)
        elif kind == 1:  # a car, a sofa
            cv2.rectangle(picture, (x, foot - h // 3), (x + 2 * h, foot), paint, -1)
            cv2.ellipse(picture, (x + h, foot - h // 3), (int(0.7 * h), h // 3), 0, 180, 360, paint, -1)
        else:  # somebody
            tall = int(rng.integers(40, 130))
            wide, hip, neck = max(tall // 9, 2), foot - tall // 2, foot - 6 * tall // 7
            for leg in (-1, 1):
                end = (x + leg * int(rng.integers(0, wide + 1)), int(foot))
                cv2.line(picture, (x + leg * wide // 3, int(hip)), end, paint, max(wide // 2, 1))
            trunk = natural_colour(rng).tolist()
            cv2.rectangle(picture, (x - wide, int(neck)), (x + wide, int(hip)), trunk, -1)
            cv2.circle(picture, (x, int(foot - 13 * tall // 14)), max(tall // 15, 1), (150, 110, 90), -1)
