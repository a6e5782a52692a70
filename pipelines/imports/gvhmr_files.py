"""Files of GVHMR in, their columns out: a file of torch.save for each video, in a folder, or one with a dict of videos.

A video has features (F, 1024) of type float16 or float32, bbx_xys (F, 3): centre x, centre y and side of the crop in
px, and perhaps start_end, the frames of the video. Labels are in the same file (emdb_vit_v4.pt) or in files beside it
(test_3dpw_gt_labels.pt, preproc_test_kp2d_v0.pt), {video: {smpl_params, T_w2c, gender, mask_wham}} or {video: kp2d}.
smpl_params are SMPL's, with 69 numbers of body_pose, in the world; T_w2c (F, 4, 4) takes them to the camera frame.
Those of SMPL-X, with 63 numbers, are not used.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.torch_index import Stored
from pipelines.imports.feature_columns import Column
from pipelines.imports.hmr2_layouts import FEATURES
from pipelines.imports.sequences import Columns, Computed, Counting, Repeated, join
from pipelines.imports.torch_places import Place, open_torch
from pipelines.imports.wham_files import detected

FEATURE_NAMES = ("features", "f_imgseq")
MASKS = ("mask_wham", "mask")  # the frames that are evaluated


class Entry(NamedTuple):
    """What a file says about a video."""

    values: Mapping[str, Any]
    place: Place  # of its tensors

    def column(self, name: str) -> Column | None:
        """A tensor with rows; None where there is none of this name."""
        value = self.values.get(name)
        return self.place(value) if isinstance(value, Stored) and value.shape else None


def video_files(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, sorted."""
    return sorted(path for path in folder.rglob("*.pt") if path.is_file())


def open_gvhmr(path: Path, labels: Sequence[Path]) -> Columns:
    """The columns of all videos of a file or folder. A video that cannot be used, or its file, is skipped.

    InputError where none can be used, or where a file of labels cannot be read.
    """
    beside = [_videos_of_labels(file) for file in labels]
    sequences: dict[str, dict[str, Column]] = {}
    skipped: list[dict[str, Any]] = []
    for name, found in _videos(path):
        try:
            if isinstance(found, InputError):
                raise found
            entries = [found, *(videos[name] for videos in beside if name in videos)]
            sequences[name] = _columns_of(entries)
        except InputError as error:
            skipped.append({"what": name, "reason": str(error).removeprefix(f"{path}/"), "frames": 0})
    return join(sequences, skipped, str(path))


def _videos(path: Path) -> Iterator[tuple[str, Entry | InputError]]:
    """Yields (name, what the file says) for each video."""
    if path.is_file():
        content, place = open_torch(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds a {type(content).__name__}, not the features of videos")
        if any(name in content for name in FEATURE_NAMES):
            yield path.stem, Entry(content, place)
            return
        for name, values in content.items():
            is_video = isinstance(values, dict)
            yield str(name), Entry(values, place) if is_video else InputError("holds no features of a video")
        return
    for file in video_files(path):
        name = file.relative_to(path).with_suffix("").as_posix()
        try:
            content, place = open_torch(file)
        except InputError as error:
            yield name, error
            continue
        is_video = isinstance(content, dict)
        yield name, Entry(content, place) if is_video else InputError("holds no features of a video")


def _videos_of_labels(path: Path) -> dict[str, Entry]:
    content, place = open_torch(path)
    if not isinstance(content, dict):
        raise InputError(f"--labels {path}: holds a {type(content).__name__}, not a dict of videos")
    found = {}
    for name, values in content.items():
        found[str(name)] = Entry(values if isinstance(values, dict) else {"kp2d": values}, place)
    return found


def _columns_of(entries: Sequence[Entry]) -> dict[str, Column]:
    """The columns of a video; the first entry that has something is used."""

    def first(*names: str) -> Column | None:
        found = (entry.column(name) for name in names for entry in entries)
        return next((column for column in found if column is not None), None)

    features, boxes = first(*FEATURE_NAMES), first("bbx_xys")
    if features is None:
        raise InputError("no features in it")
    if features.shape[1:] != (FEATURES,):
        raise InputError(f"features have shape {features.shape[1:]} per frame, but HMR2.0's have {FEATURES} numbers")
    if features.dtype not in (np.float16, np.float32):
        raise InputError(f"features are {features.dtype}, not float16 or float32")
    if boxes is None or boxes.shape[1:] != (3,):
        raise InputError("no bbx_xys in it, the centres and sides of the crops")
    count = features.shape[0]
    columns: dict[str, Column] = {
        "features": features,
        "bbox": Computed([boxes], lambda rows: rows[:, [0, 1, 2, 2]], (4,)),
        "frame_id": Counting(_start(entries[0]), count),
    }
    if (kp2d := first("kp2d")) is not None and kp2d.shape == (count, 17, 3):
        columns["joints2D"] = Computed([kp2d], detected, (17, 3))
    if (mask := first(*MASKS)) is not None and mask.shape == (count,):
        columns["valid"] = mask
    columns |= _smpl(entries, count)
    gender = next((entry.values["gender"] for entry in entries if isinstance(entry.values.get("gender"), str)), None)
    return columns if gender is None else columns | {"gender": Repeated(gender, count)}


def _start(entry: Entry) -> int:
    """The number of the first frame in the video."""
    value = entry.values.get("start_end", 0)
    if isinstance(value, Stored):
        value = entry.place(value).rows(0, 1).tolist()
    value = value[0] if isinstance(value, list | tuple) and value else value
    return value if type(value) is int and value >= 0 else 0


def _smpl(entries: Sequence[Entry], count: int) -> dict[str, Column]:
    """The columns pose (count, 72) rad, in the camera frame, and shape (count, 10), where there are such labels."""
    for entry in entries:
        smpl = entry.values.get("smpl_params")
        if not isinstance(smpl, dict):
            continue
        named = Entry(smpl, entry.place)
        shapes = {"global_orient": (count, 3), "body_pose": (count, 69), "betas": (count, 10)}
        columns = {name: named.column(name) for name in shapes} | {"T_w2c": entry.column("T_w2c")}
        found = [column for column in columns.values() if column is not None]
        if [column.shape for column in found] == [*shapes.values(), (count, 4, 4)]:
            orient, body, betas, camera = found
            return {"pose": Computed([orient, body, camera], _camera_pose, (72,)), "shape": betas}
    return {}


def _camera_pose(orient: NDArray[Any], body: NDArray[Any], camera: NDArray[Any]) -> NDArray[np.float64]:
    """World to camera: (n, 3) rad, (n, 69), (n, 4, 4) -> (n, 72); NaN where a camera's matrix is no rotation."""
    turn = camera[:, :3, :3].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        rigid = (off < 1e-3) & (np.linalg.det(np.nan_to_num(turn)) > 0) & np.isfinite(orient).all(1)
    pose = np.concatenate([orient, body], axis=1).astype(np.float64)
    pose[~rigid] = np.nan
    if rigid.any():
        turned = Rotation.from_matrix(turn[rigid]) * Rotation.from_rotvec(pose[rigid, :3])
        pose[rigid, :3] = turned.as_rotvec()
    return pose
