"""A body model file in, a differentiable body out: rotation matrices and betas to vertices and joints.

Reads SMPL (.pkl as released, .npz) with SPIN's side files beside it, or the open body that comes with the project.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from glot.errors import InputError
from glot.human.joints import H36M_TO_COMMON14, SMPL_PARENTS, SMPL_VERTEX_JOINT_IDS, SPIN49_FROM_54
from glot.human.safe_pickle import load_pickle

OPEN_BODY = Path(__file__).parents[1] / "assets" / "open_body.npz"
SMPL_VERTICES = 6890
JOINTS, BETAS = 24, 10


def _tree_levels() -> list[list[int]]:
    """SMPL's joints by their distance from the root: 9 levels."""
    levels = [[0]]
    while children := [joint for joint in range(1, JOINTS) if SMPL_PARENTS[joint] in levels[-1]]:
        levels.append(children)
    return levels


LEVELS = _tree_levels()


class BodyOutput(NamedTuple):
    """Metres, SMPL's own origin and axes (no translation)."""

    vertices: Tensor  # (B, V, 3)
    smpl_joints: Tensor  # (B, 24, 3)
    joints: Tensor  # (B, 49, 3), SPIN's order
    joints14: Tensor  # (B, 14, 3), COMMON14 by the Human3.6M regressor, the evaluation joints


def load_body(path: Path | None = None, *, gender: str = "neutral") -> "Body":
    """The body in ``path``: an .npz or .pkl file, or a folder with SMPL_NEUTRAL, SMPL_MALE, SMPL_FEMALE (.pkl or .npz).

    None is the open body. ``gender`` chooses inside a folder; a single file serves every gender. SMPL keeps its extra
    regressors and mean parameters in side files, looked for in the same folder: J_regressor_extra.npy,
    J_regressor_h36m.npy, smpl_mean_params.npz. Raises InputError naming the file and what is wrong with it.
    """
    file = _body_file(OPEN_BODY if path is None else Path(path), gender)
    values = load_pickle(file) if file.suffix == ".pkl" else _read_npz(file)
    if not isinstance(values, dict):
        raise InputError(f"{file}: holds a {type(values).__name__}, not the arrays of a body model")
    try:
        arrays = {key: value for key, value in _restored(values).items() if isinstance(value, np.ndarray)}
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{file}: its compact arrays do not fit together ({error}); fetch it again") from None
    sides = {} if "J_regressor_extra" in arrays else _add_side_files(arrays, file.parent)
    file_hash = _hash([file, *dict.fromkeys(sides.values())])
    is_open = path is None or (OPEN_BODY.is_file() and file_hash == _hash([OPEN_BODY]))
    return Body(_checked(arrays, file, sides), name=file.stem, file_hash=file_hash, is_open=is_open)


def require_body(body: "Body", made_with: dict[str, Any], what: str) -> None:
    """InputError unless ``what`` (features, a model) was ``made_with`` = {open, hash} the kind of body given here.

    Poses and shapes of the open body mean nothing to SMPL, and the other way round.
    """
    kinds = {True: "the open body", False: "SMPL"}
    kind = made_with.get("open")
    if kind is not None and bool(kind) != body.is_open:
        remedy = "leave --body out" if kind else "give its files with --body"
        raise InputError(f"the {what} belongs to {kinds[bool(kind)]}, --body is {kinds[body.is_open]}; {remedy}")
    if kind and made_with.get("hash") not in (None, "", body.file_hash):
        raise InputError(f"the {what} was made with another version of the open body; make it again")


