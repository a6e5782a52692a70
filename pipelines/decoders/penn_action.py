"""Penn Action's folders in (Zhang et al. 2013), clips out: one person in each video, 2D joints only.

frames/0001/000001.jpg, numbered from 1, and labels/0001.mat (MATLAB v5) with a row of labels for each picture.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from glot.errors import InputError, raise_if_passing
from glot.human.crop import DEFAULT_CROP_SCALE
from glot.human.joints import SPIN49
from pipelines.decoders.box_variants import square_boxes
from pipelines.decoders.clips import (
    Clip,
    Decoded,
    Decoder,
    Unit,
    without_3d,
    without_smpl,
)
from pipelines.decoders.dataset_facts import PENN13
from pipelines.decoders.source_entries import NOTHING, Before, check_root, file_source, pictures_source

if TYPE_CHECKING:
    from glot.human.body import Body

SPLITS = ("train", "test")
FPS = 30.0  # nominal: the videos are from the web, and the release does not give their rates
SMALLEST_SIDE = 0.5  # px; a box around a single point does not show how large the person is
PICTURE, LABEL = re.compile(r"(\d{6})\.jpg"), re.compile(r"\d{4}\.mat")
SLOTS = [SPIN49.index(name) for name in PENN13]


def find_units(root: Path, split: str, before: Before = NOTHING) -> list[Unit]:
    """The videos whose label file assigns them to the split; the reference trains on both splits.

    Only that flag is read from each .mat file. A video whose flag cannot be read, and a folder of pictures without a
    label file, are listed under train; decoding them reports what is wrong.
    """
    check_root(root)
    for name in ("labels", "frames"):
        if not (root / name).is_dir():
            raise InputError(f"{root / name}: there is no such folder; --root must hold Penn Action's frames/, labels/")
    names = {name[:-4] for name in os.listdir(root / "labels") if LABEL.fullmatch(name)}
    names |= {name for name in os.listdir(root / "frames") if LABEL.fullmatch(f"{name}.mat")}
    if not names:
        raise InputError(f"{root / 'labels'}: no files such as 0001.mat in it; unpack Penn_Action.tar.gz")
    units = [_unit(root, name, before) for name in sorted(names) if _split(root, name) == split]
    if not units:
        raise InputError(f"{root / 'labels'}: none of its {len(names)} videos belongs to the {split} split")
    return units


def decode(root: Path, unit: Unit, body: "Body", preprocessing: str) -> Decoded:
    """The clip of a video: the frames that have a picture, labels and a box.

    keypoints2d: the 13 labelled joints, confidence 1 where the joint is visible, otherwise 0.
    bbox: a square whose side is the larger side of the visible joints' bounds, separately for each frame.
    There is no 3D and no SMPL.
    "reference" puts every joint into the box, visible or not, unless one of its coordinates is 0.

    Pictures and labels are matched by the number in the picture's name. If they were matched by position in the folder,
    one missing picture would shift all labels after it.
    """
    labels = _read(root, unit)
    numbers = _pictures(root, unit)
    points, visible = labels[..., :2], labels[..., 2] > 0
    finite = np.asarray(np.isfinite(points).all(2))
    boxes = square_boxes(points, finite & ((points != 0).all(2) if preprocessing == "reference" else visible))
    paired = np.isin(np.arange(len(labels)), numbers)
    frames = np.flatnonzero(paired & (boxes[:, 2] >= SMALLEST_SIDE))
    counts = {
        "pictures": len(numbers),
        "rows": len(frames),
        "pictures_without_labels": int((numbers >= len(labels)).sum()),
        "labels_without_picture": int((~paired).sum()),
        "rows_without_box": int(paired.sum()) - len(frames),
        "joints_not_finite": int((~finite).sum()),
    }
    if not len(frames):
        return Decoded([], counts)
    keypoints2d = np.zeros((len(frames), len(SPIN49), 3))
    keypoints2d[:, SLOTS, :2] = np.where(finite[..., None], points, 0.0)[frames]
    keypoints2d[:, SLOTS, 2] = (visible & finite)[frames]
    clip = Clip(
        track_id=unit.name,
        fps=FPS,
        crop_scale=DEFAULT_CROP_SCALE,
        gender="neutral",
        frame_index=frames,
        image=[f"{unit.images}/{frame + 1:06d}.jpg" for frame in frames],
        bbox=boxes[frames],
        keypoints2d=keypoints2d,
        valid=np.ones(len(frames), bool),
        **without_3d(len(frames)),
        **without_smpl(len(frames)),
    )
    return Decoded([clip], counts)


def _unit(root: Path, name: str, before: Before) -> Unit:
    labels, pictures = (
        file_source(root, f"labels/{name}.mat"),
        pictures_source(root, f"frames/{name}", PICTURE.fullmatch, before, unit=name),
    )
    return Unit(name, labels["path"], pictures["path"], pictures["files"], (labels, pictures))


def _split(root: Path, name: str) -> str:
    try:
        flag = float(_load(root, f"labels/{name}.mat", ["train"])["train"].ravel()[0])
    except (InputError, IndexError, KeyError, TypeError, ValueError):
        return "train"
    return "test" if flag <= 0 else "train"  # 1 stands for train; test is -1 or 0


def _load(root: Path, name: str, variables: list[str]) -> dict[str, Any]:
    try:
        with (root / name).open("rb") as file:
            return loadmat(file, variable_names=variables)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file, but there are pictures for it") from None
    except Exception as error:  # whatever scipy's parser raises on a broken file
        raise_if_passing(error, name)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{name}: not a readable MATLAB v5 file ({reason})") from None


def _read(root: Path, unit: Unit) -> NDArray[np.float64]:
    """(N, 13, 3): x, y px and visibility, of all N labelled frames."""
    content = _load(root, unit.annotation, ["x", "y", "visibility", "train"])
    columns: dict[str, NDArray[np.float64]] = {}
    for name in ("x", "y", "visibility", "train"):
        if name not in content:
            raise InputError(f"{unit.annotation}: no {name} in it, so it is not a label file of Penn Action")
        try:
            columns[name] = np.asarray(content[name], np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{unit.annotation}: {name} is not an array of numbers") from None
    train, frames = columns.pop("train"), len(columns["x"])
    for name, column in columns.items():
        if column.ndim != 2 or column.shape != (frames, len(PENN13)):
            raise InputError(f"{unit.annotation}: {name} is {column.shape}, expected ({frames}, {len(PENN13)})")
    if train.size != 1 or not np.isfinite(train).all():
        raise InputError(f"{unit.annotation}: train is not 1, 0 or -1, so its split is not known")
    return np.stack(list(columns.values()), -1)


def _pictures(root: Path, unit: Unit) -> NDArray[np.int64]:
    """Frames (n,) that have a picture, 0-based and ascending."""
    try:
        names = os.listdir(root / unit.images)
    except OSError as error:
        raise_if_passing(error, unit.images)
        raise InputError(f"{unit.images}: {error.strerror}, but {unit.annotation} needs its pictures") from None
    numbers = sorted(int(found[1]) - 1 for name in names if (found := PICTURE.fullmatch(name)))
    if not numbers:
        raise InputError(f"{unit.images}: no pictures 000001.jpg and so on in it")
    if numbers[0] < 0:
        raise InputError(
            f"{unit.images}: its pictures are numbered from 0, but those of the release from 1; rename them"
        )
    return np.array(numbers, np.int64)


PENN_ACTION = Decoder(
    splits=SPLITS,
    find=find_units,
    decode=decode,
    box_rule="larger side of the visible joints' bounds, frame by frame",
    crop_scale=DEFAULT_CROP_SCALE,
    reference="boxes of all joints that have neither coordinate 0, seen or not; float16",
)
