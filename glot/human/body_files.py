"""A body model file in; its arrays out, checked, with the file's hash.

Reads SMPL (.pkl as released, .npz) with SPIN's side files beside it, or the open body that comes with the project.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glot.errors import InputError
from glot.human.joints import BETAS, JOINTS, SMPL_PARENTS, SMPL_VERTEX_JOINT_IDS
from glot.human.safe_pickle import load_pickle
from glot.shipped import ASSETS, shipped_file

OPEN_BODY = ASSETS / "open_body.npz"
SMPL_VERTICES = 6890


@dataclass(frozen=True)
class BodyFile:
    """What a body model file holds. The arrays have SMPL's names; ``_expected_shapes`` lists them."""

    arrays: dict[str, np.ndarray]
    name: str
    file_hash: str
    is_open: bool


def read_body_file(path: Path | None, *, gender: str = "neutral") -> BodyFile:
    """The body in ``path``: an .npz or .pkl file, or a folder with SMPL_NEUTRAL, SMPL_MALE, SMPL_FEMALE (.pkl or .npz).

    None is the open body. ``gender`` chooses a file of a folder; a single file is used for all genders. SMPL keeps its
    extra regressors and mean parameters in side files, which must be in the same folder: J_regressor_extra.npy,
    J_regressor_h36m.npy, smpl_mean_params.npz. Raises InputError naming the file and what is wrong with it.
    """
    file = _body_file(shipped_file(OPEN_BODY.name) if path is None else Path(path), gender)
    values = load_pickle(file) if file.suffix == ".pkl" else _read_npz(file)
    if not isinstance(values, dict):
        raise InputError(f"{file}: holds a {type(values).__name__}, not the arrays of a body model")
    try:
        arrays = {key: value for key, value in _expanded(values).items() if isinstance(value, np.ndarray)}
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{file}: its compact arrays do not fit together ({error}); fetch it again") from None
    sides = {} if "J_regressor_extra" in arrays else _add_side_files(arrays, file.parent)
    file_hash = _hash([file, *dict.fromkeys(sides.values())])
    is_open = path is None or file_hash == _hash([shipped_file(OPEN_BODY.name)])
    return BodyFile(_checked(arrays, file, sides), file.stem, file_hash, is_open)


def _body_file(path: Path, gender: str) -> Path:
    if gender not in ("neutral", "male", "female"):
        raise InputError(f"gender={gender}: must be neutral, male or female")
    if path.is_dir():
        names = [f"SMPL_{gender.upper()}{suffix}" for suffix in (".pkl", ".npz")]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise InputError(
                f"{path}: no {' or '.join(names)} in this folder; download SMPL (smpl.is.tue.mpg.de, neutral: "
                "smplify.is.tue.mpg.de), give the file that name and put it here"
            )
        return found[0]
    if not path.is_file():
        raise InputError(f"{path}: there is no such body file or folder")
    if path.suffix not in (".pkl", ".npz"):
        raise InputError(f"{path}: a body is a .pkl or .npz file, or a folder with SMPL_NEUTRAL.pkl")
    return path


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # numpy and zipfile raise many kinds of exceptions for a truncated or foreign file
        raise InputError(f"{path}: not a readable .npz file ({error}); fetch it again") from None


def _expanded(values: dict[str, Any]) -> dict[str, Any]:
    """Undoes the compact storage of the open body: sparse triplets, four weights a vertex, small number types."""
    out = dict(values)
    vertices = len(values["v_template"]) if "v_template" in values else 0
    for name, rows in (("J_regressor", JOINTS), ("J_regressor_extra", 9), ("J_regressor_h36m", 17)):
        if f"{name}_value" in values:
            dense = np.zeros((rows, vertices), np.float32)
            dense[values[f"{name}_row"], values[f"{name}_col"]] = values[f"{name}_value"]
            out[name] = dense
    if "weights_value" in values:
        dense = np.zeros((vertices, JOINTS), np.float32)
        shares = values["weights_value"].astype(np.float32) / 65535
        np.add.at(dense, (np.arange(vertices)[:, None], values["weights_joint"]), shares)
        out["weights"] = dense
    return out


