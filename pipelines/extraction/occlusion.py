"""Pascal VOC's cut-out objects in, person crops with some of them pasted over out (Sárándi et al. 2018).

The features of the paper's "occ" sets come from such crops. What is pasted where follows from the seed, the track and
the frame alone, so it does not matter who does the work, in which order, or how often it was interrupted.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from glot.cli import progress
from glot.errors import InputError
from glot.human.crop import CROP_SIZE
from glot.people.video import Unreadable
from pipelines.decoders.frames import Alter, read_picture

PER = ("frame", "track")
FEWEST_PIXELS = 500  # of an object worth pasting, in VOC's own resolution
RIM = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (8, 8))  # how wide the soft edge is, px
RIM_ALPHA = 192  # of 255
KEPT_SIZE = 0.5  # objects are kept at half of VOC's size
MOST = 7  # occluders at once
SCALES = (0.2 * CROP_SIZE / 256, 1.0 * CROP_SIZE / 256)  # of a kept object when pasted
VISIT_FRAMES = (60, 240)  # how long an object takes to cross the crop of a track


@dataclass(frozen=True)
class Occlusion:
    """Objects and how to paste them: anew in every ``frame``, as published, or along a ``track`` as things pass by.

    Along a track, each of 1 to 7 objects crosses the crop in a straight line, from outside to outside, and another one
    follows it. So there are fewer in sight at a time, and nothing appears or vanishes inside a crop.
    """

    objects: tuple[NDArray[np.uint8], ...]  # (h, w, 4) RGB times alpha, alpha
    per: str  # one of PER
    seed: int
    people: bool  # whether some of the objects are people

    def describe(self) -> dict[str, Any]:
        """For a manifest: two runs may share a folder only if these agree."""
        digest = hashlib.sha256()
        for pixels in self.objects:
            digest.update(str(pixels.shape).encode() + pixels.tobytes())
        objects = {"objects": len(self.objects), "hash": digest.hexdigest()[:16], "people": self.people}
        return {**objects, "per": self.per, "seed": self.seed}

    def paste(self, crop: NDArray[np.uint8], track: str, frame: int) -> NDArray[np.uint8]:
        """A copy of the RGB crop with what covers ``track`` at ``frame``, the source's frame number. Places and sizes
        are made for 224 px; a crop of another size shows the same."""
        crop, zoom = crop.copy(), len(crop) / CROP_SIZE
        for number, scale, centre in (self._anew if self.per == "frame" else self._passing)(track, frame):
            paste(crop, self.objects[number], zoom * scale, zoom * centre)
        return crop

    def over(self, name: str) -> Alter:
        """What pipelines.decoders.frames.read_crops does to every crop of the split of that name."""
        return lambda crop, clip, row: self.paste(crop, f"{name}/{clip.track_id}", int(clip.frame_index[row]))

    def _anew(self, track: str, frame: int) -> list[tuple[int, float, NDArray[np.float64]]]:
        rng = _random(self.seed, track, frame)
        return [
            (int(rng.integers(len(self.objects))), rng.uniform(*SCALES), rng.uniform(0, CROP_SIZE, 2))
            for _ in range(rng.integers(1, MOST + 1))
        ]

    def _passing(self, track: str, frame: int) -> list[tuple[int, float, NDArray[np.float64]]]:
        rng = _random(self.seed, track)
        found = []
        for slot in range(rng.integers(1, MOST + 1)):
            duration, phase = rng.integers(*VISIT_FRAMES), rng.random()
            visit, when = divmod(frame / duration + phase, 1.0)  # which object it is, 0 to 1 how far it is
            visitor = _random(self.seed, track, slot, int(visit))
            number, scale = int(visitor.integers(len(self.objects))), visitor.uniform(*SCALES)
            through, angle = visitor.uniform(0, CROP_SIZE, 2), visitor.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle)])
            margin = scale * np.hypot(*self.objects[number].shape[:2]) / 2 + 1
            enters, leaves = (
                through + side * direction * _way_out(through, side * direction, margin) for side in (-1, 1)
            )
            found.append((number, scale, enters + when * (leaves - enters)))
        return found


def paste(crop: NDArray[np.uint8], item: NDArray[np.uint8], scale: float, centre: NDArray[np.floating]) -> None:
    """Blends an object (h, w, 4) into the crop (H, W, 3), ``scale`` times its size around centre (x, y), in place."""
    height, width = (max(1, round(scale * size)) for size in item.shape[:2])
    left, top = (round(float(at) - size / 2) for at, size in zip(centre, (width, height), strict=True))
    # The part that is inside, in the object's pixels.
    x0, y0 = max(0, -left), max(0, -top)
    x1, y1 = min(width, crop.shape[1] - left), min(height, crop.shape[0] - top)
    if x0 >= x1 or y0 >= y1:
        return
    scaled = cv2.resize(item, (width, height), interpolation=cv2.INTER_AREA)[y0:y1, x0:x1].astype(np.float32)
    below = crop[top + y0 : top + y1, left + x0 : left + x1]
    below[:] = np.round(scaled[..., :3] + below * (1 - scaled[..., 3:] / 255)).clip(0, 255).astype(np.uint8)


def _way_out(point: NDArray[np.float64], direction: NDArray[np.float64], margin: float) -> float:
    """How far from a point of the crop it is, in a direction, until one coordinate is ``margin`` px outside."""
    walls = np.where(direction > 0, CROP_SIZE + margin, -margin)
    with np.errstate(divide="ignore"):
        return float(((walls - point) / direction).min())


def load_occlusion(
    folder: Path | None, per: str | None, seed: int, *, preprocessing: str, split: str
) -> Occlusion | None:
    """What --occluders and its companions ask for; InputError where they make no sense."""
    if folder is None:
        if per is not None:
            raise InputError(f"--occluders-per {per}: there is nothing to paste without --occluders")
        return None
    reference = preprocessing == "reference"
    per = per or ("frame" if reference else "track")
    if per not in PER:
        raise InputError(f"--occluders-per {per}: there is {' and '.join(PER)}")
    if split == "all":
        raise InputError("--occluders: name one --split, such as train; covered test pictures measure something else")
    return Occlusion(load_objects(folder, people=reference), per, seed, people=reference)


def load_objects(folder: Path, *, people: bool) -> tuple[NDArray[np.uint8], ...]:
    """Cut-out objects (h, w, 4) of Pascal VOC's folder (VOCdevkit/VOC2012), at half size, in the order of their names.

    Whole and clear ones only: neither truncated nor difficult, 500 pixels or more. ``people`` are left out unless asked
    for: TCMR's code means to leave them out and pastes them. InputError where there is nothing to paste, or a file is
    not readable.
    """
    names = ("Annotations", "JPEGImages", "SegmentationObject")
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise InputError(f"--occluders {folder}: no {', '.join(missing)} in it; give VOCdevkit/VOC2012 of Pascal VOC")
    files = sorted((folder / "Annotations").glob("*.xml"))
    objects: list[NDArray[np.uint8]] = []
    for file in progress(files, total=len(files), what="read occluders"):
        root = _read_xml(file)
        if (root.findtext("segmented") or "0").strip() == "0":
            continue
        wanted = _wanted(file, root, people)
        if wanted:
            objects += _cut_out(folder, file.stem, wanted)
    if not objects:
        raise InputError(f"--occluders {folder}: {len(files)} annotations and no object in them that could be pasted")
    return tuple(objects)


def _wanted(file: Path, root: ElementTree.Element, people: bool) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(value in the mask, box x0, y0, x1, y1) of the objects to cut out; the mask counts all of them, from 1."""
    wanted = []
    for value, item in enumerate(root.findall("object"), 1):
        flags = [(item.findtext(flag) or "0").strip() != "0" for flag in ("difficult", "truncated")]
        if any(flags) or (item.findtext("name", "").strip() == "person" and not people):
            continue
        try:
            x0, y0, x1, y1 = (
                round(float(item.findtext(f"bndbox/{side}", ""))) for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except (ValueError, OverflowError):
            raise InputError(f"{file}: object {value} has no box of four numbers; unpack Pascal VOC again") from None
        wanted.append((value, (max(x0 - 1, 0), max(y0 - 1, 0), x1, y1)))  # VOC counts pixels from 1, both ends included
    return wanted


def _cut_out(folder: Path, name: str, wanted: list[tuple[int, tuple[int, int, int, int]]]) -> list[NDArray[np.uint8]]:
    picture = cv2.cvtColor(_read(folder / "JPEGImages" / f"{name}.jpg"), cv2.COLOR_BGR2RGB)
    labels = _read(folder / "SegmentationObject" / f"{name}.png")
    if picture.shape != labels.shape:
        raise InputError(f"{folder}: picture and mask of {name} are not of one size; unpack Pascal VOC again")
    objects = []
    for value, (x0, y0, x1, y1) in wanted:
        mask = (labels[y0:y1, x0:x1] == _colour(value)).all(-1).astype(np.uint8)
        if mask.sum() < FEWEST_PIXELS:
            continue
        # Objects touch their box, beyond which OpenCV would otherwise take them to go on.
        inside = cv2.erode(mask, RIM, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        alpha = np.where(inside > 0, 255, RIM_ALPHA * mask)[..., None]
        # Times alpha: what surrounds an object in its own picture must not bleed into its edge as it is made smaller.
        whole = np.concatenate([picture[y0:y1, x0:x1] * (alpha / 255), alpha], -1).round().astype(np.uint8)
        height, width = (max(1, round(KEPT_SIZE * size)) for size in mask.shape)
        objects.append(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    return objects  # type: ignore[return-value]


def _colour(value: int) -> NDArray[np.uint8]:
    """(3,) BGR of a value in VOC's palette, whose colours spread the value's bits over red, green and blue."""
    red, green, blue = (
        sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return np.array([blue, green, red], np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return read_picture(path)
    except Unreadable as error:
        raise InputError(f"{path}: {error}; unpack Pascal VOC again") from None


def _read_xml(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes()
        # A few lines of entities can ask for gigabytes; in UTF-16 they would not be seen here.
        hostile = any(mark in content for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0"))
        root = None if hostile else ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a readable annotation ({error}); unpack Pascal VOC again") from None
    if root is None:
        raise InputError(f"{file}: declares entities, which Pascal VOC's annotations do not; unpack Pascal VOC again")
    return root


def _random(seed: int, *place: object) -> np.random.Generator:
    """Numbers that belong to a place, the same whenever and wherever they are drawn."""
    digest = hashlib.sha256("/".join(map(str, (seed, *place))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
