"""Agreement with the released code of TCMR, MPS-Net, VIBE and MEVA: its outputs, losses and gradients.

The files baseline_*_eval*.npz and baseline_*_train*.npz are in $GLOT_GOLDEN, else in ../shared/golden; frames, batch
and variant are read from them. Without them, the tests are skipped; test_peer_values.py holds a few values of our own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glot.config import LossConfig
from glot.human.body import Body, load_body
from glot.human.camera import project
from glot.human.rotation import rotmat_to_axis_angle
from glot.models.adversarial_loss import body_pose_of, discriminator_losses, generator_loss
from glot.models.meva import MEVA
from glot.models.mps_net import MPSNet
from glot.models.objectives import supervised_terms
from glot.models.smpl_params import SMPLParams
from glot.models.tcmr import TCMR
from glot.models.temporal_model import TemporalModel
from tests.fixtures import synthetic_body
from tests.fixtures.peer_golden import (
    AS_RELEASED,
    Golden,
    part,
    peer_discriminator,
    peer_features,
    peer_model,
    peer_targets,
)
from tests.fixtures.places import GOLDEN

NO_FILES = f"no released values in {GOLDEN}; point GLOT_GOLDEN at them"
TERMS = {"kp_2d": "keypoints2d", "kp_3d": "joints3d", "pose": "pose", "shape": "shape"}
ABSOLUTE = {"theta": 1e-4, "rotmat": 1e-4, "kp_2d": 2e-5}  # of all others (m): 1e-5


def files(pattern: str) -> list[Path]:
    return sorted(GOLDEN.glob(pattern))


def eval_cases() -> list[Any]:
    found = [(path, case) for path in files("baseline_*_eval*.npz") for case in np.load(path)["cases"].tolist()]
    skipped = pytest.param(None, None, marks=pytest.mark.skip(reason=NO_FILES), id="no-files")
    return [pytest.param(path, case, id=f"{path.stem}-{case}") for path, case in found] or [skipped]


def train_cases() -> list[Any]:
    """Every stored variant of a training step: its file and its prefix."""
    found = []
    for path in files("baseline_*_train*.npz"):
        names = [name for name in np.load(path).files if name.endswith("total") and "/" not in name]
        prefixes = {name.removesuffix("total").removesuffix("disc_") for name in names}
        found += [(path, prefix) for prefix in sorted(prefixes)]
    skipped = pytest.param(None, "", marks=pytest.mark.skip(reason=NO_FILES), id="no-files")
    return [pytest.param(path, prefix, id=f"{path.stem}-{prefix or 'as'}") for path, prefix in found] or [skipped]


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return load_body(synthetic_body.write(tmp_path_factory.mktemp("body")))


def load(path: Path) -> tuple[str, dict[str, Any]]:
    golden = dict(np.load(path, allow_pickle=False))
    return str(golden["model"]), golden


def check(params: SMPLParams, golden: Golden, body: Body, prefix: str = "") -> None:
    """Compares whichever fields are stored with bodies (B, K, ...)."""
    leading = params.betas.shape[:2]
    flat = SMPLParams(*(values.flatten(0, 1) for values in params))
    out = body(flat.rotmats, flat.betas)
    pose = rotmat_to_axis_angle(flat.rotmats).flatten(-2)
    found = {"theta": torch.cat((flat.cam, pose, flat.betas), dim=-1), "rotmat": flat.rotmats}
    for suffix, joints in (("", out.joints), ("_h36m", out.joints14)):
        found |= {f"kp_3d{suffix}": joints, f"kp_2d{suffix}": project(joints, flat.cam)}
    found |= {"verts50": out.vertices[:, :50], "verts_mean": out.vertices.mean(1)}
    compared = set()
    for name, tensor in found.items():
        if (expected := golden.get(prefix + name)) is not None:
            values = tensor.detach().numpy().reshape(*leading, *tensor.shape[1:])
            values = values[:, :: int(golden.get("frame_step", 1))].reshape(expected.shape)
            tolerance = ABSOLUTE.get(name.removesuffix("_h36m"), 1e-5)
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=prefix + name)
            compared.add(name)
    assert compared >= {"theta", "kp_3d", "kp_2d"}


@pytest.mark.parametrize("path, case", eval_cases())
def test_evaluation_outputs(path: Path, case: str, body: Body) -> None:
    name, whole = load(path)
    golden = {**part(whole, f"{case}/")}
    golden.setdefault("weights_sha256", whole.get("weights_sha256"))
    features = peer_features(golden)
    released = {"similarities": "official"} if name == "mps_net" else {}
    for prefix, fields in (("", released), ("per_sample_", {})):
        if f"{prefix}theta" not in golden:
            continue
        model = peer_model(name, golden, body, **fields).eval()
        with torch.no_grad():
            check(model.bodies(features), golden, body, prefix)
            _check_inside(model, features, golden, prefix)


def _check_inside(model: TemporalModel, features: Tensor, golden: Golden, prefix: str) -> None:
    """What is stored of the inside of each model."""
    if isinstance(model, TCMR):
        _, weights = model.encoder.attention(torch.stack(model.encoder(features), dim=1))
        np.testing.assert_allclose(weights, golden["scores"], atol=1e-6)
    if isinstance(model, MPSNet):
        states = model.nonlocalblock(features)
        np.testing.assert_allclose(states.mT[:, ::64], golden[f"{prefix}moca"], atol=1e-5)
        np.testing.assert_allclose(model.merge(states)[1], golden[f"{prefix}scores"], atol=1e-6)
    if isinstance(model, MEVA):
        _, latent = model.encode(features)
        np.testing.assert_allclose(latent[:, ::8], golden["motion_z"], atol=1e-5)
        coarse = model.coarse_pose(latent)[:, :: int(golden["frame_step"])]
        np.testing.assert_allclose(coarse, golden["coarse_pose"], atol=1e-5)


@pytest.mark.parametrize("path, prefix", train_cases())
def test_training_step(path: Path, prefix: str, body: Body) -> None:
    name, golden = load(path)
    fields: dict[str, Any] = {}
    if name == "mps_net":
        fields = {"": AS_RELEASED, "attached_": AS_RELEASED | {"encoder": "trained"}, "fixed_": {}}[prefix]
    case = golden | {key: golden[prefix + key] for key in ("weights_sha256",) if prefix + key in golden}
    if prefix == "with_first_pose_":
        case |= {"vae": "with_first_pose", "n_parameters": 63_841_469}
    model = peer_model(name, case, body, **fields).train()
    targets, samples = peer_targets(golden, copies=len(model.supervised_frames), only_3d=prefix == "only3d_")
    features = peer_features(golden)[samples]
    has_motion = f"{prefix}e_m_disc_loss" in golden
    output = model(features, motion=True) if name == "mps_net" else model(features)

    stored = part(golden, f"{prefix}out/")
    if stored and len(features) == int(golden["B"]):
        check(output.params, stored, body)
    terms = supervised_terms(output.params, targets, body, LossConfig())
    for theirs, ours in TERMS.items():
        np.testing.assert_allclose(
            terms[f"frames/{ours}"].item(), golden[f"{prefix}loss_{theirs}"], rtol=1e-5, err_msg=theirs
        )
    total = torch.stack(list(terms.values())).sum()
    if has_motion:
        discriminator, predicted = peer_discriminator(golden), body_pose_of(output.motion)
        adversarial = 0.5 * generator_loss(discriminator, predicted, count=len(predicted))
        np.testing.assert_allclose(adversarial.item(), golden[f"{prefix}e_m_disc_loss"], rtol=1e-5)
        total = total + adversarial
    np.testing.assert_allclose(total.item(), golden[f"{prefix}total"], rtol=1e-5)
    if f"{prefix}grad_keys" in golden:
        total.backward()
        _check_gradients(model, golden, f"{prefix}")
    if has_motion:
        _check_discriminator_step(discriminator, predicted, golden, prefix)


def _check_gradients(module: torch.nn.Module, golden: Golden, prefix: str) -> None:
    stored = dict(zip(golden[f"{prefix}grad_keys"].tolist(), golden[f"{prefix}grad_norms"].tolist(), strict=True))
    # A norm of millions of numbers summed in single precision is itself 1e-4 off.
    norms = {n: float(p.grad.double().norm()) for n, p in module.named_parameters() if p.grad is not None}
    finite = {name: norm for name, norm in stored.items() if np.isfinite(norm)}
    assert norms.keys() == finite.keys()
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, finite[name], rtol=1e-4, err_msg=name)


def _check_discriminator_step(discriminator: Any, predicted: Tensor, golden: Golden, prefix: str) -> None:
    discriminator.zero_grad()
    motion = torch.from_numpy(golden["motion_theta"])[..., 6:75]
    of_real, of_predicted = discriminator_losses(
        discriminator, predicted, motion, count=len(predicted), real_count=len(motion)
    )
    np.testing.assert_allclose(0.5 * of_real.item(), golden[f"{prefix}d_m_disc_real"], rtol=1e-5)
    np.testing.assert_allclose(0.5 * of_predicted.item(), golden[f"{prefix}d_m_disc_fake"], rtol=1e-5)
    total = 0.5 * (of_real + of_predicted)
    np.testing.assert_allclose(total.item(), golden[f"{prefix}disc_total"], rtol=1e-5)
    if f"{prefix}disc_grad_keys" in golden:
        total.backward()
        _check_gradients(discriminator, golden, f"{prefix}disc_")
