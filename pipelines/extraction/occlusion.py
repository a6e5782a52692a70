"""Crops of people and objects cut out of Pascal VOC in; crops partly covered by objects out (Sárándi et al. 2018).

The features of the paper's "occ" sets come from such crops. The seed, the track and the frame alone decide what is
pasted where. So the crops do not depend on which worker makes them, in which order, or after how many interruptions.
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
from pipelines.extraction.spec import ExtractSpec

FEWEST_PIXELS = 500  # objects with fewer pixels, at VOC's resolution, are not pasted
RIM = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (8, 8))  # erodes a mask by the width of the soft edge, px
RIM_ALPHA = 192  # opacity of the soft edge; 255 is opaque
STORED_SCALE = 0.5  # objects are stored at half of VOC's size
MOST_OBJECTS = 7  # largest number of objects in a crop at once
SCALES = (0.2 * CROP_SIZE / 256, 1.0 * CROP_SIZE / 256)  # range of a stored object's scale when it is pasted
CROSSING_FRAMES = (60, 240)  # range of the number of frames in which an object crosses the crop of a track


@dataclass(frozen=True)
class Occlusion:
    """Objects, and how to paste them.

    ``per`` = "frame": new objects in every frame, as published.
    ``per`` = "track": 1 to 7 objects at a time cross the crop of a track. Each moves in a straight line from outside
    the crop to outside the crop; then another object takes its place. So fewer objects are visible at once than with
    "frame", and no object appears or vanishes inside a crop.
    """

    objects: tuple[NDArray[np.uint8], ...]  # (h, w, 4) RGB multiplied by alpha, and alpha
    per: str  # one of pipelines.extraction.spec.OCCLUDERS_PER
    seed: int
    people: bool  # whether there are people among the objects

    def describe(self) -> dict[str, Any]:
        """For a manifest. Two runs may share a folder only if their descriptions are equal."""
        digest = hashlib.sha256()
        for pixels in self.objects:
            digest.update(str(pixels.shape).encode() + pixels.tobytes())
        objects = {"objects": len(self.objects), "hash": digest.hexdigest()[:16], "people": self.people}
        return {**objects, "per": self.per, "seed": self.seed}

    def paste(self, crop: NDArray[np.uint8], track: str, frame: int) -> NDArray[np.uint8]:
        """A copy of the RGB crop with the objects that cover ``track`` at ``frame``, the source's frame number.

        Places and sizes are chosen for 224 px; a crop of another size shows the same picture.
        """
        crop, zoom = crop.copy(), len(crop) / CROP_SIZE
        for number, scale, centre in (self._new_objects if self.per == "frame" else self._passing)(track, frame):
            paste(crop, self.objects[number], zoom * scale, zoom * centre)
        return crop

    def alter(self, name: str) -> Alter:
        """The function that pipelines.decoders.frames.read_crops applies to every crop of the split ``name``."""
        return lambda crop, clip, row: self.paste(crop, f"{name}/{clip.track_id}", int(clip.frame_index[row]))

    def _new_objects(self, track: str, frame: int) -> list[tuple[int, float, NDArray[np.float64]]]:
        rng = _random(self.seed, track, frame)
        return [
            (int(rng.integers(len(self.objects))), rng.uniform(*SCALES), rng.uniform(0, CROP_SIZE, 2))
            for _ in range(rng.integers(1, MOST_OBJECTS + 1))
        ]

    def _passing(self, track: str, frame: int) -> list[tuple[int, float, NDArray[np.float64]]]:
        rng = _random(self.seed, track)
        found = []
        for slot in range(rng.integers(1, MOST_OBJECTS + 1)):
            duration, phase = rng.integers(*CROSSING_FRAMES), rng.random()
            crossing, done = divmod(frame / duration + phase, 1.0)  # number of the crossing; how much of it is done
            crossing_rng = _random(self.seed, track, slot, int(crossing))
            number, scale = int(crossing_rng.integers(len(self.objects))), crossing_rng.uniform(*SCALES)
            through, angle = crossing_rng.uniform(0, CROP_SIZE, 2), crossing_rng.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle)])
            margin = scale * np.hypot(*self.objects[number].shape[:2]) / 2 + 1
            enters, leaves = (
                through + side * direction * _distance_out(through, side * direction, margin) for side in (-1, 1)
            )
            found.append((number, scale, enters + done * (leaves - enters)))
        return found


def paste(crop: NDArray[np.uint8], item: NDArray[np.uint8], scale: float, centre: NDArray[np.floating]) -> None:
    """Blends an object (h, w, 4) into the crop (H, W, 3), in place: at ``scale`` times its size, around (x, y) px."""
    height, width = (max(1, round(scale * size)) for size in item.shape[:2])
    left, top = (round(float(at) - size / 2) for at, size in zip(centre, (width, height), strict=True))
    # The part of the object that is inside the crop, in the object's pixels.
    x0, y0 = max(0, -left), max(0, -top)
    x1, y1 = min(width, crop.shape[1] - left), min(height, crop.shape[0] - top)
    if x0 >= x1 or y0 >= y1:
        return
    scaled = cv2.resize(item, (width, height), interpolation=cv2.INTER_AREA)[y0:y1, x0:x1].astype(np.float32)
    below = crop[top + y0 : top + y1, left + x0 : left + x1]
    below[:] = np.round(scaled[..., :3] + below * (1 - scaled[..., 3:] / 255)).clip(0, 255).astype(np.uint8)


def _distance_out(point: NDArray[np.float64], direction: NDArray[np.float64], margin: float) -> float:
    """The distance from a point of the crop along a direction to where one coordinate is ``margin`` px outside."""
    walls = np.where(direction > 0, CROP_SIZE + margin, -margin)
    with np.errstate(divide="ignore"):
        return float(((walls - point) / direction).min())


def load_occlusion(spec: ExtractSpec) -> Occlusion | None:
    """The objects of --occluders; None without that option. InputError where the folder is not Pascal VOC's."""
    if spec.occluders is None:
        return None
    reference = spec.preprocessing == "reference"
    per = spec.occluders_per or ("frame" if reference else "track")
    return Occlusion(load_objects(spec.occluders, people=reference), per, spec.seed, people=reference)


