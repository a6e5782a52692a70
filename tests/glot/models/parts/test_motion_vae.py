"""MEVA's motion VAE and its loss, against values of the released code where they are on this machine."""

import numpy as np
import pytest
import torch

from glot.models.parts.motion_vae import MotionVAE, vae_losses
from tests.fixtures.peer_golden import draw, part
from tests.fixtures.places import GOLDEN

FILE = GOLDEN / "baseline_meva_train.npz"
EVERY = 6  # every sixth frame of a reconstruction is stored


@pytest.mark.skipif(not FILE.is_file(), reason=f"no released values in {GOLDEN}; point GLOT_GOLDEN at them")
@pytest.mark.parametrize("variant, prefix", [("latent_only", ""), ("with_first_pose", "with_first_pose_")])
def test_released_values(variant: str, prefix: str) -> None:
    """The reconstruction from the means of the vectors, and the three terms of the loss."""
    with np.load(FILE, allow_pickle=False) as stored:
        golden = part({name: stored[name] for name in stored.files if name.startswith("vae/")}, "vae/")
    shape = (int(golden["T"]), int(golden["B"]), 144)
    values = 0.5 * np.random.default_rng(int(golden["seed_motion"])).standard_normal(shape)
    motion = torch.from_numpy(values.astype(np.float32)).transpose(0, 1)
    vae = MotionVAE(variant)
    assert draw(vae, "vae_model.") == str(golden[f"{prefix}weights_sha256"])
    with torch.no_grad():
        mu, logvar = vae.encode(motion)
        decoded = vae.reconstruct(motion, mu)
        terms = vae_losses(decoded, motion, mu, logvar)
    for name, found in (("mu", mu), ("logvar", logvar), ("reconstruction", decoded.transpose(0, 1)[::EVERY])):
        np.testing.assert_allclose(found, golden[prefix + name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        [terms[name] for name in ("error", "root", "kl")], golden[f"{prefix}loss_parts"], rtol=1e-5
    )
    np.testing.assert_allclose(sum(float(term) for term in terms.values()), golden[f"{prefix}total"], rtol=1e-5)


def test_loss_of_perfect_motions_is_the_divergence() -> None:
    motion, mu = torch.randn(3, 4, 144), torch.full((3, 5), 2.0)
    terms = vae_losses(motion, motion, mu, torch.zeros(3, 5))
    assert {name: round(float(term), 5) for name, term in terms.items()} == {"error": 0, "root": 0, "kl": 1.0}
    assert float(vae_losses(motion + 1, motion, 0 * mu, 0 * mu)["error"]) == pytest.approx(4 * 144)
    assert float(vae_losses(motion + 1, motion, 0 * mu, 0 * mu)["root"]) == pytest.approx(20 * 4 * 6)
