"""Motion VAEs: written, read, and given to MEVA; files that do not fit are named in one line."""

from pathlib import Path

import pytest
import torch

from glot.errors import InputError
from glot.models.meva import MEVA
from glot.models.parts.motion_vae import MotionVAE
from glot.models.vae_files import give_vae, read_vae, save_vae, vae_hash, vae_path
from tests.fixtures.peer_models import small_peer


def small_vae(variant: str = "latent_only", *, latent: int = 16, hidden: int = 20) -> MotionVAE:
    torch.manual_seed(5)
    return MotionVAE(variant, latent=latent, hidden=hidden)


def same(model: MEVA, vae: MotionVAE) -> bool:
    found = model.vae_model.state_dict()
    return all(torch.equal(tensor, found[name]) for name, tensor in vae.state_dict().items())


@pytest.mark.parametrize("variant", ["latent_only", "with_first_pose"])
def test_meva_gets_the_vae_of_a_folder_and_of_a_published_file(tmp_path: Path, variant: str) -> None:
    vae = small_vae(variant)
    save_vae(tmp_path / "run" / "best", vae, {"frames": 90})
    content = {f"vae_model.{name}": tensor for name, tensor in vae.state_dict().items()} | {"gru.bias": torch.ones(3)}
    torch.save({"gen_state_dict": content, "epoch": 3}, tmp_path / "model_best.pth.tar")
    for place in (tmp_path / "run", tmp_path / "run" / "best", tmp_path / "model_best.pth.tar"):
        model = small_peer("meva", variant=variant)
        others = {name: value.clone() for name, value in model.state_dict().items() if "vae_model" not in name}
        assert isinstance(model, MEVA) and not same(model, vae)
        give_vae(model, vae_path(place))
        assert same(model, vae) and not any(p.requires_grad for p in model.vae_model.parameters())
        assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())
    assert vae_hash(vae_path(tmp_path / "run")) != vae_hash(tmp_path / "model_best.pth.tar")


def test_a_saved_vae_is_replaced_whole(tmp_path: Path) -> None:
    save_vae(tmp_path / "best", small_vae(), {})
    save_vae(tmp_path / "best", small_vae(hidden=12), {})
    assert read_vae(tmp_path / "best")["e_mlp.affine_layers.0.bias"].shape == (12,)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_vae_that_does_not_fit_is_named_with_the_remedy(tmp_path: Path) -> None:
    save_vae(tmp_path / "other", small_vae("with_first_pose"), {})
    save_vae(tmp_path / "wide", small_vae(latent=24, hidden=28), {})
    model = small_peer("meva")
    with pytest.raises(InputError, match="variant with_first_pose, .*; --set model.variant=with_first_pose$"):
        give_vae(model, tmp_path / "other")
    with pytest.raises(InputError, match="another size .*; --set model.latent=24 --set model.vae_hidden=28$"):
        give_vae(model, tmp_path / "wide")
    with pytest.raises(InputError, match="TCMR has no motion VAE; --set model=meva"):
        give_vae(small_peer("tcmr"), tmp_path / "wide")


def test_what_is_no_vae_is_one_line(tmp_path: Path) -> None:
    torch.save({"gen_state_dict": {"encoder.weight": torch.ones(2)}}, tmp_path / "vibe.pth.tar")
    (tmp_path / "text.pth.tar").write_text("no torch file")
    (tmp_path / "empty").mkdir()
    save_vae(tmp_path / "cut", small_vae(), {})
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"12345678901234567890")
    (tmp_path / "glot").mkdir()
    (tmp_path / "glot" / "config.json").write_text('{"version": 1, "recipe": {}}')
    for name, message in {
        "vibe.pth.tar": "no motion VAE in it",
        "text.pth.tar": "not a readable torch file",
        "nowhere.pth.tar": "there is no such file",
        "empty": "holds no motion VAE, config.json is missing",
        "cut": "damaged or cut short",
        "glot": "is not of a motion VAE",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            read_vae(vae_path(tmp_path / name))
        assert "\n" not in str(error.value)
