"""A made-up body in SMPL's file format, the same to the last bit everywhere; the official values were made with it.

Every array is drawn from a generator seeded by its own name, so that no file has to be shared.
"""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from glot.joints import SMPL_PARENTS

VERTICES, FACES = 6890, 13776

# A human-like T-pose in metres, y up, in SMPL's joint order.
REST = np.array(
    [
        [0.00, -0.22, 0.02], [0.06, -0.31, 0.01], [-0.06, -0.31, 0.01], [0.00, -0.11, -0.01],
        [0.10, -0.69, 0.01], [-0.10, -0.69, 0.01], [0.00, 0.03, 0.02], [0.09, -1.09, -0.03],
        [-0.09, -1.09, -0.03], [0.00, 0.08, 0.02], [0.11, -1.15, 0.09], [-0.11, -1.15, 0.09],
        [0.00, 0.29, -0.02], [0.08, 0.19, -0.01], [-0.08, 0.19, -0.01], [0.00, 0.36, 0.03],
        [0.17, 0.23, -0.02], [-0.17, 0.23, -0.02], [0.43, 0.22, -0.04], [-0.43, 0.22, -0.04],
        [0.68, 0.22, -0.04], [-0.68, 0.22, -0.04], [0.77, 0.21, -0.06], [-0.77, 0.21, -0.06],
    ],
    dtype=np.float64,
)  # fmt: skip


def generator(name: str) -> np.random.Generator:
    """The random generator that belongs to a name: seeded by the first 8 bytes of its sha256, little endian."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def model() -> dict[str, np.ndarray]:
    """The arrays of an SMPL file."""
    owner = _draw("owner").integers(0, 24, VERTICES)
    template = (REST[owner] + 0.06 * _draw("v_template").standard_normal((VERTICES, 3))).astype(np.float32)
    squares = ((template.astype(np.float64)[:, None] - REST) ** 2).sum(-1)
    logits = -squares / (2 * 0.08**2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    rng = _draw("J_regressor")
    parents = np.array(SMPL_PARENTS, np.int64) % 2**32  # SMPL writes the root's parent as 2^32 - 1
    return {
        "v_template": template,
        "shapedirs": (0.01 * _draw("shapedirs").standard_normal((VERTICES, 3, 10))).astype(np.float32),
        "posedirs": (0.002 * _draw("posedirs").standard_normal((VERTICES, 3, 207))).astype(np.float32),
        "J_regressor": _rows(rng, [np.flatnonzero(owner == joint) for joint in range(24)]),
        "weights": (weights / weights.sum(1, keepdims=True)).astype(np.float32),
        "f": _draw("f").integers(0, VERTICES, (FACES, 3)).astype(np.uint32),
        "kintree_table": np.stack((parents, np.arange(24))).astype(np.uint32),
    }


def side_arrays() -> dict[str, np.ndarray]:
    """What SPIN keeps beside SMPL: two regressors and the mean parameters."""
    rotations = np.stack([_rodrigues(vector) for vector in 0.1 * _draw("mean_pose").standard_normal((24, 3))])
    rotations[0] = np.diag([1.0, -1.0, -1.0]) @ rotations[0]  # the mean person stands upright where y points down
    return {
        "J_regressor_extra": _rows(_draw("J_regressor_extra"), [VERTICES] * 9),
        "J_regressor_h36m": _rows(_draw("J_regressor_h36m"), [VERTICES] * 17),
        "pose": rotations[:, :, :2].reshape(144).astype(np.float32),
        "shape": (0.2 * _draw("mean_shape").standard_normal(10)).astype(np.float32),
        "cam": np.array([0.9, 0, 0], np.float32),
    }


def write(folder: Path, *, suffix: str = ".npz") -> Path:
    """Writes the body file and its side files into ``folder`` as a user of SMPL has them; returns the body file."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = side_arrays()
    for name in ("J_regressor_extra", "J_regressor_h36m"):
        np.save(folder / f"{name}.npy", sides[name])
    np.savez(folder / "smpl_mean_params.npz", **{name: sides[name] for name in ("pose", "shape", "cam")})
    path = folder / f"SMPL_NEUTRAL{suffix}"
    if suffix == ".npz":
        np.savez(path, **model())
    else:
        path.write_bytes(pickle.dumps(model(), protocol=2))
    return path


def _draw(name: str) -> np.random.Generator:
    return generator(f"synth_smpl/{name}")


def _rows(rng: np.random.Generator, candidates: list) -> np.ndarray:
    """Sparse rows that sum to one, 30 vertices each, picked among the candidates of the row."""
    rows = np.zeros((len(candidates), VERTICES))
    for row, among in zip(rows, candidates, strict=True):
        picked = rng.choice(among, 30, replace=False)
        values = rng.random(30)
        row[picked] = values / values.sum()
    return rows.astype(np.float32)


def _rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
