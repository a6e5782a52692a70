"""HMR2.0's tokens and guesses against a plain formulation; what is read of its checkpoints, and what is refused."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.backbones.hmr2 import HMR2Backbone
from glot.features.backbones.hmr2_crops import RULES
from glot.features.backbones.hmr2_file import load_hmr2
from glot.features.backbones.hmr2_network import HMR2, HMR2Sizes
from glot.features.schema import guess_columns
from tests.fixtures.hmr2 import TOKEN, hmr2_shapes, hmr2_state, plain_guess, plain_tokens, save_hmr2, write_hmr2
from tests.fixtures.places import ROOT

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's, red, green, blue


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hmr2(tmp_path_factory.mktemp("weights") / "epoch=35-step=1000000.ckpt")


def some_crops(count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 256, 256, 3), np.uint8)


def plain_images(crops: np.ndarray) -> np.ndarray:
    return ((crops / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2)


def load(weights: Path, **options: Any) -> Backbone:
    return load_backbone("hmr2", weights, **options)


def test_tokens_and_guesses_are_those_of_the_plain_formulation(checkpoint: Path) -> None:
    backbone, crops, state = load(checkpoint, first_guess=True), some_crops(), hmr2_state()
    assert isinstance(backbone, HMR2Backbone)
    assert (backbone.feature_size, backbone.guess_size, backbone.crop_rule.size) == (TOKEN, 85, 256)
    found = Extractor(backbone)(crops)
    tokens = plain_tokens(state, plain_images(crops))
    assert found.dtype == np.float32 and found.shape == (3, TOKEN + 85)
    assert np.abs(tokens).max() > 1 and np.abs(tokens[0] - tokens[1]).max() > 1e-2, "the law says something"
    assert np.abs(found[:, :TOKEN] - tokens).max() < 1e-5
    guesses = guess_columns(found[:, TOKEN:])
    for row, token in enumerate(tokens):
        rotations, betas, camera = plain_guess(state, token)
        turned = Rotation.from_rotvec(guesses["guess_pose"][row].astype(np.float64)).as_matrix()
        assert np.abs(turned - rotations).max() < 1e-5
        assert np.abs(guesses["guess_betas"][row] - betas).max() < 1e-5
        assert np.abs(guesses["guess_cam"][row] - camera).max() < 1e-5
    assert np.array_equal(Extractor(load(checkpoint))(crops), found[:, :TOKEN]), "features do not depend on guesses"


def test_the_middle_192_columns_are_seen_and_no_others(checkpoint: Path) -> None:
    extractor, crops = Extractor(load(checkpoint)), some_crops(1)
    whole = extractor(crops)
    aside, inside = crops.copy(), crops.copy()
    aside[:, :, :32], aside[:, :, -32:] = 0, 255
    assert np.array_equal(extractor(aside), whole)
    inside[:, :, 32] = 0
    assert not np.array_equal(extractor(inside), whole)


def test_a_feature_does_not_depend_on_the_other_crops(checkpoint: Path) -> None:
    extractor, crops = Extractor(load(checkpoint, first_guess=True)), some_crops(4)
    together = extractor(crops)
    others = crops.copy()
    others[1:] = 255 - others[1:]
    assert np.array_equal(extractor(others)[0], together[0])
    for size in (1, 2, 3):
        assert np.abs(extractor(crops[:size]) - together[:size]).max() < 1e-5
    assert extractor(crops[:0]).shape == (0, TOKEN + 85)


def test_bfloat16_is_near_and_its_guess_is_read_from_the_token_in_float32(checkpoint: Path) -> None:
    backbone, crops = load(checkpoint, first_guess=True), some_crops()
    assert isinstance(backbone, HMR2Backbone)
    exact, near = Extractor(backbone)(crops), Extractor(backbone, precision="bfloat16")(crops)
    off = np.linalg.norm(near - exact, axis=0) / np.linalg.norm(exact)
    assert near.dtype == np.float32 and 1e-4 < np.linalg.norm(off[:TOKEN]) < 3e-2
    guesses = backbone.module.guess(torch.from_numpy(near[:, :TOKEN])).numpy()
    assert np.abs(near[:, TOKEN:] - guesses).max() < 1e-6
    assert {values.dtype for values in backbone.module.state_dict().values()} == {torch.float32}
    assert np.array_equal(Extractor(backbone)(crops), exact), "the network itself was left alone"
    with pytest.raises(InputError, match="int8"):
        Extractor(backbone, precision="int8")


def release() -> dict[str, tuple[int, ...]]:
    """The names and shapes of HMR2.0's tensors, written out layer by layer."""
    table: dict[str, tuple[int, ...]] = {
        "backbone.pos_embed": (1, 193, 1280),
        "backbone.patch_embed.proj.weight": (1280, 3, 16, 16),
        "backbone.patch_embed.proj.bias": (1280,),
        "backbone.last_norm.weight": (1280,),
        "backbone.last_norm.bias": (1280,),
    }
    for block in range(32):
        for name, shape in {
            "norm1.weight": (1280,), "norm1.bias": (1280,), "norm2.weight": (1280,), "norm2.bias": (1280,),
            "attn.qkv.weight": (3840, 1280), "attn.qkv.bias": (3840,),
            "attn.proj.weight": (1280, 1280), "attn.proj.bias": (1280,),
            "mlp.fc1.weight": (5120, 1280), "mlp.fc1.bias": (5120,),
            "mlp.fc2.weight": (1280, 5120), "mlp.fc2.bias": (1280,),
        }.items():  # fmt: skip
            table[f"backbone.blocks.{block}.{name}"] = shape
    table |= {
        "smpl_head.transformer.to_token_embedding.weight": (1024, 1),
        "smpl_head.transformer.to_token_embedding.bias": (1024,),
        "smpl_head.transformer.pos_embedding": (1, 1, 1024),
        "smpl_head.decpose.weight": (144, 1024), "smpl_head.decpose.bias": (144,),
        "smpl_head.decshape.weight": (10, 1024), "smpl_head.decshape.bias": (10,),
        "smpl_head.deccam.weight": (3, 1024), "smpl_head.deccam.bias": (3,),
        "smpl_head.init_body_pose": (1, 144), "smpl_head.init_betas": (1, 10), "smpl_head.init_cam": (1, 3),
    }  # fmt: skip
    for layer, (name, shape) in itertools.product(range(6), {
        "0.norm.weight": (1024,), "0.norm.bias": (1024,), "0.fn.to_qkv.weight": (1536, 1024),
        "0.fn.to_out.0.weight": (1024, 512), "0.fn.to_out.0.bias": (1024,),
        "1.norm.weight": (1024,), "1.norm.bias": (1024,), "1.fn.to_kv.weight": (1024, 1280),
        "1.fn.to_q.weight": (512, 1024), "1.fn.to_out.0.weight": (1024, 512), "1.fn.to_out.0.bias": (1024,),
        "2.norm.weight": (1024,), "2.norm.bias": (1024,), "2.fn.net.0.weight": (1024, 1024),
        "2.fn.net.0.bias": (1024,), "2.fn.net.3.weight": (1024, 1024), "2.fn.net.3.bias": (1024,),
    }.items()):  # fmt: skip
        table[f"smpl_head.transformer.transformer.layers.{layer}.{name}"] = shape
    return table