class Body(nn.Module):
    """Linear blend skinning (SMPL, Loper et al. 2015) of rotation matrices. Nothing here is trained or saved.

    Attributes: ``faces`` (F, 3) int64, ``joint_regressor`` (24, V), ``parents`` (24,), ``mean_pose`` (144,),
    ``mean_shape`` (10,), ``mean_cam`` (3,), ``name``, ``file_hash``, ``is_open``; ``vertex_part`` (V,) with
    ``part_names`` where the file says which part of the person a vertex belongs to.
    """

    mean_pose: Tensor
    mean_shape: Tensor
    mean_cam: Tensor
    template: Tensor
    shape_basis: Tensor
    pose_basis: Tensor | None
    weights: Tensor
    rest_template: Tensor
    rest_basis: Tensor
    regressors: Tensor
    picked: Tensor
    from54: Tensor
    from_h36m: Tensor
    order49: Tensor
    above: Tensor
    by_level: Tensor
    from_levels: Tensor

    def __init__(self, arrays: dict[str, np.ndarray], *, name: str, file_hash: str, is_open: bool) -> None:
        super().__init__()
        self.faces = arrays["f"].astype(np.int64)
        self.joint_regressor = arrays["J_regressor"].astype(np.float32)
        self.parents: tuple[int, ...] = SMPL_PARENTS
        self.name, self.file_hash, self.is_open = name, file_hash, is_open
        self.vertex_part = arrays.get("vertex_part")
        self.part_names: tuple[str, ...] = tuple(str(name) for name in arrays.get("part_names", ()))
        for name in ("mean_pose", "mean_shape", "mean_cam"):
            _keep(self, name, arrays[name])
        template, shapes = arrays["v_template"], arrays["shapedirs"].reshape(-1, BETAS)  # (V, 3), (V*3, 10)
        poses = arrays.get("posedirs")
        if poses is not None and not poses.any():
            poses = None

        # The full path.
        _keep(self, "template", template)
        _keep(self, "shape_basis", shapes.T)
        _keep(self, "pose_basis", None if poses is None else poses.reshape(len(shapes), -1).T)
        _keep(self, "weights", arrays["weights"])
        to_rest = arrays["J_regressor"].astype(np.float64)
        rest_basis = np.einsum("jv,vcb->bjc", to_rest, arrays["shapedirs"].astype(np.float64))
        _keep(self, "rest_template", to_rest @ template)
        _keep(self, "rest_basis", rest_basis.reshape(BETAS, -1))
        _keep(self, "regressors", np.concatenate((arrays["J_regressor_extra"], arrays["J_regressor_h36m"])))
        _keep_index(self, "picked", arrays["vertex_joint_ids"])
        _keep_index(self, "from54", SPIN49_FROM_54)
        _keep_index(self, "from_h36m", H36M_TO_COMMON14)
        _keep_index(self, "above", SMPL_PARENTS[1:])
        in_order = sum(LEVELS, [])
        _keep_index(self, "by_level", [joint - 1 for joint in in_order[1:]])
        _keep_index(self, "from_levels", np.argsort(in_order))
        for depth, (upper, level) in enumerate(pairwise(LEVELS)):
            _keep_index(self, f"parents{depth}", [upper.index(SMPL_PARENTS[joint]) for joint in level])

        # The joints-only paths: 11 picked vertices and 9 regressed points complete the 49; 14 points for evaluation.
        picks = np.zeros((len(arrays["vertex_joint_ids"]), len(template)), np.float32)
        picks[np.arange(len(picks)), arrays["vertex_joint_ids"]] = 1
        used = sorted({index for index in SPIN49_FROM_54 if index >= JOINTS})
        extra = np.concatenate((picks, arrays["J_regressor_extra"]))[[index - JOINTS for index in used]]
        self._points49 = _Points(self, extra, poses)
        self._points14 = _Points(self, arrays["J_regressor_h36m"][list(H36M_TO_COMMON14)], poses)
        order49 = [index if index < JOINTS else JOINTS + used.index(index) for index in SPIN49_FROM_54]
        _keep_index(self, "order49", order49)

    def forward(self, rotmats: Tensor, betas: Tensor) -> BodyOutput:
        """rotmats (B, 24, 3, 3), each relative to its parent, and betas (B, 10) -> the whole body."""
        _check_inputs(rotmats, betas)
        batch = len(rotmats)
        rest, turns, places = self._chain(rotmats, betas)
        flat = self.template.flatten() + betas @ self.shape_basis
        if self.pose_basis is not None:
            flat = flat + _pose_feature(rotmats) @ self.pose_basis
        shaped = flat.view(batch, -1, 3)  # (B, V, 3)
        moved = places - (turns @ rest[..., None]).squeeze(-1)
        blended = self.weights @ torch.cat((turns.flatten(2), moved), dim=-1)  # (V, 24) x (B, 24, 12)
        vertices = (blended[..., :9].unflatten(-1, (3, 3)) @ shaped[..., None]).squeeze(-1) + blended[..., 9:]
        regressed = self.regressors @ vertices
        extra, h36m = regressed[:, :-17], regressed[:, -17:]
        all54 = torch.cat((places, vertices[:, self.picked], extra), dim=1)
        return BodyOutput(vertices, places, all54[:, self.from54], h36m[:, self.from_h36m])

    def joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 49, 3): the ``joints`` of the full body without a single vertex."""
        _check_inputs(rotmats, betas)
        chain = self._chain(rotmats, betas)
        return torch.cat((chain[2], self._points49(rotmats, betas, chain)), dim=1)[:, self.order49]

    def joints14(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 14, 3): the ``joints14`` of the full body without a single vertex."""
        _check_inputs(rotmats, betas)
        return self._points14(rotmats, betas, self._chain(rotmats, betas))

    def smpl_joints(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 10) -> (B, 24, 3): the ``smpl_joints`` of the full body without a single vertex."""
        _check_inputs(rotmats, betas)
        return self._chain(rotmats, betas)[2]

    def at_rest(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """betas (B, 10) -> vertices (B, V, 3) and joints (B, 24, 3) of the unposed person, in a T-pose."""
        vertices = self.template + (betas @ self.shape_basis).unflatten(-1, (-1, 3))
        return vertices, self._rest_joints(betas)

    def _rest_joints(self, betas: Tensor) -> Tensor:
        return self.rest_template + (betas @ self.rest_basis).unflatten(-1, (JOINTS, 3))

    def _chain(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rest joints (B, 24, 3), global rotations (B, 24, 3, 3), posed joints (B, 24, 3); one tree level at a time."""
        rest = self._rest_joints(betas)
        bones = rest[:, 1:] - rest[:, self.above]
        relative = torch.cat((rotmats[:, 1:], bones[..., None]), dim=-1)  # (B, 23, 3, 4): turn and bone
        turns, places = [rotmats[:, :1]], [rest[:, :1]]
        sizes = [len(level) for level in LEVELS[1:]]
        for depth, level in enumerate(relative[:, self.by_level].split(sizes, dim=1)):
            parents = getattr(self, f"parents{depth}")
            moved = turns[-1][:, parents] @ level
            turns.append(moved[..., :3])
            places.append(places[-1][:, parents] + moved[..., 3])
        return rest, torch.cat(turns, dim=1)[:, self.from_levels], torch.cat(places, dim=1)[:, self.from_levels]


