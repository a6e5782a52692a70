"""Our own outputs and losses, stored: a refactor that changes a number fails here, with or without the official files.

To change them on purpose, run ``python -m tests.glot.models.test_own_values`` after test_official_parity.py has passed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.config import LossConfig
from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.glot import GLoT
from glot.models.losses import glot_loss
from tests.fixtures import synthetic_body
from tests.fixtures.small_model import EXACT, random_targets

STORED = Path(__file__).parent / "own_values.npz"
VARIANTS = {
    "paper": (EXACT, LossConfig()),
    "official": (
        replace(EXACT, hscr_global_pose="official"),
        LossConfig(velocity3d_mask="official", velocity3d_root="official"),
    ),
    "accel": (replace(EXACT, local_supervised_frames=1), LossConfig(use_accel=True)),
    "other": (
        replace(EXACT, frames=12, nearby_frames=3, mask_token="learnable", regressor="residual", positions="sine"),
        LossConfig(),
    ),
}


def compute(variant: str, body: Body) -> dict[str, np.ndarray]:
    """Everything drawn by numpy and by name, so that another version of torch draws the same."""
    config, loss = VARIANTS[variant]
    model = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = 0.1 * synthetic_body.generator(name).standard_normal(parameter.shape)
            owner, _, kind = name.rpartition(".")
            parameter.copy_(torch.from_numpy(drawn + ("norm" in owner and kind == "weight")))
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((3, config.frames, config.feature_size)).astype(np.float32))
    noise = torch.from_numpy(rng.random((3, config.frames)))
    targets = random_targets(3, config.frames)
    draw = {name: getattr(targets, name).shape for name in ("keypoints2d", "joints3d", "betas")}
    for name, shape in draw.items():
        setattr(targets, name, torch.from_numpy(rng.random(shape).astype(np.float32)))
    vectors = torch.from_numpy(rng.standard_normal((3, config.frames, 24, 3)).astype(np.float32))
    targets.rotmats = axis_angle_to_rotmat(vectors)
    targets.w_3d[:, 3] = 0
    targets.w_smpl[1] = 0
    total, terms = glot_loss(model.train()(x, noise), targets, body=body, config=loss)
    total.backward()
    values = {name: term.numpy() for name, term in terms.items()} | {"total": total.detach().numpy()}
    for name in (
        "motion.project",
        "motion.widen",
        "iterative.fc1",
        "correction.project",
        "correction.regressor.fc_pose",
    ):
        gradient = model.get_submodule(name).weight.grad
        values[f"gradient {name}"] = gradient.double().norm().numpy()
    with torch.no_grad():
        middle = model.middle(model.eval()(x))
        values |= {name: value.numpy() for name, value in middle._asdict().items()}
        values["joints14"] = body.joints14(middle.rotmats, middle.betas).numpy()
    return values


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return load_body(synthetic_body.write(tmp_path_factory.mktemp("body")))


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_have_not_moved(variant: str, body: Body) -> None:
    stored = np.load(STORED, allow_pickle=False)
    expected = {name.removeprefix(f"{variant}: "): stored[name] for name in stored.files if name.startswith(variant)}
    found = compute(variant, body)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = {"rotmats": 1e-3, "joints14": 1e-4, "betas": 1e-4, "cam": 1e-4}.get(name, 0)
        relative = 0 if tolerance else 1e-4 if name.startswith("gradient") else 1e-5
        np.testing.assert_allclose(found[name], value, rtol=relative, atol=tolerance, err_msg=name)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model_body = load_body(synthetic_body.write(Path(folder)))
        everything = {f"{v}: {k}": value for v in VARIANTS for k, value in compute(v, model_body).items()}
    np.savez_compressed(STORED, **everything)
    print(f"{STORED}: {STORED.stat().st_size} bytes")