def test_the_network_has_the_tensors_of_the_release() -> None:
    with torch.device("meta"):
        network = HMR2(HMR2Sizes())
    assert {name: tuple(values.shape) for name, values in network.state_dict().items()} == release()
    numbers = sum(math.prod(shape) for shape in release().values())
    assert len(release()) == 503 and round(numbers / 1e6, 1) == 670.5
    assert sum(name.startswith("backbone.") for name in release()) == 389


def test_a_file_of_full_size_is_read(tmp_path: Path) -> None:
    """All its tensors share the numbers of the largest, so that the file has 26 MB and not 2.7 GB."""
    numbers = torch.zeros(max(math.prod(shape) for shape in release().values()))
    state = {name: numbers[: math.prod(shape)].view(shape) for name, shape in release().items()}
    path = save_hmr2(tmp_path / "epoch=35-step=1000000.ckpt", state)
    network = load_hmr2(path)
    assert network.sizes == HMR2Sizes() and not network.training
    assert {name: tuple(values.shape) for name, values in network.state_dict().items()} == release()
    assert not any(values.requires_grad or values.is_meta for values in network.state_dict().values())
    path.unlink()


def test_the_hash_says_which_numbers_and_which_crops(checkpoint: Path, tmp_path: Path) -> None:
    state = {name: values.half().float() for name, values in hmr2_state().items()}
    plain = load(save_hmr2(tmp_path / "plain.ckpt", state))
    turned = {name: state[name] for name in reversed(state)}
    halves = {name: values.half() for name, values in turned.items()}
    doubles = {name: torch.nn.Parameter(values.double()) for name, values in state.items()}
    for name, other in {"order": turned, "half": halves, "double": doubles}.items():
        loaded = load(save_hmr2(tmp_path / f"{name}.ckpt", other, epoch=1, callbacks={}))
        assert loaded.hash == plain.hash and loaded.weights_name == f"{name}.ckpt"
    assert load(tmp_path / "plain.ckpt", first_guess=True).hash == plain.hash
    by_rule = {rule: load(tmp_path / "plain.ckpt", crop_rule=rule) for rule in RULES}
    assert len({backbone.hash for backbone in by_rule.values()}) == 3 and by_rule["wham"].hash == plain.hash
    assert all(backbone.crop_rule == RULES[rule] for rule, backbone in by_rule.items())
    described = {"name": "hmr2", "weights": "plain.ckpt", "hash": plain.hash, "feature_size": TOKEN}
    assert plain.describe() == described | {"crop_rule": "wham"}
    later = write_hmr2(tmp_path / "hmr2a.ckpt", seed=1)
    assert len({plain.hash, load(checkpoint).hash, load(later).hash}) == 3, "2.0a and 2.0b are not interchangeable"
    state["smpl_head.init_cam"] = state["smpl_head.init_cam"].nextafter(torch.tensor(9.0))
    assert load(save_hmr2(tmp_path / "near.ckpt", state)).hash != plain.hash
    assert len(plain.hash) == 16 and set(plain.hash) <= set("0123456789abcdef")


