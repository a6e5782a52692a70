"""The same weights in any file format are the same backbone; other files are refused, and nothing is executed."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from glot import shipped
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from glot.features.backbones.extractor import Extractor, deviation
from glot.human.crop import normalise
from glot.shipped import ASSETS
from tests.fixtures.places import ROOT

RANDOM_HASH = "b4b986ee3479c4bd"  # of --weights random, on every machine


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A ResNet-50 whose batch norms are not the identity, so that folding them changes the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = torchvision.models.resnet50(weights=None)
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.data.uniform_(0.5, 1.5)
    return module.eval()


@pytest.fixture(scope="module")
def torchvision_file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return path


def spin_checkpoint(network: torch.nn.Module) -> dict:
    """SPIN's layout: the trunk and its regressor under ``model``, training state beside it, numpy among it."""
    model = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    model |= {"fc1.weight": torch.zeros(4, 5), "decpose.bias": torch.zeros(144), "init_cam": torch.zeros(1, 3)}
    extras = {"epoch": 3, "batch_size": 64, "dataset_perm": np.arange(6), "loss": np.float64(0.5)}
    return {"model": model, "optimizer": {"state": {}, "param_groups": []}, "total_step_count": 9, **extras}


def test_every_file_format_gives_the_same_backbone(
    network: torch.nn.Module, torchvision_file: Path, tmp_path: Path
) -> None:
    plain = load_backbone(weights=torchvision_file)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    torch.save(spin_checkpoint(network), tmp_path / "spin_model_checkpoint.pth.tar")
    torch.save(spin_checkpoint(network), tmp_path / "legacy.pth.tar", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "spin_model_checkpoint.pth.tar", "legacy.pth.tar"):
        other = load_backbone(weights=tmp_path / name)
        assert other.hash == plain.hash and other.weights_name == name
        ours, theirs = other.module.state_dict(), plain.module.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs if "num_batches" not in key)
        (tmp_path / name).unlink()
    assert plain.feature_size == 2048 and not plain.module.training


def test_half_precision_is_read_and_is_other_weights(
    network: torch.nn.Module, torchvision_file: Path, tmp_path: Path
) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    loaded = load_backbone(weights=tmp_path / "half.safetensors")
    assert loaded.hash != load_backbone(weights=torchvision_file).hash
    assert next(loaded.module.parameters()).dtype == torch.float32


def test_the_fast_network_computes_the_plain_features(torchvision_file: Path) -> None:
    loaded = load_backbone(weights=torchvision_file)
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    with torch.no_grad():
        plain = loaded.module(normalise(torch.from_numpy(crops))).numpy()
    fast = Extractor(loaded)(crops)
    assert fast.shape == (3, 2048) and fast.dtype == np.float32
    assert np.abs(fast - plain).max() < 1e-5 * np.abs(plain).max()
    with torch.no_grad():  # making the fast network did not change the plain one
        assert np.array_equal(plain, loaded.module(normalise(torch.from_numpy(crops))).numpy())


def test_bfloat16_is_near_and_deviation_measures_by_how_much(torchvision_file: Path) -> None:
    loaded = load_backbone(weights=torchvision_file)
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    full, half = Extractor(loaded), Extractor(loaded, precision="bfloat16")
    exact, near = full(crops), half(crops)
    assert near.dtype == np.float32
    off = float(np.linalg.norm(near - exact) / np.linalg.norm(exact - exact.mean(0)))
    assert deviation(full, half, crops) == pytest.approx(off, rel=1e-3)
    assert 1e-4 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 3e-2
    assert next(loaded.module.parameters()).dtype == torch.float32, "the plain form was left alone"


def test_int8_is_near_and_always_the_same(torchvision_file: Path) -> None:
    loaded = load_backbone(weights=torchvision_file)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3), np.uint8)
    crops = np.stack([cv2.resize(picture, (224, 224), interpolation=cv2.INTER_CUBIC) for picture in coarse])
    exact = Extractor(loaded)
    made = loaded.int8_network(crops[:8])
    small = Extractor(loaded.with_int8(made), precision="int8")
    assert len(made) < 0.3 * len(loaded.to_onnx()) and loaded.int8_network(crops[:8]) == made
    assert loaded.with_int8(made).hash not in (loaded.hash, loaded.with_int8(made[:-1]).hash), "features differ"
    assert np.array_equal(small(crops), np.concatenate([small(crops[:5]), small(crops[5:])]))
    assert 1e-3 < np.linalg.norm(small(crops) - exact(crops)) / np.linalg.norm(exact(crops)) < 0.2
    with pytest.raises(InputError, match="int8: is for CPUs"):
        Extractor(loaded.with_int8(made), device="cuda", precision="int8")


def test_the_random_network_is_asked_for_by_name_and_always_the_same() -> None:
    before = torch.random.get_rng_state()
    first, second = load_backbone(weights=RANDOM_WEIGHTS), load_backbone(weights=RANDOM_WEIGHTS)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.hash == second.hash == RANDOM_HASH
    described = {"name": "resnet50", "weights": "random", "hash": RANDOM_HASH, "feature_size": 2048, "seed": 0}
    assert first.describe() == described
    assert load_backbone().hash != first.hash and "seed" not in load_backbone().describe()


def test_the_random_network_is_the_same_on_processors_without_avx() -> None:
    code = (
        "import torch; from glot.features.backbones.backbone import load_backbone\n"
        "from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS\n"
        "print(torch.backends.cpu.get_cpu_capability(), load_backbone(weights=RANDOM_WEIGHTS).hash)"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.stdout.split() == ["DEFAULT", RANDOM_HASH], ended.stderr


def test_the_random_network_passes_signals_on() -> None:
    """Features vary from crop to crop, so that a pipeline tried with them is tried with numbers that mean something."""
    crops = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    crops[1] //= 3
    features = Extractor(load_backbone(weights=RANDOM_WEIGHTS))(crops)
    assert np.isfinite(features).all() and 1e-3 < features.std() < 1e3
    assert np.abs(features[0] - features[1]).max() > 1e-2


def test_without_the_open_weights_no_random_network_steps_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(shipped, "distributions", lambda name: [])
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    monkeypatch.delenv("GLOT_WEIGHTS_URL", raising=False)
    with pytest.raises(InputError, match="resnet50_open.safetensors: this file of the project is missing; looked in"):
        load_backbone()
    (tmp_path / "body").mkdir()
    (tmp_path / "body" / "resnet50_open.safetensors").symlink_to(ASSETS / "resnet50_open.safetensors")
    assert load_backbone().weights_name == "resnet50_open.safetensors"


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (str(Path("evil-was-run").absolute()),)


def test_files_without_such_weights_are_refused_in_one_line(
    network: torch.nn.Module, torchvision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = torchvision_file.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "text.pth").write_text("hello\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({**network.state_dict(), "conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "shape.pth")
    torch.save({**network.state_dict(), "bn1.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pth")
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    reasons = {
        "missing.pth": "no such file", "cut.pth": "not readable", "cut.safetensors": "not readable",
        "text.pth": "not readable", "empty.pth": "not readable", "other.pth": "no conv1.weight", "list.pth": "list",
        "shape.pth": r"\(64, 3, 3, 3\)", "nan.pth": "NaN", "evil.pth": "not readable", "evil.pkl": "not readable",
    }  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as error:
            load_backbone(weights=tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "evil-was-run").exists()
    with pytest.raises(InputError, match="resnet50"):
        load_backbone("vit")
