"""Agreement with the official code: its stored outputs, losses and gradients, from weights that are drawn by name.

The files are in $GLOT_GOLDEN, else in ../shared/golden; without them, the tests are skipped. For that case
tests/glot/models/test_own_values.py holds values of our own, made by a model that passed these tests.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glot.config import LossConfig
from glot.human.body import Body, load_body
from glot.human.camera import project
from glot.human.rotation import rotmat_to_axis_angle
from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT
from glot.models.losses import glot_loss
from glot.models.prediction.sliding import SlidingGLoT
from glot.models.released.official_files import from_official, official_name, to_official
from glot.models.smpl_params import SMPLParams
from tests.fixtures import synthetic_body
from tests.fixtures.peer_golden import peer_targets
from tests.fixtures.places import GOLDEN

NO_FILES = f"no official values in {GOLDEN}; point GLOT_GOLDEN at them"

LOSS = LossConfig(velocity3d_mask="official", velocity3d_root="official")
# Official name of a term -> ours.
TERMS = {"kp_2d": "keypoints2d", "kp_3d": "joints3d", "accel_2d": "velocity2d", "accel_3d": "velocity3d"}
TERMS |= {"pose": "pose", "shape": "shape"}
BRANCHES = {"mae": "global", "short": "local"}


def files(pattern: str) -> list:
    """Every stored file of a kind as a test parameter, or one skipped parameter that says why."""
    found = sorted(GOLDEN.glob(pattern))
    skipped = pytest.param(None, marks=pytest.mark.skip(reason=NO_FILES), id="no-files")
    return [pytest.param(path, id=path.stem) for path in found] or [skipped]


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return load_body(synthetic_body.write(tmp_path_factory.mktemp("body")))


def config_of(golden: dict[str, np.ndarray]) -> GLoTConfig:
    return GLoTConfig(
        frames=int(golden.get("T", 16)),
        nearby_frames=int(golden.get("nearby_frames", 4)),
        mask_ratio=float(golden.get("mask_ratio", 0.5)),
        hscr_global_pose="official",
        dropout=0,
        drop_path=0,
        regressor_dropout=0,
        hscr_dropout=0,
    )


def official_model(config: GLoTConfig, body: Body) -> GLoT:
    """A model whose weights are drawn as the official ones were: by name, 0.02 wide, norms around 1."""
    model = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam)
    state: dict[str, Tensor] = {}
    for ours, parameter in model.named_parameters():
        name = official_name(ours)
        drawn = (0.02 * synthetic_body.generator(name).standard_normal(parameter.shape)).astype(np.float32)
        if "norm" in name.split(".")[-2] and name.endswith(".weight"):
            drawn += 1
        state[name] = torch.from_numpy(drawn)
    weights, _ = from_official(state)
    model.load_state_dict(weights | {"mean": model.mean})
    return model


def features_of(golden: dict[str, np.ndarray]) -> Tensor:
    shape = (int(golden["B"]), int(golden["T"]), 2048)
    drawn = np.random.default_rng(int(golden["seed_features"])).standard_normal(shape).astype(np.float32)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == str(golden["features_sha256"])
    return torch.from_numpy(drawn)


def theta(params: SMPLParams) -> Tensor:
    """(..., 85): cam, axis-angle pose, betas."""
    return torch.cat((params.cam, rotmat_to_axis_angle(params.rotmats).flatten(-2), params.betas), dim=-1)


def check_branch(params: SMPLParams, golden: dict[str, np.ndarray], branch: str, body: Body) -> None:
    """Compares whichever fields the file has of a branch."""
    leading = params.betas.shape[:-1]
    flat = SMPLParams(*(values.flatten(0, len(leading) - 1) for values in params))
    out = body(flat.rotmats, flat.betas)
    found = {"theta": theta(flat), "rotmat": flat.rotmats}
    for suffix, joints in (("", out.joints), ("_none", out.joints), ("_h36m", out.joints14)):
        found |= {f"kp_3d{suffix}": joints, f"kp_2d{suffix}": project(joints, flat.cam)}
    found |= {"verts50": out.vertices[:, :50], "verts_mean": out.vertices.mean(1)}
    compared = set()
    for name, tensor in found.items():
        if (expected := golden.get(f"{branch}_{name}")) is not None:
            values = tensor.detach().numpy().reshape(*leading, *tensor.shape[1:])
            if name == "verts50" and values.ndim == 4:  # stored for every fourth frame only
                values = values[:, :: -(-values.shape[1] // expected.shape[1])]
            tolerance = 1e-3 if name in ("theta", "rotmat") else 1e-4
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=f"{branch} {name}")
            compared.add(name)
    assert compared >= {"theta", "rotmat", "verts50"}


@pytest.mark.parametrize("path", files("golden_eval*.npz"))
def test_evaluation_outputs(path: Path, body: Body) -> None:
    golden = dict(np.load(path, allow_pickle=False))
    config = config_of(golden)
    model = official_model(config, body).eval()
    absent = 6 if config.mask_ratio else 12  # three dead layers; a model that never masks has no token
    assert len([*model.named_parameters()]) == int(golden["n_params_set"]) - absent
    features, middle = features_of(golden), config.frames // 2
    with torch.no_grad():
        output = model(features)
        check_branch(model.middle(output), golden, "local", body)
        check_branch(SMPLParams(*(x[:, middle : middle + 1] for x in output.global_)), golden, "global", body)
        sliding = SlidingGLoT(model)
        for number, window in enumerate(features):
            for quick, slow in zip(sliding(window), model.middle(output), strict=True):
                torch.testing.assert_close(quick[0], slow[number], rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", files("official_state_dict*.tsv"))
def test_the_official_layout_is_exported_whole(path: Path, body: Body) -> None:
    lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    state = to_official(official_model(GLoTConfig(hscr_global_pose="official"), body), body)
    assert {name: (str(tuple(t.shape)), str(t.dtype)) for name, t in state.items()} == {
        name: (shape, f"torch.{dtype}") for name, shape, dtype, *_ in lines
    }
    assert len(state) == 198
    dead = [name for name, _, _, _, smpl, used in lines if used == "no" and smpl != "SMPL"]
    for name in state:
        if ".smpl." not in name and "init_" not in name and name not in dead:
            drawn = (0.02 * synthetic_body.generator(name).standard_normal(state[name].shape)).astype(np.float32)
            drawn += "norm" in name.split(".")[-2] and name.endswith(".weight")
            np.testing.assert_array_equal(state[name].numpy(), drawn, err_msg=name)


def training_step(golden: dict[str, np.ndarray], body: Body, loss: LossConfig, *, only_3d: bool = False) -> tuple:
    model = official_model(config_of(golden), body).train()
    targets, samples = peer_targets(golden, copies=1, only_3d=only_3d)
    output = model(features_of(golden)[samples], torch.from_numpy(golden["noise"])[samples])
    total, terms = glot_loss(output, targets, body=body, config=loss)
    return model, output, total, terms


@pytest.mark.parametrize("variant", ["", "accelvariant_", "only3d_"])
@pytest.mark.parametrize("path", files("golden_train*.npz"))
def test_training_losses(path: Path, variant: str, body: Body) -> None:
    golden = dict(np.load(path, allow_pickle=False))
    if f"{variant}total" not in golden:
        pytest.skip(f"{path.name} has no {variant}total")
    loss = LossConfig(velocity3d_mask="official", velocity3d_root="official", use_accel=variant == "accelvariant_")
    _, output, total, terms = training_step(golden, body, loss, only_3d=variant == "only3d_")
    if not variant:
        np.testing.assert_array_equal(output.mask[..., None], golden["mask"])
        check_branch(output.local, golden, "local", body)
        check_branch(output.global_, golden, "global", body)
    stored = [name for name in golden if name.startswith(f"{variant}loss_")]
    assert len(stored) == 12
    if not golden["mask"].any():  # the official global losses are all 0 then, ours are not
        stored = [name for name in stored if name.endswith("_short")]
    for name in stored:
        term, _, branch = name.removeprefix(f"{variant}loss_").rpartition("_")
        ours = float(terms[f"{BRANCHES[branch]}/{TERMS[term]}"])
        np.testing.assert_allclose(ours, golden[name], rtol=1e-5, err_msg=name)
    if golden["mask"].any():
        np.testing.assert_allclose(total.item(), golden[f"{variant}total"], rtol=1e-5)


@pytest.mark.parametrize("path", files("golden_train*.npz"))
def test_training_gradients(path: Path, body: Body) -> None:
    golden = dict(np.load(path, allow_pickle=False))
    if not golden["mask"].any():
        pytest.skip("with nothing masked the official global losses are all 0")
    model, _, total, _ = training_step(golden, body, LOSS)
    total.backward()
    stored = dict(zip(golden["grad_keys"].tolist(), golden["grad_norms"].tolist(), strict=True))
    # A norm of millions of numbers summed in single precision is itself 1e-4 off.
    norms = {official_name(name): float(parameter.grad.double().norm()) for name, parameter in model.named_parameters()}
    assert norms.keys() == {name for name, norm in stored.items() if np.isfinite(norm)}  # dead ones have none
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, stored[name], rtol=1e-4, err_msg=name)