def load_objects(folder: Path, *, people: bool) -> tuple[NDArray[np.uint8], ...]:
    """The objects (h, w, 4) in Pascal VOC's folder (VOCdevkit/VOC2012), at half size, in the order of the file names.

    Left out are objects of fewer than 500 pixels, objects that VOC marks as truncated or difficult, and, unless
    ``people`` is true, people. (TCMR's code intends to leave people out, but pastes them.) InputError where no object
    remains, or a file is not readable.
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
        raise InputError(f"--occluders {folder}: {len(files)} annotations, and no object in them that can be pasted")
    return tuple(objects)


def _wanted(file: Path, root: ElementTree.Element, people: bool) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(value in the mask, box x0, y0, x1, y1) of each object to cut out. The mask numbers all objects, from 1."""
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
        wanted.append(
            (value, (max(x0 - 1, 0), max(y0 - 1, 0), x1, y1))
        )  # VOC counts pixels from 1 and includes both ends
    return wanted


def _cut_out(folder: Path, name: str, wanted: list[tuple[int, tuple[int, int, int, int]]]) -> list[NDArray[np.uint8]]:
    picture = cv2.cvtColor(_read(folder / "JPEGImages" / f"{name}.jpg"), cv2.COLOR_BGR2RGB)
    labels = _read(folder / "SegmentationObject" / f"{name}.png")
    if picture.shape != labels.shape:
        raise InputError(f"{folder}: the picture and the mask of {name} differ in size; unpack Pascal VOC again")
    objects = []
    for value, (x0, y0, x1, y1) in wanted:
        mask = (labels[y0:y1, x0:x1] == _colour(value)).all(-1).astype(np.uint8)
        if mask.sum() < FEWEST_PIXELS:
            continue
        # Objects touch the border of their box. Without a constant border, OpenCV would not erode them there.
        inside = cv2.erode(mask, RIM, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        alpha = np.where(inside > 0, 255, RIM_ALPHA * mask)[..., None]
        # Colours are multiplied by alpha, so that the background does not bleed into the edge when the object shrinks.
        whole = np.concatenate([picture[y0:y1, x0:x1] * (alpha / 255), alpha], -1).round().astype(np.uint8)
        height, width = (max(1, round(STORED_SCALE * size)) for size in mask.shape)
        objects.append(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    return objects  # type: ignore[return-value]


def _colour(value: int) -> NDArray[np.uint8]:
    """(3,) BGR of a value in VOC's palette, which spreads the bits of a value over red, green and blue."""
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
        # A few lines of entities can expand to gigabytes. Zero bytes mean UTF-16, in which the check would miss them.
        hostile = any(mark in content for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0"))
        root = None if hostile else ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a readable annotation ({error}); unpack Pascal VOC again") from None
    if root is None:
        raise InputError(f"{file}: declares entities, which no annotation of Pascal VOC does; unpack Pascal VOC again")
    return root


def _random(seed: int, *place: object) -> np.random.Generator:
    """A generator that depends on the seed and the ``place`` (track, frame, ...) alone, on every machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *place))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
