"""A file of WHAM (3dpw_train_vit.pth, ...) in, its columns out: joblib dumps of a dict of tensors of torch.

A file for training has a row for each frame of all people. One for evaluation has lists with an item for each person's
sequence, in which the first frame comes twice; the first of the two is left out.

features (N, 1024); bbox (N, 4) or (N, 3): centre x, centre y, ..., side of the crop, px; vid: the track; frame_id.
pose (N, 72) rad, in the camera frame, and betas (N, 10) of 3DPW and EMDB are for the gendered body, as in all published
work. Those of other datasets are left out: WHAM itself takes only the first pose of a clip from them.
joints3D (N, 31, 3) m and joints2D (N, 31, 2) px of 3DPW are those of WHAM's body. Of Human3.6M and MPI-INF-3DHP
(N, 49, ...), the common 14 are measured, and WHAM uses no others.
kp2d (N, 17, 3), from a detector, are the 2D joints where there are no others: its confidences become 0 or 1. Those of
InstaVariety are px of the stored 224 px crop; the last column of its joints2D says which of them are seen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.joints import COMMON14_IN_SPIN49
from glot.people.boxes import VISIBLE
from pipelines.imports.feature_columns import Column, InMemory
from pipelines.imports.hmr2_layouts import FEATURES, WHAM31_PICKED
from pipelines.imports.joblib_file import LazyArray, load_dump
from pipelines.imports.long_bytes import load_sparing
from pipelines.imports.sequences import Columns, Computed, Counting, Repeated, Tail, join
from pipelines.imports.torch_pickles import tensor_classes

USED = ("features", "bbox", "vid", "frame_id", "gender", "pose", "betas", "joints3D", "joints2D", "kp2d")
WITH_SMPL = ("3dpw", "emdb")
GENDERS = np.array(["male", "female"])  # their numbers in files for training


def open_wham(path: Path, dataset: str) -> Columns:
    """The columns of a file. InputError where it is missing, cut short or no such file, or asks for other classes."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            raise InputError(f"{path}: compressed, or no file of WHAM; if it is one, load it and dump it uncompressed")
    content = load_dump(path, classes=tensor_classes(path), load=load_sparing)
    if not isinstance(content, dict) or "features" not in content or "vid" not in content:
        raise InputError(f"{path}: no features and vid in it, so it is no file of WHAM")
    if isinstance(content["features"], list):
        return _of_lists(path, content, dataset)
    return _of_rows(path, content, dataset)


def _of_rows(path: Path, content: Mapping[str, Any], dataset: str) -> Columns:
    found = _columns(content)
    if missing := {"features", "vid"} - found.keys():
        raise InputError(f"{path}: {', '.join(sorted(missing))} is no array or tensor")
    for name, column in found.items():
        if column.shape[:1] != found["features"].shape[:1]:
            raise InputError(f"{path}: {name} has shape {column.shape}, but features {found['features'].shape}")
    if (size := found["features"].shape[1:]) != (FEATURES,):
        raise InputError(f"{path}: features have shape {size} per frame, but HMR2.0's have {FEATURES} numbers")
    columns = _labels(path, found, dataset)
    columns["vid_name"] = Computed([found["vid"]], _names, (), str)
    if "gender" in found:
        columns["gender"] = Computed([found["gender"]], _genders, (), str)
    return Columns(columns, [])


def _of_lists(path: Path, content: Mapping[str, Any], dataset: str) -> Columns:
    lists = {name: value for name, value in content.items() if isinstance(value, list)}
    count = len(content["features"])
    if not isinstance(content["vid"], list) or len(content["vid"]) != count:
        raise InputError(f"{path}: vid is no list with a name for each of its {count} sequences")
    sequences: dict[str, dict[str, Column]] = {}
    skipped: list[dict[str, Any]] = []
    for number, vid in enumerate(map(str, content["vid"])):
        items = {name: value[number] for name, value in lists.items() if len(value) == count}
        name = f"{vid}~{number}" if vid in sequences else vid
        try:
            sequences[name] = _sequence(path, items, dataset)
        except InputError as error:
            skipped.append({"what": vid, "reason": str(error).removeprefix(f"{path}: "), "frames": 0})
    return join(sequences, skipped, str(path))


def _sequence(path: Path, items: Mapping[str, Any], dataset: str) -> dict[str, Column]:
    found = _columns(items)
    if "features" not in found or not found["features"].shape or found["features"].shape[0] < 2:
        raise InputError(f"{path}: no features of several frames")
    rows = found["features"].shape[0]
    first = found["features"].rows(0, 2)
    if first[0].tobytes() != first[1].tobytes():
        raise InputError(f"{path}: its first frame does not come twice, so it is no sequence of WHAM")
    found = {name: Tail(column, 1) for name, column in found.items() if column.shape[:1] == (rows,)}
    columns: dict[str, Column] = {"frame_id": Counting(0, rows - 1), **_labels(path, found, dataset)}
    if "bbox" not in columns and dataset != "insta_variety":
        raise InputError(f"{path}: no bbox for each frame")
    if isinstance(items.get("gender"), str):
        columns["gender"] = Repeated(items["gender"], rows - 1)
    return columns


