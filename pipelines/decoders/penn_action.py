"""Penn Action's folders in (Zhang et al. 2013), clips out: one person a video, 2D joints only.

frames/0001/000001.jpg, numbered from 1, and labels/0001.mat (MATLAB v5), a row of labels for each picture.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from glot.errors import InputError
from glot.human.body import Body
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from pipelines.decoders.clips import Clip, Decoded, Decoder, Unit

SPLITS = ("train", "test")
FPS = 30.0  # nominal: the videos are from the web and the release does not say
SMALLEST_SIDE = 0.5  # px; a box of one point says nothing about the size of the person
PICTURE, LABEL = re.compile(r"(\d{6})\.jpg"), re.compile(r"\d{4}\.mat")
# The source's own order, left before right. The reference stores its files in another order and reads them in this one,
# so that a head gets an ankle's place.
JOINTS = (
    "headtop", "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist", "lhip", "rhip", "lknee", "rknee",
    "lankle", "rankle",
)  # fmt: skip
SLOTS = [SPIN49.index(name) for name in JOINTS]


def find_units(root: Path, split: str) -> list[Unit]:
    """The videos whose label file says that they are of the split; the reference mixes both in training.

    Of each .mat only its flag is read. One that cannot be, and a folder of pictures without one, are listed as train,
    where decoding says what is wrong with them.
    """
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder")
    for name in ("labels", "frames"):
        if not (root / name).is_dir():
            raise InputError(f"{root / name}: there is no such folder; --root must hold Penn Action's frames/, labels/")
    names = {name[:-4] for name in os.listdir(root / "labels") if LABEL.fullmatch(name)}
    names |= {name for name in os.listdir(root / "frames") if LABEL.fullmatch(f"{name}.mat")}
    if not names:
        raise InputError(f"{root / 'labels'}: no files such as 0001.mat in it; unpack Penn_Action.tar.gz")
    units = [_unit(root, name) for name in sorted(names) if _split(root, name) == split]
    if not units:
        raise InputError(f"{root / 'labels'}: none of its {len(names)} videos is of the {split} split")
    return units


def decode(root: Path, unit: Unit, body: Body, preprocessing: str) -> Decoded:
    """The clip of a video: the frames that have a picture, labels, and a box.

    keypoints2d: the 13 labelled joints, confidence 1 where visible and else 0. bbox: square, of the frame alone, side
    the larger one of the bounds of the visible joints. "reference" takes all joints into the box of which neither
    coordinate is 0, visible or not. There is no 3D and no SMPL.
    Pictures and labels are matched by the picture's number; by their place in the folder, one missing picture would
    move all labels after it.
    """
    labels = _read(root, unit)
    numbers = _pictures(root, unit)
    points, visible = labels[..., :2], labels[..., 2] > 0
    given = np.asarray(np.isfinite(points).all(2))
    boxes = _boxes(points, given & ((points != 0).all(2) if preprocessing == "reference" else visible))
    paired = np.isin(np.arange(len(labels)), numbers)
    frames = np.flatnonzero(paired & (boxes[:, 2] >= SMALLEST_SIDE))
    counts = {
        "pictures": len(numbers),
        "rows": len(frames),
        "pictures_without_labels": int((numbers >= len(labels)).sum()),
        "labels_without_picture": int((~paired).sum()),
        "rows_without_box": int(paired.sum()) - len(frames),
        "joints_not_finite": int((~given).sum()),
    }
    if not len(frames):
        return Decoded([], counts)
    keypoints2d = np.zeros((len(frames), len(SPIN49), 3))
    keypoints2d[:, SLOTS, :2] = np.where(given[..., None], points, 0.0)[frames]
    keypoints2d[:, SLOTS, 2] = (visible & given)[frames]
    unknown = np.zeros(len(frames), bool)
    clip = Clip(
        track_id=unit.name,
        fps=FPS,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames,
        image=[f"{unit.images}/{frame + 1:06d}.jpg" for frame in frames],
        bbox=boxes[frames],
        keypoints2d=keypoints2d,
        joints3d=np.zeros((len(frames), len(SPIN49), 3)),
        joints3d_valid=np.zeros((len(frames), len(SPIN49)), bool),
        pose=np.zeros((len(frames), 24, 3)),
        betas=np.zeros((len(frames), 10)),
        has_3d=unknown,
        has_smpl=unknown,
        valid=~unknown,
    )
    return Decoded([clip], counts)


def _unit(root: Path, name: str) -> Unit:
    annotation, images = f"labels/{name}.mat", f"frames/{name}"
    sizes = []
    if (root / images).is_dir():
        with os.scandir(root / images) as entries:
            sizes = [entry.stat().st_size for entry in entries if PICTURE.fullmatch(entry.name)]
    there = (root / annotation).is_file()
    sources = (
        {"path": annotation, "bytes": (root / annotation).stat().st_size if there else 0},
        {"path": images, "bytes": sum(sizes), "files": len(sizes)},
    )
    return Unit(name, annotation, images, len(sizes), sources)


def _split(root: Path, name: str) -> str:
    try:
        flag = float(_load(root, f"labels/{name}.mat", ["train"])["train"].ravel()[0])
    except (InputError, IndexError, KeyError, TypeError, ValueError):
        return "train"
    return "test" if flag <= 0 else "train"  # 1 is train; the other value is -1 or 0


def _load(root: Path, name: str, variables: list[str]) -> dict[str, Any]:
    try:
        with (root / name).open("rb") as file:
            return loadmat(file, variable_names=variables)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file, but there are pictures for it") from None
    except Exception as error:  # scipy lets through whatever a broken file makes of its reader
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{name}: not a readable MATLAB v5 file ({why})") from None


def _read(root: Path, unit: Unit) -> NDArray[np.float64]:
    """(N, 13, 3): x, y px and visibility, of all N labelled frames."""
    content = _load(root, unit.annotation, ["x", "y", "visibility", "train"])
    columns = []
    for name in ("x", "y", "visibility", "train"):
        if name not in content:
            raise InputError(f"{unit.annotation}: no {name} in it, so not a label file of Penn Action")
        try:
            columns.append(np.asarray(content[name], np.float64))
        except (TypeError, ValueError):
            raise InputError(f"{unit.annotation}: {name} is not an array of numbers") from None
    x, _, _, train = columns
    for name, column in zip(("x", "y", "visibility"), columns, strict=False):
        if column.ndim != 2 or column.shape != (len(x), len(JOINTS)):
            raise InputError(f"{unit.annotation}: {name} is {column.shape}, expected ({len(x)}, {len(JOINTS)})")
    if train.size != 1 or not np.isfinite(train).all():
        raise InputError(f"{unit.annotation}: train is not 1, 0 or -1, so its split is not known")
    return np.stack(columns[:3], -1)


def _pictures(root: Path, unit: Unit) -> NDArray[np.int64]:
    """Frames (n,) that have a picture, 0-based and rising."""
    try:
        names = os.listdir(root / unit.images)
    except OSError as error:
        raise InputError(f"{unit.images}: {error.strerror}, but {unit.annotation} needs its pictures") from None
    numbers = sorted(int(found[1]) - 1 for name in names if (found := PICTURE.fullmatch(name)))
    if not numbers:
        raise InputError(f"{unit.images}: no pictures 000001.jpg and so on in it")
    if numbers[0] < 0:
        raise InputError(f"{unit.images}: its pictures are numbered from 0, those of the release from 1; rename them")
    return np.array(numbers, np.int64)


def _boxes(points: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Bounds of the counted joints (N, 13) as squares (N, 4: centre x, y, width, height), or zeros."""
    low = np.where(counted[..., None], points, np.inf).min(1)
    high = np.where(counted[..., None], points, -np.inf).max(1)
    seen = counted.any(1)
    low[~seen] = high[~seen] = 0
    side = (high - low).max(1)
    return np.column_stack([(low + high) / 2, side, side])


PENN_ACTION = Decoder(
    splits=SPLITS,
    find=find_units,
    decode=decode,
    box_rule="larger side of the visible joints' bounds, frame by frame",
    reference="boxes of all joints that have neither coordinate 0, seen or not; float16",
)
