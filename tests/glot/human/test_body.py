"""The body equals smplx; its joints without vertices equal those with vertices; wrong body files are refused."""

import pickle
import shutil
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.body_files import OPEN_BODY
from glot.human.joints import COMMON14, COMMON14_IN_SPIN49, SMPL_PARENTS, SMPL_VERTEX_JOINT_IDS
from glot.human.rotation import axis_angle_to_rotmat
from tests.fixtures import synthetic_body


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMPL as a user has it: the file and its side files."""
    return synthetic_body.write(tmp_path_factory.mktemp("smpl")).parent


@pytest.fixture(scope="module")
def smpl(folder: Path) -> Body:
    return load_body(folder)


@pytest.fixture(scope="module", params=["smpl", "open"])
def body(request: pytest.FixtureRequest) -> Body:
    return request.getfixturevalue("smpl") if request.param == "smpl" else load_body()


def poses(count: int = 6, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, 24, 3, generator=generator, dtype=dtype) * 0.8
    return axis_angle_to_rotmat(vectors), torch.randn(count, 10, generator=generator, dtype=dtype)


def test_joints_without_vertices_equal_those_with(body: Body) -> None:
    rotmats, betas = poses(12)
    out = body(rotmats, betas)
    torch.testing.assert_close(body.joints(rotmats, betas), out.joints, rtol=0, atol=1e-6)
    torch.testing.assert_close(body.joints14(rotmats, betas), out.joints14, rtol=0, atol=1e-6)


def test_gradients_of_joints_without_vertices_equal_those_with(body: Body) -> None:
    rotmats, betas = poses(3)
    weights = torch.randn(3, 49, 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    for joints in (lambda r, b: body.joints(r, b), lambda r, b: body(r, b).joints):
        leaves = [rotmats.clone().requires_grad_(), betas.clone().requires_grad_()]
        gradients.append(torch.autograd.grad((joints(*leaves) * weights).sum(), leaves))
    for quick, full in zip(*gradients, strict=True):
        torch.testing.assert_close(quick, full, rtol=1e-5, atol=1e-5)


def test_gradient_is_the_derivative(smpl: Body) -> None:
    double = load_like(smpl).double()
    rotmats, betas = poses(1, dtype=torch.float64)
    leaves = (rotmats.requires_grad_(), betas.requires_grad_())
    pick = torch.randn(49, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r, b: (double.joints(r, b) * pick).sum(), leaves)


def load_like(body: Body) -> Body:
    arrays = synthetic_body.model() | synthetic_body.side_arrays()
    arrays |= {f"mean_{name}": arrays.pop(name) for name in ("pose", "shape", "cam")}
    arrays["vertex_joint_ids"] = np.array(SMPL_VERTEX_JOINT_IDS)
    return Body(arrays, name=body.name, file_hash="", is_open=False)


def test_rest_pose_turns_rigidly_about_the_pelvis(body: Body) -> None:
    _, betas = poses(2)
    rest = body(torch.eye(3).expand(2, 24, 3, 3), betas)
    turned = torch.eye(3).repeat(2, 24, 1, 1)
    turned[:, 0] = axis_angle_to_rotmat(torch.tensor([[0.3, 2.0, -1.0], [3.0, 0.0, 0.0]]))
    moved = body(turned, betas)
    root = rest.smpl_joints[:, :1]
    for field in ("vertices", "smpl_joints", "joints", "joints14"):
        expected = (getattr(rest, field) - root) @ turned[:, 0].transpose(-1, -2) + root
        torch.testing.assert_close(getattr(moved, field), expected, rtol=0, atol=2e-6)


def test_without_betas_and_pose_it_is_the_template(smpl: Body) -> None:
    out = smpl(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    torch.testing.assert_close(
        out.vertices[0], torch.from_numpy(synthetic_body.model()["v_template"]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_equals_smplx(tmp_path: Path, suffix: str) -> None:
    smplx = pytest.importorskip("smplx", reason="smplx is an extra (pip install glot[paper])")
    ours = load_body(synthetic_body.write(tmp_path, suffix=suffix))
    theirs = smplx.SMPL(str(synthetic_body.write(tmp_path, suffix=".pkl")), batch_size=8, create_transl=False)
    rotmats, betas = poses(8)
    arguments = {"betas": betas, "body_pose": rotmats[:, 1:], "global_orient": rotmats[:, :1]}
    with torch.no_grad():
        expected, found = theirs(**arguments, pose2rot=False), ours(rotmats, betas)
    torch.testing.assert_close(found.vertices, expected.vertices, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.smpl_joints, expected.joints[:, :24], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.vertices[:, ours.vertex_joints], expected.joints[:, 24:], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours.faces, theirs.faces.astype(np.int64))
    assert ours.parents[1:] == tuple(theirs.parents[1:].tolist())


def test_python_2_smpl_file_with_chumpy_and_sparse(tmp_path: Path, smpl: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMPL as released: chumpy objects, a sparse regressor, 300 shapes, keys without use; chumpy is not installed."""
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    ch = type("Ch", (), {"__module__": "chumpy.ch"})
    monkeypatch.setattr(sys.modules["chumpy.ch"], "Ch", ch, raising=False)

    def wrapped(array: np.ndarray) -> object:
        instance = ch()
        instance.x = array
        return instance

    arrays: dict = synthetic_body.model()
    arrays["shapedirs"] = np.concatenate((arrays["shapedirs"], np.ones((6890, 3, 290), np.float32)), axis=2)
    for key in ("v_template", "shapedirs", "weights"):
        arrays[key] = wrapped(arrays[key].astype(np.float64))
    arrays["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"].astype(np.float64))
    arrays |= {"bs_style": "lbs", "bs_type": "lrotmin", "J": wrapped(np.zeros((24, 3)))}
    synthetic_body.write(tmp_path)
    (tmp_path / "SMPL_NEUTRAL.npz").unlink()
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    monkeypatch.undo()
    assert "chumpy" not in sys.modules
    rotmats, betas = poses(3)
    torch.testing.assert_close(load_body(tmp_path).joints(rotmats, betas), smpl.joints(rotmats, betas))


