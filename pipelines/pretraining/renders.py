"""Motions and the open body in, a cache of rendered people on disk out, and labelled crops from it.

Each shard follows from the seed and its number alone, and is written under a temporary name, then renamed: whatever is
there is whole, and running again goes on where it stopped.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
import torch

from glot import cli
from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.crop import DEFAULT_CROP_SCALE, crop_matrix, keypoints_to_crop
from glot.human.joints import SPIN49
from pipelines.decoders.threedpw import ENLARGE, FEWEST_VISIBLE, LIMBS_IN_SPIN49
from pipelines.motions.mocap import MIRROR, Motion
from pipelines.motions.variety import Variety
from pipelines.scenes.filming import MIN_DETECTED, TO_18, Picture, random_image
from pipelines.scenes.sample_dataset import motions_hash

PICTURE_SIZE = 320  # px; a crop of 224 px is then seldom enlarged by more than a half
JPEG_QUALITY = 90
MID_HIP = SPIN49.index("OP MidHip")
LABELS = {"keypoints2d": (49, 3), "joints3d": (49, 3), "pose": (24, 3), "betas": (10,)}


@dataclass(frozen=True)
class Settings:
    """All that decides what a cache contains, its length apart. ``varied`` False: poses as recorded."""

    seed: int
    motions: str  # hash of the clips
    body: str  # hash of the body file
    varied: bool = True
    shard: int = 100  # pictures in one file
    version: int = 2  # raised when the pictures of a seed change


def render(number: int, settings: Settings, *, clips: dict[str, Motion], body: Body) -> list[Picture]:
    """The pictures of shard ``number``."""
    rng = np.random.default_rng([settings.seed, int(settings.varied), number])
    poses = Variety(clips) if settings.varied else None
    pictures: list[Picture] = []
    while len(pictures) < settings.shard:
        motions = {"a": poses.clip(rng), "b": poses.clip(rng)} if poses else clips
        picture = random_image(rng, body=body, motions=motions, size=PICTURE_SIZE)
        # Whom extraction would leave out, being hidden, nobody has to recognise.
        if (picture.keypoints2d[LIMBS_IN_SPIN49, 2] > 0).sum() >= FEWEST_VISIBLE:
            pictures.append(picture)
    return pictures


def write_shard(path: Path, pictures: list[Picture]) -> None:
    codes = [cv2.imencode(".jpg", p.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for p in pictures]
    arrays = {name: np.stack([getattr(p, name) for p in pictures]).astype(np.float32) for name in LABELS}
    offsets = np.cumsum([0, *map(len, codes)])
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, jpeg=np.concatenate(codes), offsets=offsets, **arrays)  # type: ignore[arg-type]
    partial.rename(path)


class Renders:
    """A cache in memory, compressed: ``image(i)`` (H, W, 3) uint8 BGR, labels as arrays (N, ...) float32 by name.

    Raises InputError if a shard cannot be read.
    """

    def __init__(self, folder: Path, *, images: int) -> None:
        self.images, self.shard = images, int(_read_settings(folder).get("shard", 0)) or 1
        count = -(-images // self.shard)
        shards = [_read_shard(_shard(folder, number), self.shard) for number in range(count)]
        self._codes = [(shard["jpeg"], shard["offsets"]) for shard in shards]
        self.labels = {name: np.concatenate([shard[name] for shard in shards])[:images] for name in LABELS}

    def __len__(self) -> int:
        return self.images

    def image(self, index: int, *, half: bool = False) -> np.ndarray:
        """``half`` decodes at half the size, in a third of the time."""
        codes, offsets = self._codes[index // self.shard]
        code = codes[offsets[index % self.shard] : offsets[index % self.shard + 1]]
        image = cv2.imdecode(code, cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_COLOR)
        assert image is not None, "a shard that was written whole"
        return image


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def _read_shard(path: Path, size: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in ("jpeg", "offsets", *LABELS)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: not a whole shard of renders ({error}); remove it and run again") from None
    if any(arrays[name].shape != (size, *shape) for name, shape in LABELS.items()):
        raise InputError(f"{path}: not a shard of {size} renders; remove it and run again")
    return arrays


_worker: dict[str, Any] = {}


def _start_worker(body: Path | None, clips: dict[str, Motion]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(body=load_body(body), clips=clips)


def _work(folder: Path, number: int, settings: Settings) -> None:
    write_shard(_shard(folder, number), render(number, settings, **_worker))


def fill_cache(
    folder: Path,
    images: int,
    *,
    seed: int,
    clips: dict[str, Motion],
    body: Path | None = None,
    varied: bool = True,
    shard: int = Settings.shard,
    workers: int = 1,
) -> Renders:
    """Renders what is missing of ``images`` pictures and opens the cache; a longer one serves as well.

    Raises InputError if ``folder`` holds renders of another seed, other clips or another body.
    """
    settings = Settings(seed, motions_hash(clips), load_body(body).file_hash, varied, shard)
    _claim(folder, settings)
    todo = [n for n in range(-(-images // shard)) if not _shard(folder, n).is_file()]
    if todo:
        with ProcessPoolExecutor(
            max(1, min(workers, len(todo))),
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(body, clips),
        ) as pool:
            try:
                jobs = [pool.submit(_work, folder, number, settings) for number in todo]
                for job in cli.progress(as_completed(jobs), total=len(jobs), what=f"renders, {shard} each"):
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Renders(folder, images=images)


def _claim(folder: Path, settings: Settings) -> None:
    """Makes ``folder`` ours, or checks that it is."""
    if (folder / "settings.json").is_file():
        found = _read_settings(folder)
        for key, value in asdict(settings).items():
            if found.get(key) != value:
                raise InputError(
                    f"{folder}: holds renders with {key}={found.get(key)}, not {value}; "
                    "choose another --out or remove it"
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and holds no renders; choose a new or empty folder for --out")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.settings.partial"
    partial.write_text(json.dumps(asdict(settings)) + "\n")
    partial.rename(folder / "settings.json")


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{folder / 'settings.json'}: missing or damaged; remove {folder} and run again")
    return found


def other_side(name: str) -> str:
    """The joint of SPIN's 49 that a joint becomes in a mirror; itself in the middle of the body."""
    prefix, rest = ("OP ", name[3:]) if name.startswith("OP ") else ("", name)
    swap = {"L": "R", "R": "L", "l": "r", "r": "l"}.get(rest[0])
    return prefix + swap + rest[1:] if swap and prefix + swap + rest[1:] in SPIN49 else name


