"""How a backbone wants its crops: their size, the side of the square around a person, and blur.

A box is (centre x, centre y, width, height) in px. The boxes of feature sets are squares; a source that gives boxes of
people as they are (``--tracks``) also gives their own width and height. N boxes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glot.errors import InputError
from glot.human.crop import CROP_SIZE, crop_image, crop_matrix

BLURS = ("", "gaussian", "gaussian5")
SHRUNK = 1.1  # a picture is blurred if its crop shrinks to less than 1 / (2 * SHRUNK) of its width
FARTHEST = 32  # pictures in the side of a crop; the picture is then size / 32 px of the crop
LARGEST_SIZE = 1024  # px


@dataclass(frozen=True)
class CropRule:
    """Crops of ``size`` px: squares around the centre of the box.

    ``margin``: side of the square / longer side of the box; None stands for the crop scale of the dataset.
    ``widen``: (width, height), an aspect that a box is first widened to; its shorter side grows until it fits.
    ``blur``: what happens to pictures whose crops shrink a lot, against aliasing. With d = side / (2 size) > 1.1, they
    are blurred by a Gaussian of standard deviation (d - 1) / 2 px: "gaussian" up to four deviations, "gaussian5" over
    5 x 5 px. From a side of 32 pictures on, d grows no more.
    """

    name: str = "square"
    size: int = CROP_SIZE
    margin: float | None = None
    widen: tuple[int, int] | None = None
    blur: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and 16 <= self.size <= LARGEST_SIZE):
            raise InputError(f"crop rule {self.name}: a size of {self.size} px; give 16 to {LARGEST_SIZE}")
        if self.margin is not None and not (_is_number(self.margin) and 0.1 <= self.margin <= 10):
            raise InputError(f"crop rule {self.name}: a margin of {self.margin}; give 0.1 to 10, such as 1.2")
        if self.widen is not None and not _is_aspect(self.widen):
            raise InputError(f"crop rule {self.name}: widens to {self.widen}; give a width and a height, at most 10:1")
        if self.blur not in BLURS:
            raise InputError(f"crop rule {self.name}: a blur {self.blur!r}; there is {', '.join(BLURS[1:])}")

    @property
    def follows_dataset(self) -> bool:
        """Whether the side is the box's width times the crop scale of the dataset."""
        return self.margin is None and self.widen is None

    def scales(self, bbox: NDArray[np.floating], sizes: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """(N,) side of each crop / width of its ``bbox`` (N, 4), for a rule with a margin.

        ``sizes`` (N, 2): width and height of the people's own boxes, where they are known; else those of ``bbox``.
        """
        width, height = np.asarray(bbox[:, 2:4] if sizes is None else sizes, np.float64).T
        if self.widen is not None:
            across, up = self.widen
            width, height = np.maximum(width, height * across / up), np.maximum(height, width * up / across)
        margin = 1.0 if self.margin is None else self.margin
        return margin * np.maximum(width, height) / np.asarray(bbox[:, 2], np.float64)

    def cut(self, frame_bgr: NDArray[np.uint8], bbox: ArrayLike, crop_scale: float) -> NDArray[np.uint8]:
        """The crop (size, size, 3) RGB of a picture (H, W, 3) BGR; its side is ``crop_scale`` times the box's width."""
        side = crop_scale * float(np.asarray(bbox, np.float64)[2])
        shrunk = min(side, FARTHEST * max(frame_bgr.shape[:2])) / (2 * self.size)
        if not self.blur or shrunk <= SHRUNK:
            return crop_image(frame_bgr, bbox, crop_scale, size=self.size)
        return _blurred_crop(frame_bgr, bbox, crop_scale, rule=self, sigma=(shrunk - 1) / 2)

    def words(self) -> str:
        """The rule in a line, for a manifest."""
        if self.follows_dataset:
            side = "scale * width"
        else:
            widened = f", after widening to {self.widen[0]}:{self.widen[1]}" if self.widen else ""
            side = f"{self.margin or 1:g} * the longer side{widened}"
        blur = {"": "", "gaussian": ", blurred if it shrinks", "gaussian5": ", blurred over 5 x 5 px if it shrinks"}
        return f"square of side {side}, bilinear, black outside{blur[self.blur]}"

    def to_dict(self) -> dict[str, Any]:
        """The rule as JSON values."""
        return vars(self) | {"widen": self.widen and list(self.widen)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CropRule":
        """The rule of ``to_dict``."""
        widen = values.get("widen")
        return cls(**{**values, "widen": tuple(widen) if widen else None})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_aspect(values: Any) -> bool:
    """Whether these are a width and a height of which neither is more than 10 times the other."""
    if not isinstance(values, tuple) or len(values) != 2 or not all(_is_number(value) for value in values):
        return False
    return all(0 < value < 1e6 for value in values) and max(values) <= 10 * min(values)


def _blurred_crop(
    frame: NDArray[np.uint8], bbox: ArrayLike, crop_scale: float, *, rule: CropRule, sigma: float
) -> NDArray[np.uint8]:
    """As if the whole picture were blurred; only what the crop sees of it is."""
    kind: type[np.generic] = np.uint8
    radius, border = 2, cv2.BORDER_DEFAULT
    if rule.blur == "gaussian":  # up to four standard deviations, in floating point
        radius, border, kind = int(4 * sigma + 0.5), cv2.BORDER_REPLICATE, np.float32
    x, y, width, _ = np.asarray(bbox, np.float64)
    reach = crop_scale * width / 2 + radius + 2
    rows, columns = _range(y, reach, frame.shape[0]), _range(x, reach, frame.shape[1])
    seen = frame[rows, columns].astype(kind)
    if not seen.size:
        return np.zeros((rule.size, rule.size, 3), np.uint8)
    blurred = cv2.GaussianBlur(seen, (2 * radius + 1, 2 * radius + 1), sigma, borderType=border)
    matrix = crop_matrix(bbox, crop_scale, size=rule.size)
    matrix[:, 2] += matrix[:, :2] @ (columns.start, rows.start)
    crop = cv2.warpAffine(blurred, matrix, (rule.size, rule.size), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.round(crop).astype(np.uint8)[..., ::-1])


def _range(middle: float, reach: float, length: int) -> slice:
    return slice(min(max(int(middle - reach), 0), length), min(max(int(middle + reach) + 1, 0), length))