def test_a_folder_holds_the_genders(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "smpl")
    (tmp_path / "smpl" / "SMPL_NEUTRAL.npz").rename(tmp_path / "smpl" / "SMPL_FEMALE.npz")
    assert load_body(tmp_path / "smpl", gender="female").name == "SMPL_FEMALE"
    with pytest.raises(InputError, match=r"SMPL_NEUTRAL\.pkl or SMPL_NEUTRAL\.npz"):
        load_body(tmp_path / "smpl")
    with pytest.raises(InputError, match="gender=other"):
        load_body(tmp_path / "smpl", gender="other")


def test_open_body_looks_like_a_person() -> None:
    started = time.perf_counter()
    body = load_body()
    assert time.perf_counter() - started < 30
    assert body.is_open and body.name == "open_body" and len(body.file_hash) == 16
    assert body.parents == SMPL_PARENTS and body.faces.dtype == np.int64 and body.faces.max() < len(body.template)
    torch.testing.assert_close(body.weights.sum(1), torch.ones(len(body.template)), rtol=0, atol=1e-6)
    out = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    height = out.vertices[0, :, 1].max() - out.vertices[0, :, 1].min()
    assert 1.4 < height < 2.1
    joint = dict(zip(COMMON14, out.joints[0, COMMON14_IN_SPIN49], strict=True))
    evaluated = dict(zip(COMMON14, out.joints14[0], strict=True))
    for name in COMMON14:
        assert (joint[name] - evaluated[name]).norm() < 0.15, name  # two regressors, one anatomy
    assert joint["lwrist"][0] > 0.5 and joint["rwrist"][0] < -0.5  # T-pose, left is +x
    assert joint["headtop"][1] > joint["neck"][1] > joint["lhip"][1] > joint["lknee"][1] > joint["lankle"][1]
    assert out.joints[0, 0, 2] > joint["neck"][2]  # the nose is in front: it faces +z
    assert len(body.vertex_part) == len(body.template) and "skin" in body.part_names