class _Points(nn.Module):
    """Fixed linear combinations of vertices, evaluated without the vertices.

    A point is p = sum_v r_v sum_j w_vj (G_j (s_v - rest_j) + x_j), where s_v is linear in betas and pose. The sums over
    vertices can be done once: p = sum_j G_j (m_pj + S_pj [betas, pose]) + c_pj x_j, for the few bones j that reach it.
    """

    offset: Tensor
    basis: Tensor
    share: Tensor
    bone: Tensor
    spread: Tensor

    def __init__(self, body: Body, rows: np.ndarray, poses: np.ndarray | None) -> None:
        super().__init__()
        template = body.template.numpy().astype(np.float64)
        shapes = body.shape_basis.numpy().T.reshape(len(template), 3, BETAS)
        weights = body.weights.numpy()
        rest = body.rest_template.numpy().astype(np.float64)
        rest_basis = body.rest_basis.numpy().astype(np.float64).T.reshape(JOINTS, 3, BETAS)
        offsets, bases, shares, bones, owners = [], [], [], [], []
        for point, row in enumerate(rows):
            touched = np.flatnonzero(row)
            pull = (row[touched, None].astype(np.float64) * weights[touched]).T  # (24, touched)
            # A pair that carries under 1e-9 of the weight moves its point by under a nanometre.
            near = np.flatnonzero(np.abs(pull).sum(1) > 1e-9)
            pull = pull[near]
            share = pull.sum(1)
            offsets.append(pull @ template[touched] - share[:, None] * rest[near])
            basis = np.tensordot(pull, shapes[touched], 1) - share[:, None, None] * rest_basis[near]
            if poses is not None:
                basis = np.concatenate((basis, np.tensordot(pull, poses[touched].astype(np.float64), 1)), axis=-1)
            bases.append(basis)
            shares.append(share)
            bones.append(near)
            owners.append(np.full(len(near), point))
        bone, owner = np.concatenate(bones), np.concatenate(owners)
        spread = np.zeros((len(rows), len(bone)), np.float32)  # adds the pairs of a point
        spread[owner, np.arange(len(bone))] = 1
        basis = np.concatenate(bases)  # (pairs, 3, 10 or 217)
        _keep(self, "offset", np.concatenate(offsets))
        _keep(self, "basis", basis.reshape(-1, basis.shape[-1]).T)
        _keep(self, "share", np.concatenate(shares)[:, None])
        _keep(self, "spread", spread)
        _keep_index(self, "bone", bone)

    def forward(self, rotmats: Tensor, betas: Tensor, chain: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """-> (B, P, 3)."""
        _, turns, places = chain
        inputs = betas if len(self.basis) == BETAS else torch.cat((betas, _pose_feature(rotmats)), dim=-1)
        local = self.offset + (inputs @ self.basis).unflatten(-1, (-1, 3))  # (B, pairs, 3)
        turned = (turns[:, self.bone] @ local[..., None]).squeeze(-1) + self.share * places[:, self.bone]
        return self.spread @ turned


def _keep(module: nn.Module, name: str, values: np.ndarray | None) -> None:
    tensor = None if values is None else torch.from_numpy(np.ascontiguousarray(values, np.float32))
    module.register_buffer(name, tensor, persistent=False)


def _keep_index(module: nn.Module, name: str, values: Sequence[int] | np.ndarray) -> None:
    # A buffer, because a list of numbers as an index is copied to the device at every use.
    module.register_buffer(name, torch.tensor(np.asarray(values, np.int64)), persistent=False)


def _pose_feature(rotmats: Tensor) -> Tensor:
    """R - I of every joint but the root: (B, 207), what the pose blendshapes are linear in."""
    return (rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)).flatten(1)


