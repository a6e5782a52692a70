"""Renders in; crops of people with their labels out, augmented at random, and batches of them."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from glot.human.crop import DEFAULT_CROP_SCALE, crop_matrix, keypoints_to_crop, normalise
from glot.human.joints import SMPL_MIRROR, SPIN49
from glot.human.rotation import axis_angle_to_rotmat
from pipelines.decoders.threedpw import ENLARGE
from pipelines.pretraining.recipe import CropStage, PretrainingRecipe
from pipelines.pretraining.renders import Renders
from pipelines.scenes.filming import MIN_DETECTED, TO_18

MID_HIP = SPIN49.index("OP MidHip")


def other_side(name: str) -> str:
    """The name of the mirrored joint among SPIN's 49; for the middle of the body, the same name."""
    prefix, rest = ("OP ", name[3:]) if name.startswith("OP ") else ("", name)
    swap = {"L": "R", "R": "L", "l": "r", "r": "l"}.get(rest[0])
    return prefix + swap + rest[1:] if swap and prefix + swap + rest[1:] in SPIN49 else name


MIRROR49 = [SPIN49.index(other_side(name)) for name in SPIN49]


def person_box(keypoints2d: np.ndarray) -> np.ndarray:
    """(4,) square box in px around the visible joints of 3DPW's 18, as extraction makes it from detected joints."""
    points = keypoints2d[TO_18]
    found = points[:, 2] > 0.5
    points = points[found] if found.sum() >= MIN_DETECTED else points
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    side = ENLARGE * max(float(np.linalg.norm(high - low)), 8.0)
    return np.array([*(low + high) / 2, side, side])


@dataclass(frozen=True)
class LabelledCrop:
    """``image`` (size, size, 3) uint8 RGB; ``keypoints2d`` (49, 3: x, y in crop units, visible), ``joints3d`` (49, 3) m
    from the pelvis, ``pose`` (24, 3) rad, both in the camera frame, ``betas`` (10,)."""

    image: np.ndarray
    keypoints2d: np.ndarray
    joints3d: np.ndarray
    pose: np.ndarray
    betas: np.ndarray


def take_crop(renders: Renders, index: int, *, size: int, rng: np.random.Generator | None = None) -> LabelledCrop:
    """The crop of one person. With ``rng``: shifted, scaled, mirrored, recoloured, blurred and covered at random."""
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
        pose = pose[list(SMPL_MIRROR)] * [1, -1, -1]
    if half:  # pixel (u, v) of the full picture is ((u - 0.5) / 2, (v - 0.5) / 2) of the halved one
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(1)
        matrix[:, :2] *= 2
    image = cv2.warpAffine(renders.image(index, half=half), matrix, (size, size), flags=cv2.INTER_LINEAR)[..., ::-1]
    if rng is not None:
        image = disturb(image, rng)
    image = np.ascontiguousarray(image)
    values = (np.asarray(v, np.float32) for v in (keypoints, joints3d, pose, labels["betas"]))
    return LabelledCrop(image, *values)


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) uint8 with another exposure and white balance, sometimes with a block, blur or grain."""
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


def collate(crops: list[LabelledCrop], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Normalised images (B, 3, size, size), channels last, and the targets of ``pose_loss``."""
    images = normalise(torch.from_numpy(np.stack([c.image for c in crops])).to(device))
    target = {
        name: torch.from_numpy(np.stack([getattr(c, name) for c in crops])).to(device)
        for name in ("keypoints2d", "joints3d", "pose", "betas")
    }
    target["rotmats"] = axis_angle_to_rotmat(target.pop("pose"))
    return images.contiguous(memory_format=torch.channels_last), target


class CropLoader:
    """Batches of random crops of the renders, made by threads; the next batch is prepared in advance.

    The seed and k determine crop k of a run, so a resumed run sees the same crops.
    """

    def __init__(self, renders: Renders, recipe: PretrainingRecipe, *, threads: int) -> None:
        self.renders, self.recipe = renders, recipe
        self.pool = ThreadPoolExecutor(threads)
        self._next: tuple[tuple[int, CropStage], list[Future[LabelledCrop]]] | None = None

    def batch(self, first: int, stage: CropStage) -> list[LabelledCrop]:
        """The crops ``first``, ``first`` + 1, ... of the run."""
        crops = self._next[1] if self._next and self._next[0] == (first, stage) else self._submit(first, stage)
        self._next = ((first + stage.batch, stage), self._submit(first + stage.batch, stage))
        return [crop.result() for crop in crops]

    def _submit(self, first: int, stage: CropStage) -> list[Future[LabelledCrop]]:
        return [self.pool.submit(self._crop, number, stage.size) for number in range(first, first + stage.batch)]

    def _crop(self, number: int, size: int) -> LabelledCrop:
        epoch, place = divmod(number, len(self.renders))
        index = _shuffled(self.recipe.seed, epoch, len(self.renders))[place]
        return take_crop(self.renders, int(index), size=size, rng=np.random.default_rng([self.recipe.seed, 2, number]))


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of ``count`` renders in an epoch."""
    return np.random.default_rng([seed, 3, epoch]).permutation(count)