def _add_side_files(arrays: dict[str, np.ndarray], folder: Path) -> dict[str, Path]:
    """Adds the arrays of SMPL's side files to ``arrays``; returns the file that each of them came from."""
    regressors = [folder / "J_regressor_extra.npy", folder / "J_regressor_h36m.npy"]
    mean = folder / "smpl_mean_params.npz"
    for file in (*regressors, mean):
        if not file.is_file():
            raise InputError(f"{file}: missing; it is in SPIN's data archive (fetch_data.sh), put it beside the body")
    for file in regressors:
        try:
            with file.open("rb") as stream:
                arrays[file.stem] = np.load(stream, allow_pickle=False)
        except Exception as error:
            raise InputError(f"{file}: not a readable .npy file ({error}); fetch it again") from None
    means = _read_npz(mean)
    for name in ("pose", "shape", "cam"):
        if name not in means:
            raise InputError(f"{mean}: found {sorted(means)}, expected pose, shape and cam")
        arrays[f"mean_{name}"] = means[name].reshape(-1)
    return {file.stem: file for file in regressors} | {f"mean_{name}": mean for name in ("pose", "shape", "cam")}


def _checked(arrays: dict[str, np.ndarray], file: Path, sides: dict[str, Path]) -> dict[str, np.ndarray]:
    """The same arrays in the shapes that ``Body`` relies on, or an InputError that names the file and both shapes."""
    if "v_template" not in arrays or arrays["v_template"].ndim != 2:
        raise InputError(f"{file}: no v_template (V, 3) in it, so it is no SMPL body; it has {sorted(arrays)[:12]}")
    out, vertices = dict(arrays), len(arrays["v_template"])
    if "vertex_joint_ids" not in out and vertices == SMPL_VERTICES:
        out["vertex_joint_ids"] = np.array(SMPL_VERTEX_JOINT_IDS)
    if "shapedirs" in out:
        out["shapedirs"] = out["shapedirs"][..., :BETAS]  # newer releases have 300
    for name, shape in _expected_shapes(vertices, poses="posedirs" in out).items():
        where = sides.get(name, file)
        if name not in out:
            raise InputError(f"{where}: {name} is missing, expected {_shape(shape)}")
        found = out[name].shape
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
            raise InputError(f"{where}: {name} is {found}, expected {_shape(shape)}")
        if out[name].dtype.kind not in "fiu" or not np.isfinite(out[name]).all():
            raise InputError(f"{where}: {name} holds values that are not finite numbers")
    parents = out["kintree_table"][0].astype(np.int64)
    if tuple(parents[1:]) != SMPL_PARENTS[1:]:
        raise InputError(f"{file}: the parents of its joints are {parents.tolist()}, not those of SMPL's 24 joints")
    if out["f"].max() >= vertices or out["vertex_joint_ids"].max() >= vertices:
        raise InputError(f"{file}: faces or vertex joints name vertices that do not exist; it has {vertices}")
    return out


def _expected_shapes(vertices: int, *, poses: bool) -> dict[str, Sequence[int | None]]:
    """Name of an array -> its shape, None for any size. ``poses``: whether the body has pose blendshapes."""
    expected: dict[str, Sequence[int | None]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, BETAS),
        "weights": (vertices, JOINTS),
        "J_regressor": (JOINTS, vertices),
        "J_regressor_extra": (9, vertices),
        "J_regressor_h36m": (17, vertices),
        "f": (None, 3),
        "kintree_table": (2, JOINTS),
        "vertex_joint_ids": (21,),
        "mean_pose": (6 * JOINTS,),
        "mean_shape": (BETAS,),
        "mean_cam": (3,),
    }
    return expected | ({"posedirs": (vertices, 3, 9 * (JOINTS - 1))} if poses else {})


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
