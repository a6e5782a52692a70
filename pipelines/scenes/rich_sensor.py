"""A random generator in, a camera's sensor and its processing out: exposure, blur, grain, vignette, compression."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class RichSensor:
    """What a camera does to a picture after the light has come through its lens. ``shutter`` is the share of a frame's
    time that it is open: what moves meanwhile is blurred."""

    table: np.ndarray  # (1, 256, 3) uint8, the response of each channel
    blur: float  # px
    shake: float  # px, length of the trace of a shaken camera
    trace: float  # radians, its direction
    grain: float
    coarse: float  # px, size of the grain
    vignette: float
    haze: float
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
        if self.haze or self.vignette:
            y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
            fall = 1 - self.vignette * (x * x + y * y) / 2
            light = self.haze * 255 * (0.6 - 0.4 * y)
            picture = cv2.convertScaleAbs(picture * (fall * (1 - self.haze))[..., None] + light[..., None])
        picture = cv2.LUT(picture, self.table)
        if self.smaller < 0.95:
            small = (max(8, round(width * self.smaller)), max(8, round(height * self.smaller)))
            picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        picture = self._grainy(picture, rng)
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

    def _grainy(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Grain of light and a little of colour, softened as noise reduction does; none in what is overexposed."""
        grain: Any = np.empty(picture.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(grain, np.zeros(3), np.full(3, 0.5 * self.grain))
        grey = np.empty(picture.shape[:2], np.int16)
        cv2.randn(grey, np.zeros(1), np.full(1, self.grain))
        grain += grey[..., None]
        if self.coarse > 0.4:
            grain = cv2.GaussianBlur(grain, (0, 0), self.coarse)
            grain = cv2.convertScaleAbs(grain + 128.0, alpha=1).astype(np.int16) - 128
        return cv2.add(picture, grain, dtype=cv2.CV_8U)


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
    gain, gamma = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.2))
    contrast, black = rng.uniform(-0.2, 0.7), rng.uniform(0, 0.06)
    warm = rng.normal(0, 0.06)
    tint = np.array([1 + warm, 1 + rng.normal(0, 0.02), 1 - warm])
    curve = np.clip(levels**gamma * gain, 0, 1)
    curve = curve + contrast * (curve * curve * (3 - 2 * curve) - curve)  # an S, as films and phones have
    table = np.clip(255 * (black + (1 - black) * curve[:, None]) * tint, 0, 255).astype(np.uint8)[None]
    bad = rng.random()
    return RichSensor(
        table=table,
        blur=float(rng.gamma(1.2, 0.45) * size / 320),
        shake=rng.uniform(2, 9) * size / 320 if rng.random() < 0.15 else 0.0,
        trace=rng.uniform(0, np.pi),
        grain=float(np.exp(rng.normal(0.6, 0.8))),
        coarse=rng.uniform(0, 1.2),
        vignette=max(0.0, rng.uniform(-0.3, 0.5)),
        haze=rng.uniform(0.05, 0.35) if rng.random() < 0.15 else 0.0,
        sharpen=max(0.0, rng.uniform(-0.5, 1.2)),
        smaller=rng.uniform(0.4, 0.9) if bad < 0.25 else 1.0,
        quality=int(rng.integers(12, 90)) if rng.random() < 0.6 else 0,
        grey=bool(rng.random() < 0.03),
        shutter=rng.uniform(0.3, 1.0) if rng.random() < 0.3 else 0.0,
    )
