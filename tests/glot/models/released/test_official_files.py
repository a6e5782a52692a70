"""Official checkpoints are read, and written with the official names; SPIN's regressor is read; nothing is executed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.human.body import Body
from glot.model_configs import GLoTConfig
from glot.models.checkpoint import Checkpoint, save_checkpoint
from glot.models.glot import GLoT
from glot.models.released.official_files import from_official, load_official, official_name, to_official
from glot.models.released.spin_files import load_spin_regressor
from glot.recipes import open_sample
from tests.fixtures import synthetic_body
from tests.fixtures.places import ROOT
from tests.fixtures.small_model import SMALL, small_model, tensors


class Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("made-by-a-pickle",)


def test_torch_files_are_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"gen_state_dict": Hostile()}, tmp_path / "hostile.pth.tar")
    with pytest.raises(InputError, match=r"hostile\.pth\.tar: not a readable torch file"):
        load_official(tmp_path / "hostile.pth.tar")
    assert not (tmp_path / "made-by-a-pickle").exists()


def official_state(config: GLoTConfig) -> tuple[GLoT, dict[str, torch.Tensor]]:
    """A model and the state dict that the official code would save for it, with unused layers and body buffers."""
    model = small_model(config).eval()
    state = {official_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    pose, shape, cam = model.mean.split((144, 10, 3))
    for name, value in (("init_pose", pose), ("init_shape", shape), ("init_cam", cam)):
        state[f"global_modeling.regressor.{name}"] = value[None]
    state["global_modeling.regressor.fc2.weight"] = torch.zeros(1024, 1024)
    state["regressor.local_reg.decshape.bias"] = torch.zeros(10)
    state["regressor.smpl.v_template"] = torch.zeros(6890, 3)
    return model, state


def test_official_checkpoint(tmp_path: Path) -> None:
    config = GLoTConfig(frames=24, nearby_frames=6, hscr_global_pose="official")
    model, state = official_state(config)
    path = tmp_path / "model_best.pth.tar"
    # "performance" is a numpy scalar, which torch's weights_only refuses by default.
    torch.save({"epoch": 30, "gen_state_dict": state, "performance": np.float32(50.6)}, path)
    loaded = load_official(path)
    assert isinstance(loaded, Checkpoint) and loaded.model.config == config
    x = torch.randn(1, 24, 2048, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(tensors(model(x)), tensors(loaded.model(x)), strict=True):
            assert torch.equal(a, b)
    del state["proj_mem.bias"]
    torch.save({"gen_state_dict": state}, path)
    with pytest.raises(InputError, match=r"lacks correction\.project_memory\.bias"):
        load_official(path)


def test_official_names(tmp_path: Path) -> None:
    model, state = official_state(replace(SMALL, hscr_global_pose="official"))
    weights, left_out = from_official({f"module.{name}": tensor for name, tensor in state.items()})
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert sorted(left_out) == [
        "global_modeling.regressor.fc2.weight",
        "regressor.local_reg.decshape.bias",
        "regressor.smpl.v_template",
    ]
    with pytest.raises(InputError, match=r"encoder\.gru: no such tensor"):
        from_official({"encoder.gru": torch.zeros(1)})
    torch.save({"model": {}}, tmp_path / "spin.pth.tar")
    with pytest.raises(InputError, match="no gen_state_dict"):
        load_official(tmp_path / "spin.pth.tar")


def test_spin_regressor(tmp_path: Path) -> None:
    model = small_model()
    spin = {
        f"{layer}.weight": torch.randn(size, 24) for layer, size in (("decpose", 144), ("decshape", 10), ("deccam", 3))
    }
    spin |= {f"{layer}.bias": torch.randn(size) for layer, size in (("decpose", 144), ("decshape", 10), ("deccam", 3))}
    spin |= {"fc1.weight": torch.randn(24, 40 + 157), "fc1.bias": torch.randn(24), "conv1.weight": torch.zeros(2)}
    torch.save({"model": spin}, tmp_path / "spin.pth.tar")
    load_spin_regressor(model, tmp_path / "spin.pth.tar")
    assert torch.equal(model.iterative.cam.weight, spin["deccam.weight"])
    assert torch.equal(model.iterative.fc1.weight, spin["fc1.weight"])
    torch.save({"model": spin | {"fc1.weight": torch.zeros(24, 2205)}}, tmp_path / "spin.pth.tar")
    with pytest.raises(InputError, match=r"fc1\.weight is \(24, 2205\), this model needs \(24, 197\)"):
        load_spin_regressor(model, tmp_path / "spin.pth.tar")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frames": 24, "nearby_frames": 6},
        {"mask_ratio": 0.0},
        {"positions": "sine"},
        {"local_supervised_frames": 1},
    ],
    ids=str,
)
def test_a_model_written_in_the_official_layout_is_read_back_and_computes_the_same(
    tmp_path: Path, body: Body, changes: dict
) -> None:
    model = small_model(replace(GLoTConfig(hscr_global_pose="official"), **changes)).eval()
    state = to_official(model, body)
    assert len(state) == 198
    torch.save({"gen_state_dict": state}, tmp_path / "model_best.pth.tar")
    back = load_official(tmp_path / "model_best.pth.tar").model
    x = torch.randn(1, model.config.frames, 2048, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(model.middle(model(x)), back.middle(back(x)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    # What smplx makes of the same file is what the official code would have found in its own body.
    smplx = pytest.importorskip("smplx")
    data = smplx.utils.Struct(**synthetic_body.model())
    theirs = smplx.SMPL("", data_struct=data, batch_size=64, create_transl=False).state_dict()
    assert theirs.keys() == {
        name.removeprefix("regressor.smpl.") for name in state if name.startswith("regressor.smpl.")
    } - {"J_regressor_extra"}
    for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "parents", "faces_tensor"):
        ours = state[f"regressor.smpl.{name}"]
        assert ours.dtype == theirs[name].dtype and torch.allclose(ours.double(), theirs[name].double(), atol=1e-7), (
            name
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"hscr_global_pose": "paper"},
        {"regressor": "residual"},
        {"modules": "gmm"},
        {"mask_token": "learnable"},
        {"depth": 3},
        {"feature_size": 288},
    ],
    ids=str,
)
def test_models_that_the_official_code_does_not_have_are_not_exported(body: Body, changes: dict) -> None:
    (name, value), config = *changes.items(), replace(GLoTConfig(hscr_global_pose="official"), **changes)
    with pytest.raises(InputError, match=f"no model with {name}={value}"):
        to_official(small_model(config), body)


def test_the_command_writes_a_file_that_loads(tmp_path: Path, folder: Path, body: Body) -> None:
    model = small_model(GLoTConfig(hscr_global_pose="official"))
    save_checkpoint(
        tmp_path / "best",
        model=model,
        recipe=open_sample(),
        body={"name": body.name, "hash": body.file_hash, "open": False},
        features={"backbone": {"name": "resnet50", "hash": "ab", "feature_size": 2048}},
        metrics={"pa_mpjpe": 50.5},
        step=80,
    )

    def run(*changes: str) -> subprocess.CompletedProcess[str]:
        arguments = [
            "--checkpoint",
            str(tmp_path / "best"),
            "--body",
            str(folder),
            "--out",
            str(tmp_path / "o.pth.tar"),
        ]
        command = [sys.executable, "-m", "glot.official", *arguments, *changes]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    done = run()
    assert done.returncode == 0 and "198 tensors" in done.stdout, done.stderr
    loaded = load_official(tmp_path / "o.pth.tar").model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    found = torch.load(tmp_path / "o.pth.tar", weights_only=True)
    assert (found["epoch"], found["performance"]) == (2, 50.5)
    (tmp_path / "file").touch()
    done = run("--out", str(tmp_path / "file" / "o.pth.tar"))
    assert done.returncode == 2 and "cannot be written" in done.stderr and "Traceback" not in done.stderr
