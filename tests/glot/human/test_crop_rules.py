"""The side of a crop, where its corners land, and its blur, which is that of the whole picture."""

import json
import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glot.errors import InputError
from glot.features.backbones.hmr2_crops import RULES
from glot.human import crop_rules
from glot.human.crop import crop_image, crop_matrix
from glot.human.crop_rules import CropRule

TALL, WIDE = (320.0, 300.0, 100.0, 260.0), (320.0, 300.0, 240.0, 80.0)  # boxes: centre x, y, width, height, px
SIDES = {  # px of the square around each box, worked out by hand
    "wham": (312.0, 288.0),  # 1.2 * 260; 1.2 * 240
    "4dhumans": (260.0, 320.0),  # 260 px high is enough for 100 wide; 240 px wide needs 240 * 256 / 192 px
    "gvhmr": (312.0, 384.0),
}
BLURRED = [RULES["4dhumans"], RULES["gvhmr"]]


def box(*values: float) -> np.ndarray:
    return np.array([values], np.float64)


def ramps(height: int = 600, width: int = 640) -> np.ndarray:
    """A picture whose red is 0.25 x + 20 and whose green is 0.25 y + 20; blue is 0."""
    y, x = np.mgrid[:height, :width]
    return np.stack([np.zeros((height, width)), 0.25 * y + 20, 0.25 * x + 20], axis=-1).round().astype(np.uint8)


