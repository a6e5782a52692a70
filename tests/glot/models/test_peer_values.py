"""Values of TCMR, MPS-Net, VIBE and MEVA, stored: a change of a number fails here, without the released values, too.

To change them on purpose, run ``python -m tests.glot.models.test_peer_values`` when test_baseline_parity.py passes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glot.config import DiscriminatorConfig, LossConfig
from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.adversarial_loss import body_pose_of, discriminator_losses, generator_loss
from glot.models.mps_net import MPSNet
from glot.models.objectives import supervised_terms
from glot.models.parts.motion_discriminator import MotionDiscriminator
from glot.models.smpl_params import SMPLParams
from tests.fixtures import synthetic_body
from tests.fixtures.peer_golden import AS_RELEASED, draw
from tests.fixtures.peer_models import small_peer
from tests.fixtures.small_model import random_targets

STORED = Path(__file__).parent / "peer_values.npz"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tcmr": ("tcmr", {}),
    "mps_net": ("mps_net", {}),
    "mps_net_released": ("mps_net", AS_RELEASED | {"encoder": "trained"}),
    "vibe": ("vibe", {}),
    "meva": ("meva", {}),
    "meva_with_first_pose": ("meva", {"variant": "with_first_pose"}),
}


def compute(variant: str, body: Body) -> dict[str, np.ndarray]:
    """Everything drawn by numpy and by name, so that another version of torch draws the same."""
    kind, fields = VARIANTS[variant]
    model = small_peer(kind, regressor_dropout=0.0, **fields).train()
    draw(model)
    model.mean.copy_(torch.cat((body.mean_pose.flatten(), body.mean_shape.flatten(), body.mean_cam.flatten())))
    rng = np.random.default_rng(7)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    windows, count = drawn(3, 16, 24), len(model.supervised_frames)
    targets = random_targets(3, count)
    targets.keypoints2d, targets.joints3d = drawn(3, count, 49, 3).abs(), drawn(3, count, 49, 3)
    targets.rotmats, targets.betas = axis_angle_to_rotmat(drawn(3, count, 24, 3)), drawn(3, count, 10)
    targets.w_3d[:, :1] = 0
    targets.w_smpl[1] = 0
    with torch.no_grad():
        answered = model.bodies(windows)
    output = model(windows, motion=True) if isinstance(model, MPSNet) else model(windows)
    terms = supervised_terms(output.params, targets, body, LossConfig())
    total = torch.stack(list(terms.values())).sum()
    values = {name: term.detach().numpy() for name, term in terms.items()}
    if output.motion is not None:
        total = total + _adversarial(output.motion, drawn(2, 16, 69), values)
    total.backward()
    values |= {name: field.flatten()[::7].numpy() for name, field in answered._asdict().items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            values[f"gradient {name}"] = np.array(float(parameter.grad.double().norm()))
    return values


def _adversarial(motion: SMPLParams, real: torch.Tensor, values: dict[str, np.ndarray]) -> torch.Tensor:
    discriminator = MotionDiscriminator(DiscriminatorConfig(width=8, dropout=0))
    tensors = {name: 0.3 * synthetic_body.generator(name).standard_normal(p.shape) for name, p in
               discriminator.named_parameters()}  # fmt: skip
    discriminator.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    predicted = body_pose_of(motion)
    both = discriminator_losses(discriminator, predicted, real, count=3, real_count=2)
    values |= {f"discriminator {number}": loss.detach().numpy() for number, loss in enumerate(both)}
    return generator_loss(discriminator, predicted, count=3)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return load_body(synthetic_body.write(tmp_path_factory.mktemp("body")))


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_have_not_changed(variant: str, body: Body) -> None:
    with np.load(STORED, allow_pickle=False) as stored:
        names = [name for name in stored.files if name.startswith(f"{variant}/")]
        found = compute(variant, body)
        assert {name.removeprefix(f"{variant}/") for name in names} == found.keys()
        for name in names:
            np.testing.assert_allclose(
                found[name.removeprefix(f"{variant}/")], stored[name], rtol=2e-4, atol=2e-5, err_msg=name
            )


if __name__ == "__main__":
    import tempfile

    made = load_body(synthetic_body.write(Path(tempfile.mkdtemp())))
    found = {f"{variant}/{name}": value for variant in VARIANTS for name, value in compute(variant, made).items()}
    np.savez_compressed(STORED, **{name: value.astype(np.float32) for name, value in found.items()})