def _columns(content: Mapping[str, Any]) -> dict[str, Column]:
    """The tensors and arrays with rows that are used."""
    found: dict[str, Column] = {}
    for name in USED:
        value = content.get(name)
        if name == "vid" and isinstance(value, list):
            value = np.array([str(vid) for vid in value])
        column = InMemory(value) if isinstance(value, np.ndarray) else value
        if isinstance(column, LazyArray | InMemory) and column.shape:
            found[name] = column
    return found


def _labels(path: Path, found: Mapping[str, Column], dataset: str) -> dict[str, Column]:
    """The columns of a feature file, except the names of its tracks, from WHAM's columns."""
    columns = {name: found[name] for name in ("features", "frame_id") if name in found}
    if dataset != "insta_variety" and "bbox" in found:
        _check(path, found, "bbox", [(4,), (3,)])
        columns["bbox"] = Computed([found["bbox"]], _boxes, (4,))
    if dataset in WITH_SMPL and {"pose", "betas"} <= found.keys():
        columns |= {"pose": found["pose"], "shape": found["betas"]}
    if "joints3D" in found and dataset in ("3dpw", "human36m", "mpi_inf_3dhp"):
        picked = _picked(dataset)
        _check(path, found, "joints3D", [(31 if dataset == "3dpw" else 49, 3)])
        columns["joints3D"] = Computed([found["joints3D"]], lambda joints: joints[:, picked], (len(picked), 3))
    return columns | _keypoints(path, found, dataset)


def _picked(dataset: str) -> Sequence[int]:
    return WHAM31_PICKED if dataset == "3dpw" else range(49)[COMMON14_IN_SPIN49]


def _keypoints(path: Path, found: Mapping[str, Column], dataset: str) -> dict[str, Column]:
    if "joints2D" in found and dataset in ("3dpw", "human36m", "mpi_inf_3dhp"):
        picked = _picked(dataset)
        joints = 31 if dataset == "3dpw" else 49
        _check(path, found, "joints2D", [(joints, 2), (joints, 3)])
        return {"joints2D": Computed([found["joints2D"]], lambda points: _seen(points[:, picked]), (len(picked), 3))}
    if "kp2d" not in found:
        return {}
    _check(path, found, "kp2d", [(17, 3)] if dataset != "insta_variety" else [(17, 2), (17, 3)])
    if dataset != "insta_variety":
        return {"joints2D": Computed([found["kp2d"]], detected, (17, 3))}
    if "joints2D" not in found:
        return {}
    _check(path, found, "joints2D", [(17, 2), (17, 3), (17, 1)])
    return {"joints2D": Computed([found["kp2d"], found["joints2D"]], _of_crops, (17, 3))}


def _check(path: Path, found: Mapping[str, Column], name: str, shapes: Sequence[tuple[int, ...]]) -> None:
    if found[name].shape[1:] not in shapes:
        expected = " or ".join(map(str, shapes))
        raise InputError(f"{path}: {name} has shape {found[name].shape[1:]} per frame, expected {expected}")


def _boxes(boxes: NDArray[Any]) -> NDArray[Any]:
    """(n, 3 or 4) centre x, centre y, side of the crop, ... -> squares (n, 4)."""
    return boxes[:, [0, 1, 2, 2]]


def _seen(points: NDArray[Any]) -> NDArray[Any]:
    """Points (n, J, 2 or 3) -> (n, J, 3) with confidence 1; 0 where the file says so, or where the point is 0, 0."""
    seen = (points[..., :2] != 0).any(-1) & (points[..., 2:] != 0).all(-1)
    return np.concatenate([points[..., :2], seen[..., None]], axis=-1)


def detected(points: NDArray[Any]) -> NDArray[Any]:
    """Joints (n, J, 3) of a detector, with confidences of 0 or 1."""
    seen = (points[..., :2] != 0).any(-1) & (points[..., 2] > VISIBLE)
    return np.concatenate([points[..., :2], seen[..., None]], axis=-1)


def _of_crops(points: NDArray[Any], marks: NDArray[Any]) -> NDArray[Any]:
    seen = (points[..., :2] != 0).any(-1) & (marks[..., -1] != 0)
    return np.concatenate([points[..., :2], seen[..., None]], axis=-1)


def _names(vids: NDArray[Any]) -> NDArray[np.str_]:
    return np.array([f"{vid:04d}" if isinstance(vid, np.integer) else str(vid) for vid in vids])


def _genders(numbers: NDArray[Any]) -> NDArray[np.str_]:
    known = np.isin(numbers, (0, 1))
    return np.where(known, GENDERS[np.where(known, numbers, 0).astype(int)], "neutral")
