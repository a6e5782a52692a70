"""A random generator in, a camera's sensor and its processing out: exposure, blur, grain, vignette, compression."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SHIFTS = 64  # px; grain is made once for a film, and shifted by up to this for each picture


@dataclass(frozen=True)
class RichSensor:
    """What a camera does to a picture after the light has come through its lens. ``shutter`` is the share of a frame's
    time that it is open: what moves meanwhile is blurred."""

    table: np.ndarray  # (1, 256, 3) uint8, the response of each channel
    blur: float  # px
    shake: float  # px, length of the trace of a shaken camera
    trace: float  # radians, its direction
    grain: np.ndarray  # (H + SHIFTS, W + SHIFTS, 3) int16
    gain: np.ndarray | None  # (H, W, 3) float32: the lens is darker towards its edge
    haze: np.ndarray | None  # (H, W, 3) float32: light that comes from no object
    sharpen: float
    smaller: float  # size at which the picture was stored, as a share
    quality: int  # of the JPEG that it once was; 0: none
    grey: bool
    shutter: float

    def expose(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image (H, W, 3) uint8 as this camera stores it; same size and type."""
        height, width = image.shape[:2]
        picture: Any = image
        if self.blur > 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        if self.shake > 1:
            picture = cv2.filter2D(picture, -1, _trace(self.shake, self.trace), borderType=cv2.BORDER_REFLECT)
        if self.gain is not None:
            picture = cv2.multiply(picture, self.gain, dtype=cv2.CV_8U)
        if self.haze is not None:
            picture = cv2.add(picture, self.haze, dtype=cv2.CV_8U)
        picture = cv2.LUT(picture, self.table)
        if self.smaller < 0.95:
            small = (max(8, round(width * self.smaller)), max(8, round(height * self.smaller)))
            picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        x, y = rng.integers(0, SHIFTS, 2)
        grain = self.grain[y : y + picture.shape[0], x : x + picture.shape[1]]
        picture = cv2.add(picture, grain, dtype=cv2.CV_8U)
        if self.sharpen > 0.05:
            picture = cv2.addWeighted(
                picture, 1 + self.sharpen, cv2.GaussianBlur(picture, (0, 0), 1.2), -self.sharpen, 0
            )
        if self.grey:
            picture = cv2.merge([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)] * 3)
        if self.quality:
            code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            stored: Any = cv2.imdecode(code, cv2.IMREAD_COLOR)
            picture = stored[..., ::-1]
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(picture)


def _grain(rng: np.random.Generator, *, size: int, strength: float, coarse: float) -> np.ndarray:
    """(size, size, 3) int16: grain of light and a little of colour, ``coarse`` px wide as noise reduction leaves it."""
    cv2.setRNGSeed(int(rng.integers(2**31)))
    light, colour = np.empty((size, size), np.float32), np.empty((size, size, 3), np.float32)
    cv2.randn(light, np.zeros(1), np.full(1, strength))
    cv2.randn(colour, np.zeros(3), np.full(3, 0.5 * strength))
    colour += light[..., None]
    return np.round(cv2.GaussianBlur(colour, (0, 0), coarse) if coarse > 0.4 else colour).astype(np.int16)


def _lens(*, size: int, vignette: float, haze: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The gain and the haze of a RichSensor; None where there is none."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    gain = (1 - haze) * (1 - vignette * (x * x + y * y) / 2)
    light = 255 * haze * (0.6 - 0.4 * y)
    return (cv2.merge([gain] * 3) if vignette or haze else None), (cv2.merge([light] * 3) if haze else None)


def _trace(length: float, angle: float) -> np.ndarray:
    """A kernel that smears a picture along a line."""
    size = int(length) | 1
    kernel = np.zeros((size, size), np.float32)
    middle, reach = size // 2, np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = (tuple(np.round(middle + sign * reach).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1)
    return kernel / kernel.sum()


def random_rich_sensor(rng: np.random.Generator, *, size: int) -> RichSensor:
    """A good camera or a bad one. ``size`` is the width of the pictures, px."""
    levels = np.arange(256) / 255
    exposure, gamma = np.exp(rng.normal(0, 0.18)), np.exp(rng.normal(0, 0.2))
    contrast, black = rng.uniform(-0.2, 0.7), rng.uniform(0, 0.06)
    warm = rng.normal(0, 0.06)
    tint = np.array([1 + warm, 1 + rng.normal(0, 0.02), 1 - warm])
    curve = np.clip(levels**gamma * exposure, 0, 1)
    curve = curve + contrast * (curve * curve * (3 - 2 * curve) - curve)  # an S, as films and phones have
    table = np.clip(255 * (black + (1 - black) * curve[:, None]) * tint, 0, 255).astype(np.uint8)[None]
    haze = rng.uniform(0.05, 0.35) if rng.random() < 0.15 else 0.0
    gain, light = _lens(size=size, vignette=max(0.0, rng.uniform(-0.3, 0.5)), haze=haze)
    bad = rng.random()
    return RichSensor(
        table=table,
        blur=float(rng.gamma(1.2, 0.45) * size / 320),
        shake=rng.uniform(2, 9) * size / 320 if rng.random() < 0.15 else 0.0,
        trace=rng.uniform(0, np.pi),
        grain=_grain(rng, size=size + SHIFTS, strength=np.exp(rng.normal(0.6, 0.8)), coarse=rng.uniform(0, 1.2)),
        gain=gain,
        haze=light,
        sharpen=max(0.0, rng.uniform(-0.5, 1.2)),
        smaller=rng.uniform(0.4, 0.9) if bad < 0.25 else 1.0,
        quality=int(rng.integers(12, 90)) if rng.random() < 0.6 else 0,
        grey=bool(rng.random() < 0.03),
        shutter=rng.uniform(0.3, 1.0) if rng.random() < 0.3 else 0.0,
    )