class Proof:
    """Leaves a file behind if its code is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_all_else_in_the_file_is_ignored_and_none_of_its_code_runs(checkpoint: Path, tmp_path: Path) -> None:
    proof = Proof(tmp_path / "proof")
    state = {**hmr2_state(), "discriminator.weight": proof, "backbones": 3, 7: torch.ones(1), "smpl.body": proof}
    more = {"callbacks": {"a": [proof]}, "hyper_parameters": proof, "loops": {proof: proof}, "optimizer_states": proof}
    path = save_hmr2(tmp_path / "proof.ckpt", state, **more)
    assert load(path).hash == load(checkpoint).hash
    with pytest.raises(InputError, match="proof.ckpt: backbone.more is no tensor"):
        load(save_hmr2(path, {**state, "backbone.more": proof}))
    assert not (tmp_path / "proof").exists()


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


def with_value(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: value(state[name]) if callable(value) else value})


def spoilt(values: Tensor, value: float) -> Tensor:
    values = values.clone()
    values.view(-1)[-1] = value
    return values


QKV, NET = "backbone.blocks.1.attn.qkv.weight", "smpl_head.transformer.transformer.layers.1.2.fn.net.3.weight"
FAULTS = {
    "missing": (without(QKV), rf"lacks {QKV} \(1 of 75 tensors"),
    "block missing": (without("backbone.blocks.0.mlp.fc1.weight"), "lacks tensors of HMR2.0's network"),
    "position missing": (without("backbone.pos_embed"), "lacks tensors .* such as backbone.pos_embed"),
    "head missing": (without("smpl_head.init_cam"), "lacks smpl_head.init_cam"),
    "more": (with_value("backbone.cls_token", torch.ones(1, 1, 160)), "holds backbone.cls_token, which HMR2"),
    "hidden more": (with_value("smpl_head.\x1b[2J\n", torch.ones(1)), r"holds '?smpl_head.\\x1b"),
    "more blocks": (with_value("backbone.blocks.9.norm1.bias", torch.ones(160)), "lacks backbone.blocks.2.attn.proj"),
    "too many blocks": (
        lambda state: state.update({f"backbone.blocks.{i}.norm1.bias": torch.ones(1) for i in range(300)}), "lacks",
    ),
    "shape": (with_value(NET, torch.ones(96, 95)), rf"{NET} is \(96, 95\), HMR2.0 has \(96, 96\)"),
    "transposed": (with_value(NET, lambda values: values.t()), f"{NET} is not stored as plain numbers"),
    "scalar": (with_value("smpl_head.decpose.bias", torch.tensor(1.0)), r"decpose.bias is \(\), HMR2.0 has \(144,\)"),
    "square crops": (with_value("backbone.pos_embed", torch.ones(1, 257, 160)), r"pos_embed is .* 16 x 12 patches"),
    "width": (with_value("backbone.pos_embed", torch.ones(1, 193, 100)), "lacks tensors"),
    "no axes": (with_value("backbone.pos_embed", torch.tensor(1.0)), "lacks tensors"),
    "no width": (with_value("backbone.pos_embed", torch.ones(1, 193, 0)), "lacks tensors"),
    "huge and empty": (with_value("backbone.blocks.0.mlp.fc1.weight", torch.ones(1 << 40, 0)), "lacks tensors"),
    "empty": (with_value("smpl_head.init_betas", torch.ones(0)), r"init_betas is \(0,\)"),
    "nan": (with_value(QKV, lambda values: spoilt(values, math.nan)), f"{QKV} holds values that are no finite"),
    "infinite": (with_value(NET, lambda values: spoilt(values, -math.inf)), f"{NET} holds values that are no finite"),
    "too large": (with_value(NET, lambda values: spoilt(values.double(), 1e300)), f"{NET} holds values that are no"),
    "integers": (with_value(NET, lambda values: values.long()), f"{NET} holds int64, HMR2.0 has float32"),
    "bools": (with_value(NET, lambda values: values > 0), f"{NET} holds bool"),
    "a list": (with_value(NET, [1.0]), f"{NET} is no tensor"),
    "nothing": (dict.clear, "nothing under backbone. and smpl_head."),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_files_with_other_tensors_are_refused_by_name(tmp_path: Path, name: str) -> None:
    change, reason = FAULTS[name]
    state: dict[str, Any] = hmr2_state()
    change(state)
    refused(save_hmr2(tmp_path / "changed.ckpt", state), reason)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        load(path)
    assert str(error.value).startswith(f"--weights {path}: ") and str(error.value).isprintable()


def test_other_files_are_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "absent.ckpt", "there is no such file")
    torch.save(hmr2_state(), tmp_path / "bare.pth")
    refused(tmp_path / "bare.pth", "holds no state_dict, so it is no checkpoint of HMR2.0")
    torch.save([hmr2_state()], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "holds no state_dict")
    torch.save({"state_dict": {"conv1.weight": torch.ones(3)}}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "nothing under backbone. and smpl_head., so it is no checkpoint of HMR2.0")
    whole = checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.ckpt", "damaged or cut short")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    refused(tmp_path / "flipped.ckpt", "damaged or cut short")
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    with pytest.raises(InputError, match="needs the checkpoint of HMR2.0a or b.*; give it as --weights"):
        load_backbone("hmr2")
    with pytest.raises(InputError, match="--crop-rule spin: hmr2 has wham, 4dhumans, gvhmr"):
        load(checkpoint, crop_rule="spin")


LOADS = """
import sys
from pathlib import Path
from glot.features.backbones.backbone import load_backbone
import glot.features.backbones.hmr2
def memory(kind):
    return next(int(row.split()[1]) for row in open("/proc/self/status") if row.startswith(kind + ":")) * 1024
before = memory("VmRSS")
backbone = load_backbone("hmr2", Path(sys.argv[1]), first_guess=True)
network = backbone.network(device="cpu", precision="float32")
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_the_weights_are_in_memory_once(tmp_path: Path) -> None:
    state = {name: torch.full(shape, 0.5) for name, shape in hmr2_shapes(width=640, depth=5).items()}
    path = save_hmr2(tmp_path / "middle.ckpt", state)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", LOADS, str(path)]
    ended = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert not ended.returncode, ended.stderr
    weights = 4 * sum(values.numel() for values in state.values())
    assert 95e6 < weights < 120e6 and 0.9 * weights < int(ended.stdout) < 1.5 * weights
    path.unlink()