MIRROR49 = [SPIN49.index(other_side(name)) for name in SPIN49]


def person_box(keypoints2d: np.ndarray) -> np.ndarray:
    """(4,) square box in px round the visible ones of 3DPW's joints, as extraction boxes those detected."""
    points = keypoints2d[TO_18]
    found = points[:, 2] > 0.5
    points = points[found] if found.sum() >= MIN_DETECTED else points
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    side = ENLARGE * max(float(np.linalg.norm(high - low)), 8.0)
    return np.array([*(low + high) / 2, side, side])


@dataclass(frozen=True)
class Crop:
    """``image`` (size, size, 3) uint8 RGB; ``keypoints2d`` (49, 3: x, y in crop units, visible), ``joints3d`` (49, 3) m
    from the pelvis, ``pose`` (24, 3) rad, both in the camera frame, ``betas`` (10,)."""

    image: np.ndarray
    keypoints2d: np.ndarray
    joints3d: np.ndarray
    pose: np.ndarray
    betas: np.ndarray


def take_crop(renders: Renders, index: int, *, size: int, rng: np.random.Generator | None = None) -> Crop:
    """One person cut out; with ``rng`` shifted, scaled, mirrored, recoloured, blurred and covered at random."""
    labels = {name: values[index] for name, values in renders.labels.items()}
    box, flip = person_box(labels["keypoints2d"]), False
    if rng is not None:
        box[2:] *= rng.uniform(0.85, 1.2)
        box[:2] += box[2] * np.clip(rng.normal(0, 0.05, 2), -0.12, 0.12)
        flip = bool(rng.random() < 0.5)
    keypoints = keypoints_to_crop(labels["keypoints2d"], box, DEFAULT_CROP_SCALE)
    joints3d = labels["joints3d"] - labels["joints3d"][MID_HIP]
    pose = labels["pose"]
    matrix = crop_matrix(box, DEFAULT_CROP_SCALE, size=size)
    half = matrix[0, 0] < 0.5
    if flip:
        matrix[0] *= -1
        matrix[0, 2] += size
        keypoints = keypoints[MIRROR49] * [-1, 1, 1]
        joints3d = joints3d[MIRROR49] * [-1, 1, 1]
        pose = pose[list(MIRROR)] * [1, -1, -1]
    if half:  # pixel (u, v) of the full picture is ((u - 0.5) / 2, (v - 0.5) / 2) of the halved one
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(1)
        matrix[:, :2] *= 2
    image = cv2.warpAffine(renders.image(index, half=half), matrix, (size, size), flags=cv2.INTER_LINEAR)[..., ::-1]
    if rng is not None:
        image = disturb(image, rng)
    image = np.ascontiguousarray(image)
    values = (np.asarray(v, np.float32) for v in (keypoints, joints3d, pose, labels["betas"]))
    return Crop(image, *values)


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blocks over it, another exposure and white balance, sometimes blur and grain. (H, W, 3) uint8 -> the same."""
    size = len(image)
    image = image.copy()
    if rng.random() < 0.2:
        width, height = (rng.uniform(0.1, 0.45, 2) * size).astype(int)
        x, y = int(rng.integers(size - width)), int(rng.integers(size - height))
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    values: np.ndarray = (
        image.astype(np.float32) * rng.uniform(0.8, 1.2, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.3))
    )
    values += np.float32(rng.uniform(-20, 20))
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.0) * size / 112)
    if rng.random() < 0.3:
        values += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(rng.uniform(1, 10))
    return np.clip(values, 0, 255).astype(np.uint8)