def _check_inputs(rotmats: Tensor, betas: Tensor) -> None:
    if rotmats.shape[1:] != (JOINTS, 3, 3) or betas.shape[1:] != (BETAS,) or len(rotmats) != len(betas):
        found = f"{tuple(rotmats.shape)} and {tuple(betas.shape)}"
        raise ValueError(f"the body takes rotmats (B, 24, 3, 3) and betas (B, 10), not {found}")


def _body_file(path: Path, gender: str) -> Path:
    if gender not in ("neutral", "male", "female"):
        raise InputError(f"gender={gender}: must be neutral, male or female")
    if path.is_dir():
        names = [f"SMPL_{gender.upper()}{suffix}" for suffix in (".pkl", ".npz")]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise InputError(
                f"{path}: no {' or '.join(names)} in this folder; download SMPL (smpl.is.tue.mpg.de, neutral: "
                "smplify.is.tue.mpg.de), rename the file so and put it here"
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
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a cut or foreign file
        raise InputError(f"{path}: not a readable .npz file ({error}); fetch it again") from None


def _restored(values: dict[str, Any]) -> dict[str, Any]:
    """Undoes the compact storage of the open body: sparse triplets, four weights a vertex, small number types."""
    out = dict(values)
    vertices = len(values["v_template"]) if "v_template" in values else 0
    for name, rows in (("J_regressor", 24), ("J_regressor_extra", 9), ("J_regressor_h36m", 17)):
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
    """Adds what SMPL keeps beside itself; returns which file each array came from."""
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
    """The same arrays in the shapes everything here relies on, or an InputError that names the file and both shapes."""
    if "v_template" not in arrays or arrays["v_template"].ndim != 2:
        raise InputError(f"{file}: no v_template (V, 3) in it, so it is no SMPL body; it has {sorted(arrays)[:12]}")
    out, vertices = dict(arrays), len(arrays["v_template"])
    if "vertex_joint_ids" not in out and vertices == SMPL_VERTICES:
        out["vertex_joint_ids"] = np.array(SMPL_VERTEX_JOINT_IDS)
    if "shapedirs" in out:
        out["shapedirs"] = out["shapedirs"][..., :BETAS]  # newer releases have 300
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
    if "posedirs" in out:
        expected["posedirs"] = (vertices, 3, 9 * (JOINTS - 1))
    for name, shape in expected.items():
        where = sides.get(name, file)
        if name not in out:
            raise InputError(f"{where}: {name} is missing, expected {_shape(shape)}")
        found = out[name].shape
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
            raise InputError(f"{where}: {name} is {found}, expected {_shape(shape)}")
        if out[name].dtype.kind not in "fiu" or not np.isfinite(out[name]).all():
            raise InputError(f"{where}: {name} holds something else than finite numbers")
    parents = out["kintree_table"][0].astype(np.int64)
    if tuple(parents[1:]) != SMPL_PARENTS[1:]:
        raise InputError(f"{file}: its joints hang together as {parents.tolist()}, not as SMPL's 24 do")
    if out["f"].max() >= vertices or out["vertex_joint_ids"].max() >= vertices:
        raise InputError(f"{file}: faces or vertex joints point past the {vertices} vertices")
    return out


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