def noise(height: int = 700, width: int = 900) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", RULES)
def test_the_side_is_the_one_that_the_words_say(name: str) -> None:
    for bbox, side in zip((TALL, WIDE), SIDES[name], strict=True):
        assert RULES[name].scales(box(*bbox))[0] * bbox[2] == pytest.approx(side)
        square = box(*bbox[:2], 77.0, 77.0)  # the set's own square around the person
        assert RULES[name].scales(square, box(*bbox[2:]))[0] * 77 == pytest.approx(side)
    assert RULES[name].scales(np.zeros((0, 4)), np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("which", [0, 1])
def test_every_pixel_shows_the_place_of_the_picture_that_it_should(name: str, which: int) -> None:
    """Crop px (i, j) is the picture at centre - side / 2 + (i, j) * side / 256, so the first corner is the square's."""
    bbox, side = (TALL, WIDE)[which], SIDES[name][which]
    crop = RULES[name].cut(ramps(), bbox, RULES[name].scales(box(*bbox))[0])
    assert crop.shape == (256, 256, 3) and crop.dtype == np.uint8
    places = np.arange(256) * side / 256 - side / 2
    assert np.abs(crop[:, :, 0] - (0.25 * (bbox[0] + places) + 20)[None, :]).max() <= 1
    assert np.abs(crop[:, :, 1] - (0.25 * (bbox[1] + places) + 20)[:, None]).max() <= 1
    assert not crop[:, :, 2].any()


def test_widening_grows_one_side_only_and_the_margin_grows_both() -> None:
    rng = np.random.default_rng(1)
    bbox = np.column_stack([rng.uniform(0, 500, (20, 2)), rng.uniform(10, 300, (20, 2))])
    width, height = bbox[:, 2], bbox[:, 3]
    plain, widened = CropRule(margin=1.0), CropRule(widen=(192, 256))
    assert np.allclose(plain.scales(bbox) * width, np.maximum(width, height))
    # A frame of 192:256 around the box has its height as longer side: the box's, or what its width asks for.
    assert np.allclose(widened.scales(bbox) * width, np.maximum(height, width * 256 / 192))
    assert np.allclose(CropRule(widen=(2, 1)).scales(bbox) * width, np.maximum(width, height * 2))
    assert np.allclose(CropRule(margin=1.3, widen=(192, 256)).scales(bbox), 1.3 * widened.scales(bbox))
    assert np.allclose(widened.scales(3 * bbox), widened.scales(bbox))


def test_the_rule_of_the_datasets_is_the_crop_without_a_rule() -> None:
    frame, rule = noise(), CropRule()
    assert rule.follows_dataset and not any(other.follows_dataset for other in RULES.values())
    assert np.array_equal(rule.cut(frame, TALL, 1.2), crop_image(frame, TALL, 1.2))


def whole_blurred(frame: np.ndarray, sigma: float, blur: str) -> np.ndarray:
    """The whole picture, blurred as the two projects do it: skimage's gaussian is scipy's, which cuts at 4 sigma."""
    if blur == "gaussian":
        return gaussian_filter(frame.astype(np.float32), (sigma, sigma, 0), mode="nearest", truncate=4.0)
    return cv2.GaussianBlur(frame, (5, 5), sigma)


BOXES = {
    "inside": (450, 350, 620), "upper left": (100, 80, 900), "lower right": (880, 690, 1400), "all": (450, 350, 2000),
    "above": (450, -250, 640), "a sliver": (-318, 350, 640), "just outside": (-322, 350, 640),
    "beside": (2000, 350, 1500), "between pixels": (451.37, 349.81, 777.7),
}  # fmt: skip


@pytest.mark.parametrize("rule", BLURRED, ids=lambda rule: rule.name)
@pytest.mark.parametrize("name", BOXES)
def test_a_blurred_crop_is_the_crop_of_the_whole_picture_blurred(rule: CropRule, name: str) -> None:
    x, y, side = BOXES[name]
    frame, bbox = noise(), (x, y, side / 1.2, side / 1.2)
    whole = whole_blurred(frame, (side / 512 - 1) / 2, rule.blur)
    wanted = cv2.warpAffine(whole, crop_matrix(bbox, 1.2, size=256), (256, 256), flags=cv2.INTER_LINEAR)[..., ::-1]
    found = rule.cut(frame, bbox, 1.2)
    assert np.abs(found - wanted.astype(np.float64)).max() <= 1
    assert bool(found.any()) == (name not in ("just outside", "beside"))


@pytest.mark.parametrize("rule", BLURRED, ids=lambda rule: rule.name)
def test_blur_starts_where_the_side_is_more_than_1_1_times_512_px(
    rule: CropRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, used = noise(), []
    blur = cv2.GaussianBlur

    def spy(picture: np.ndarray, size: tuple[int, int], sigma: float, **others: Any) -> np.ndarray:
        used.append((size[0], sigma))
        return blur(picture, size, sigma, **others)

    monkeypatch.setattr(crop_rules.cv2, "GaussianBlur", spy)
    for factor, wanted in {1.0: [], 1.0999: [], 1.1001: [0.05005], 1.5: [0.25], 2.0: [0.5]}.items():
        used.clear()
        crop = rule.cut(frame, (450, 350, 512 * factor, 512 * factor), 1.0)
        assert [sigma for _, sigma in used] == pytest.approx(wanted)
        assert all(size == (5 if rule.blur == "gaussian5" else 2 * round(4 * sigma) + 1) for size, sigma in used)
        off = np.abs(crop.astype(int) - crop_image(frame, (450, 350, 512 * factor, 1), 1.0, size=256))
        assert off.max() <= 1 if factor < 2 else off.mean() > 1, "a deviation of 0.25 px still changes nothing"
    half = replace(rule, size=128)
    used.clear()
    half.cut(frame, (450, 350, 512, 512), 1.0)
    assert [sigma for _, sigma in used] == [0.5], "the side counts in crops, not in px"


def test_without_blur_a_crop_that_shrinks_keeps_its_noise() -> None:
    frame, bbox = noise(), (450, 350, 1000, 1000)
    sharp, soft = RULES["wham"].cut(frame, bbox, 1.2), RULES["4dhumans"].cut(frame, bbox, 1.2)
    assert np.array_equal(sharp, crop_image(frame, bbox, 1.2, size=256))
    assert soft[100:150, 100:150].std() < 0.8 * sharp[100:150, 100:150].std()


@pytest.mark.parametrize("rule", [*RULES.values(), CropRule()], ids=lambda rule: rule.name)
def test_boxes_of_any_size_and_place_give_a_crop(rule: CropRule) -> None:
    frame = np.full((40, 60, 3), 200, np.uint8)
    assert (rule.cut(frame, (30, 20, 1e-3, 1e-3), 1.2) == 200).all()
    for x, y in ((1e7, 20), (-1e7, 20), (30, 1e7), (30, -1e7)):
        assert not rule.cut(frame, (x, y, 50, 50), 1.2).any()
        assert not rule.cut(frame, (x, y, 5000, 5000), 1.2).any()
    for side in (1e3, 1e5, 1e6):  # the picture is 10 px of the crop, or less than one
        crop = rule.cut(frame, (30, 20, side, side), 1.0)
        assert crop.shape == (rule.size, rule.size, 3)
        assert np.count_nonzero(crop[..., 0]) <= (math.ceil(60 * rule.size / side) + 1) ** 2
    one = np.full((1, 1, 3), 90, np.uint8)
    assert set(np.unique(rule.cut(one, (0, 0, 2000, 2000), 1.0))) <= set(range(91))


def test_rules_are_stored_as_json_and_have_words_of_their_own() -> None:
    rules = [*RULES.values(), CropRule(), CropRule("custom", 224, 1.1, (3, 4), "gaussian")]
    for rule in rules:
        stored = json.loads(json.dumps(rule.to_dict()))
        assert CropRule.from_dict(stored) == rule and hash(CropRule.from_dict(stored)) == hash(rule)
    assert len({rule.words() for rule in rules}) == len(rules)
    assert RULES["gvhmr"].words() == (
        "square of side 1.2 * the longer side, after widening to 192:256, bilinear, black outside, "
        "blurred over 5 x 5 px if it shrinks"
    )
    assert CropRule().words() == "square of side scale * width, bilinear, black outside"
    assert {name: rule.name for name, rule in RULES.items()} == {name: name for name in RULES}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 8}, "a size of 8 px"), ({"size": 2000}, "16 to 1024"), ({"size": 224.0}, "a size"),
        ({"size": True}, "a size"), ({"margin": 0.0}, "a margin of 0.0"), ({"margin": -1.2}, "a margin"),
        ({"margin": 11}, "a margin"), ({"margin": math.nan}, "a margin of nan"), ({"margin": "1.2"}, "a margin"),
        ({"margin": True}, "a margin"), ({"widen": (192,)}, "give a width and a height"),
        ({"widen": (0, 256)}, "widens to"), ({"widen": (192, math.nan)}, "widens to"), ({"widen": ()}, "widens to"),
        ({"widen": (math.inf, math.inf)}, "widens to"), ({"widen": (1, 11)}, "at most 10:1"),
        ({"widen": ("3", "4")}, "widens to"), ({"blur": "box"}, "there is gaussian"), ({"blur": None}, "None"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^crop rule odd: .*{message}") as error:
        CropRule(**{"name": "odd", **values})
    assert "\n" not in str(error.value)