def test_only_the_shipped_file_is_open(folder: Path, tmp_path: Path) -> None:
    assert not load_body(folder).is_open
    shutil.copy(OPEN_BODY, tmp_path / "renamed.npz")
    assert load_body(tmp_path / "renamed.npz").is_open


def test_hash_follows_the_content(folder: Path, tmp_path: Path, smpl: Body) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert load_body(tmp_path / "copy").file_hash == smpl.file_hash
    side = tmp_path / "copy" / "J_regressor_h36m.npy"
    np.save(side, np.load(side) * 1.001)
    assert load_body(tmp_path / "copy").file_hash != smpl.file_hash


def test_nothing_of_the_body_is_saved_or_trained(smpl: Body) -> None:
    assert not smpl.state_dict() and not list(smpl.parameters())


def broken(folder: Path, target: Path, **changes: np.ndarray | None) -> Path:
    """A copy of the body in which some arrays are replaced, or left out if None."""
    shutil.copytree(folder, target)
    arrays = {**np.load(target / "SMPL_NEUTRAL.npz"), **changes}
    np.savez(target / "SMPL_NEUTRAL.npz", **{name: array for name, array in arrays.items() if array is not None})
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, r"SMPL_NEUTRAL\.npz: weights is missing, expected \(6890, 24\)"),
        ({"weights": np.zeros((6890, 52))}, r"SMPL_NEUTRAL\.npz: weights is \(6890, 52\), expected \(6890, 24\)"),
        ({"v_template": None}, r"no v_template"),
        ({"v_template": np.full((6890, 3), np.nan)}, "v_template holds values that are not finite numbers"),
        ({"shapedirs": np.zeros((6890, 3, 4))}, r"shapedirs is \(6890, 3, 4\), expected \(6890, 3, 10\)"),
        ({"posedirs": np.zeros((6890, 3, 486))}, r"posedirs is .* expected \(6890, 3, 207\)"),
        ({"f": np.full((10, 3), 9999, np.uint32)}, "vertices that do not exist; it has 6890"),
        ({"kintree_table": np.zeros((2, 24), np.uint32)}, "not those of SMPL's 24 joints"),
        ({"J_regressor": np.array([None] * 24)}, "not a readable"),
    ],
)
def test_a_wrong_array_is_named(folder: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_body(broken(folder, tmp_path / "b", **changes))


@pytest.mark.parametrize("name", ["J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz"])
def test_side_files_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path / "b")
    path = tmp_path / "b" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{name}: not a readable"):
        load_body(tmp_path / "b")
    if name.endswith("npy"):
        np.save(path, np.zeros((3, 6890)))
        with pytest.raises(InputError, match=rf"{name}: {path.stem} is \(3, 6890\), expected"):
            load_body(tmp_path / "b")
    else:
        np.savez(path, pose=np.zeros(144))
        with pytest.raises(InputError, match="found .*pose.*, expected pose, shape and cam"):
            load_body(tmp_path / "b")
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        load_body(tmp_path / "b")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such body file"):
        load_body(tmp_path / "absent.npz")
    (tmp_path / "body.obj").touch()
    with pytest.raises(InputError, match=r"a body is a \.pkl or \.npz"):
        load_body(tmp_path / "body.obj")
    (tmp_path / "cut.npz").write_bytes(OPEN_BODY.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.npz: not a readable"):
        load_body(tmp_path / "cut.npz")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match=r"list\.pkl: holds a list"):
        load_body(tmp_path / "list.pkl")
    compact = dict(np.load(OPEN_BODY, allow_pickle=False))
    np.savez(tmp_path / "torn.npz", **compact | {"J_regressor_row": compact["J_regressor_row"] + 24})
    with pytest.raises(InputError, match=r"torn\.npz: its compact arrays"):
        load_body(tmp_path / "torn.npz")


def test_wrong_shapes_are_refused(smpl: Body) -> None:
    with pytest.raises(ValueError, match=r"\(2, 23, 3, 3\)"):
        smpl.joints(torch.zeros(2, 23, 3, 3), torch.zeros(2, 10))
