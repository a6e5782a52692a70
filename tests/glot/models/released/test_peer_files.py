"""Files of the releases of TCMR, MPS-Net, VIBE and MEVA are read, and written with every tensor that they have."""

import csv
import json
from ast import literal_eval
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from glot.capture.spec import PredictSpec
from glot.config import DiscriminatorConfig
from glot.errors import InputError
from glot.evaluate import main as evaluate
from glot.features.schema import Manifest
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.model_configs import MODELS, GLoTConfig
from glot.models.architectures import build
from glot.models.checkpoint import check_features, load_checkpoint, save_checkpoint
from glot.models.inference import load_model
from glot.models.mps_net import MPSNet
from glot.models.parts.motion_discriminator import MotionDiscriminator
from glot.models.released.peer_files import peer_state
from glot.models.released.published_files import load_published, write_official
from glot.models.released.release_layout import mean_buffers
from glot.models.spec import OfficialSpec, PublishSpec
from glot.models.temporal_model import TemporalModel
from glot.official import main as official
from glot.peer_recipes import PEER_RECIPES
from glot.pictures.rendering import model_for
from glot.predict import main as predict
from glot.publish import main as publish
from glot.recipes import table1_3dpw
from glot.scoring.spec import EvaluateSpec
from glot.training.loop import first_model
from tests.fixtures.features import write_feature_set
from tests.fixtures.peer_models import PEERS, small_peer
from tests.fixtures.places import GOLDEN
from tests.fixtures.small_model import small_model

LISTED = GOLDEN / "baseline_state_dicts.tsv"
DTYPES = {"float32": torch.float32, "int64": torch.int64}


def released_state(model: TemporalModel) -> dict[str, Tensor]:
    """What a release saves for a model; a few of SMPL's buffers stand for all."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "mean"}
    state |= mean_buffers(model.mean, "regressor")
    return state | {"regressor.smpl.v_template": torch.zeros(6890, 3), "smpl.betas": torch.zeros(64, 10)}


def released(path: Path, model: TemporalModel, *, is_zip: bool = True, **more: Any) -> Path:
    """A file as the code of a release writes it."""
    content = {"epoch": 30, "gen_state_dict": released_state(model), "performance": np.float32(52.7)}
    content |= {"gen_optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 5e-5}]}, **more}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


def saved(folder: Path, model: TemporalModel, body: Body, **changes: Any) -> Path:
    """A checkpoint of this project."""
    config: Any = model.config
    recipe = table1_3dpw() if config.kind == "glot" else PEER_RECIPES[f"{config.kind}_table1_3dpw"]()
    save_checkpoint(
        folder,
        model=model,
        recipe=replace(recipe, seed=7),
        body={"name": body.name, "hash": body.file_hash, "open": False},
        features={"backbone": {"name": "resnet50", "hash": "ab", "feature_size": config.feature_size}},
        metrics={"pa_mpjpe": 50.5},
        step=1000,
        **changes,
    )
    return folder


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kind", [*PEERS, "with_first_pose"])
def test_a_released_file_says_which_model_it_is(tmp_path: Path, kind: str, is_zip: bool) -> None:
    if kind == "with_first_pose":
        model = small_peer("meva", variant=kind, frames=90)
    else:
        model = small_peer(kind, frames=90 if kind == "meva" else 16)
    model.config = replace(model.config, regressor_dropout=0.5)
    if isinstance(model, MPSNet):
        model.config = replace(model.config, similarities="official")
    found = load_published(released(tmp_path / "model_best.pth.tar", model, is_zip=is_zip))
    assert found.model.config == model.config == found.recipe.model and not found.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert found.info["body"] == {"open": False}
    assert found.info["features"] == {"backbone": {"name": "spin", "feature_size": 24}}
    assert f"from {model.title}'s release" in found.info["notes"][0]
    assert f"windows of {model.config.frames} frames" in found.info["notes"][0]


@pytest.mark.parametrize("package", [b"numpy._core.multiarray", b"numpy.core.multiarray"], ids=["numpy 2", "numpy 1"])
def test_the_score_of_a_file_is_a_number_of_any_numpy(tmp_path: Path, package: bytes) -> None:
    path = released(tmp_path / "model_best.pth.tar", small_peer("vibe"), is_zip=False)
    written = np.float32(0).__reduce__()[0].__module__.encode()
    content = path.read_bytes()
    assert content.count(b"c" + written + b"\nscalar\n") == 1
    path.write_bytes(content.replace(b"c" + written + b"\n", b"c" + package + b"\n"))
    assert load_published(path).model.title == "VIBE"


def test_layers_are_counted_and_prefixes_of_parallel_training_are_left_out(tmp_path: Path) -> None:
    model = small_peer("tcmr", gru_layers=3, regressor_dropout=0.5)
    state = {f"module.{name}": tensor for name, tensor in released_state(model).items()}
    torch.save({"gen_state_dict": state}, tmp_path / "tcmr.pth.tar")
    assert load_published(tmp_path / "tcmr.pth.tar").model.config == model.config


@pytest.mark.parametrize("trained", [True, False])
def test_a_file_of_mps_net_says_whether_its_encoder_was_trained(tmp_path: Path, trained: bool) -> None:
    model = small_peer("mps_net")
    assert isinstance(model, MPSNet)
    for conv in (model.nonlocalblock.conv_phi, model.nonlocalblock.conv_theta, model.nonlocalblock.conv_g):
        conv.reset_parameters()
    if trained:
        with torch.no_grad():
            model.nonlocalblock.conv_g.weight[0, 0] = 0.21  # the first weights are below 1 / sqrt(24) = 0.204
    _, mixing, encoder = load_model(released(tmp_path / "mpsnet.pth.tar", model)).info["notes"]
    assert "batches of 8 windows" in mixing
    assert ("was never trained" in encoder) != trained and ("was trained" in encoder) == trained


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = torch.load(path, weights_only=False)
        change(content)
        torch.save(content, path)

    return edit


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (cut, "not a readable torch file"),
    "no model": (edited(lambda c: c.pop("gen_state_dict")), "no gen_state_dict in it"),
    "of another model": (
        edited(lambda c: c.update(gen_state_dict={"hmr.fc1.weight": torch.zeros(2)})),
        r"of no model that this program knows.*hmr\.fc1\.weight",
    ),
    "no tensor": (edited(lambda c: c["gen_state_dict"].update(more=[1, 2])), "holds 'more', which is no named tensor"),
    "a tensor is missing": (
        edited(lambda c: c["gen_state_dict"].pop("encoder.linear.bias")),
        r"lacks encoder\.linear\.bias, which a model",
    ),
    "a layer is missing": (
        edited(lambda c: c["gen_state_dict"].pop("regressor.fc1.weight")),
        r"regressor\.fc1\.weight is missing, so it is not a whole",
    ),
    "a tensor too many": (
        edited(lambda c: c["gen_state_dict"].update({"encoder.gru.weight_ih_l0_reverse": torch.zeros(36, 24)})),
        r"holds encoder\.gru\.weight_ih_l0_reverse",
    ),
    "another size": (
        edited(lambda c: c["gen_state_dict"].update({"regressor.fc2.weight": torch.zeros(3, 20)})),
        r"regressor\.fc2\.weight is \(3, 20\), the configuration says \(20, 20\)",
    ),
    "no matrix": (
        edited(lambda c: c["gen_state_dict"].update({"regressor.fc1.weight": torch.zeros(3)})),
        r"regressor\.fc1\.weight is \(3,\), which is no matrix",
    ),
    "no width": (
        edited(lambda c: c["gen_state_dict"].update({"encoder.gru.weight_hh_l0": torch.zeros(4, 0)})),
        r"model\.gru_width=0",
    ),
    "no mean body": (
        edited(lambda c: c["gen_state_dict"].update({"regressor.init_pose": torch.zeros(1, 72)})),
        r"lacks regressor\.init_pose with 144 numbers",
    ),
    "a small file of many numbers": (
        edited(lambda c: c["gen_state_dict"].update({"regressor.fc1.weight": torch.zeros(1).expand(10**9, 10**9)})),
        r"regressor\.fc1\.weight is not stored as plain numbers",
    ),
    "settings of a newer version": (edited(lambda c: c.update(glot={"version": 99})), "checkpoint version 99"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_named_in_one_line(tmp_path: Path, what: str) -> None:
    path = released(tmp_path / "vibe.pth.tar", small_peer("vibe"))
    change, message = WRONG[what]
    change(path)
    with pytest.raises(InputError, match=message) as caught:
        load_published(path)
    assert "vibe.pth.tar" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_a_damaged_file_is_an_input_error_wherever_the_damage_is(tmp_path: Path, is_zip: bool) -> None:
    path = released(tmp_path / "vibe.pth.tar", small_peer("vibe"), is_zip=is_zip)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    pickled = whole.index(b"gen_state_dict") - 60  # the damage is in the first part, which is read as a pickle
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(max(pickled, 0), pickled + 4000, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1000, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            load_published(path)  # it may be readable still: a damaged number is a number
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", PEERS)
def test_a_checkpoint_written_as_a_release_comes_back_with_all_its_settings(
    tmp_path: Path, body: Body, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glot.models.released.peer_files.require_official", lambda *_: None)  # small models
    model = small_peer(kind, frames=17, regressor_dropout=0.25)
    spec = OfficialSpec(checkpoint=saved(tmp_path / "best", model, body), body=folder, out=tmp_path / "out.pth.tar")
    notes = write_official(spec).notes
    assert any("batch size of 1" in note for note in notes) == (kind == "mps_net")
    back, ours = load_published(spec.out), load_checkpoint(spec.checkpoint)
    assert back.recipe == ours.recipe and back.recipe.seed == 7 and back.model.config == model.config
    assert back.info == ours.info | {"notes": []}
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name
    edited(lambda content: content["glot"]["recipe"]["model"].update(hidden=10**9))(spec.out)
    with pytest.raises(InputError, match=r"out\.pth\.tar: model\.hidden=1000000000 does not fit the tensors"):
        load_published(spec.out)


def test_glot_written_as_its_release_comes_back_with_all_its_settings(tmp_path: Path, body: Body, folder: Path) -> None:
    config = GLoTConfig(hscr_global_pose="official", positions="sine", mask_ratio=0.0, first_corrections="official")
    model = small_model(config)
    spec = OfficialSpec(checkpoint=saved(tmp_path / "best", model, body), body=folder, out=tmp_path / "out.pth.tar")
    write_official(spec)
    back = load_published(spec.out)
    assert back.model.config == config and back.info["features"]["backbone"]["hash"] == "ab"
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name
    edited(lambda content: content.pop("glot"))(spec.out)  # as GLoT's own code writes it
    assert load_published(spec.out).model.config == GLoTConfig(hscr_global_pose="official")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("tcmr", {"gru_layers": 3}),
        ("mps_net", {"feature_size": 288}),
        ("mps_net", {"frames": 24}),
        ("vibe", {"hidden": 512}),
        ("meva", {"latent": 256}),
    ],
    ids=str,
)
def test_models_that_a_release_does_not_have_are_not_written(body: Body, kind: str, changes: dict) -> None:
    ((name, value),) = changes.items()
    with torch.device("meta"):
        model = build(MODELS[kind](**changes), torch.zeros(157))
    with pytest.raises(InputError, match=f"{name}={value}"):
        peer_state(model, body)


def listed(part: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The tensors of a part of the releases: (shape, dtype) by name."""
    with LISTED.open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["model"] == part]
    return {row["key"]: (literal_eval(row["shape"]), DTYPES[row["dtype"]]) for row in rows}


def of_state(state: dict[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


@pytest.mark.parametrize("part", [*PEERS, "meva_with_first_pose"])
def test_a_model_of_full_size_is_written_with_every_tensor_of_its_release(
    tmp_path: Path, body: Body, folder: Path, part: str
) -> None:
    torch.manual_seed(0)
    kind = part.removesuffix("_with_first_pose")
    config = MODELS[kind](**({} if kind == part else {"variant": "with_first_pose"}))
    model = build(config, torch.randn(157)).eval()
    checkpoint = saved(tmp_path / "best", model, body)
    spec = OfficialSpec(checkpoint=checkpoint, body=folder, out=tmp_path / "out.pth.tar")
    written = write_official(spec)
    content = torch.load(spec.out, weights_only=True)
    assert written.tensors == len(content["gen_state_dict"])
    assert (content["epoch"], content["performance"]) == (2, 50.5)
    back = load_published(spec.out).model
    assert back.config == config
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    if LISTED.is_file():
        assert of_state(content["gen_state_dict"]) == listed(part)


def test_the_discriminator_of_a_checkpoint_is_written(tmp_path: Path, body: Body, folder: Path) -> None:
    checkpoint = saved(tmp_path / "best", build(MODELS["mps_net"](), torch.zeros(157)), body)
    discriminator = MotionDiscriminator(DiscriminatorConfig()).state_dict()
    save_file(discriminator, checkpoint / "discriminator.safetensors")
    spec = OfficialSpec(checkpoint=checkpoint, body=folder, out=tmp_path / "out.pth.tar")
    write_official(spec)
    found = torch.load(spec.out, weights_only=True)["disc_motion_state_dict"]
    assert all(torch.equal(found[name], x) for name, x in discriminator.items())
    if LISTED.is_file():
        assert of_state(found) == listed("mps_net/disc_motion_state_dict")
    save_file(discriminator | {"fc.weight": torch.zeros(1, 8)}, checkpoint / "discriminator.safetensors")
    with pytest.raises(InputError, match=r"fc\.weight is \(1, 8\), the official code needs \(1, 1024\)"):
        write_official(spec)


def test_a_released_file_becomes_a_folder_in_float16(tmp_path: Path) -> None:
    path = released(tmp_path / "mpsnet.pth.tar", small_peer("mps_net"))
    publish(PublishSpec(checkpoint=path, out=tmp_path / "mine"))
    of_file, of_folder = load_model(path), load_model(tmp_path / "mine")
    assert of_folder.model.config == of_file.model.config and of_folder.recipe == of_file.recipe
    assert of_folder.info["notes"] == of_file.info["notes"][1:]  # what the file does not say, the folder says
    for name, tensor in of_file.model.state_dict().items():
        assert torch.equal(of_folder.model.state_dict()[name], tensor.half().float()), name
    # Nobody knows which weights made the features of a released file, so any are taken that have the size.
    backbone = {"name": "resnet50", "hash": "ab", "feature_size": 24}
    check_features(of_folder, Manifest("3dpw", "test", 1, 1, backbone, {}, {}, []))
    with pytest.raises(InputError, match="this model takes 24"):
        check_features(of_folder, Manifest("3dpw", "test", 1, 1, backbone | {"feature_size": 25}, {}, {}, []))


@pytest.mark.parametrize("kind", PEERS)
def test_training_starts_from_a_released_file(tmp_path: Path, body: Body, kind: str) -> None:
    model = small_peer(kind)
    recipe = replace(PEER_RECIPES[f"{kind}_table1_3dpw"](), model=model.config)
    path = released(tmp_path / "model.pth.tar", model)
    first = first_model(recipe, body, start=path)
    assert first.config == recipe.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(first.state_dict()[name], tensor), name
    with pytest.raises(InputError, match=r"model\.pth\.tar: "):
        first_model(replace(recipe, model=replace(recipe.model, hidden=21)), body, start=path)


def test_commands_say_once_what_a_user_has_to_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "features" / "3dpw" / "test"
    open_body = load_body()
    write_feature_set(place, tracks=[20, 17], feature_size=24, body=open_body, split="test")
    state = released_state(small_peer("mps_net"))
    del state["regressor.smpl.v_template"]  # of whichever body
    path = tmp_path / "mpsnet_model_best.pth.tar"
    torch.save({"gen_state_dict": state}, path)

    def said() -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if "MPS-Net" in line and len(line) > 60]

    notes = load_model(path).info["notes"]
    features = tmp_path / "features"
    evaluate(EvaluateSpec(checkpoint=path, features=features, json_file=tmp_path / "out.json"))
    assert said() == notes == json.loads((tmp_path / "out.json").read_text())["notes"]
    predict(PredictSpec(checkpoint=path, features=features, out=tmp_path / "bodies.parquet"))
    assert said() == notes
    model_for(path, FeatureStore.open(place), open_body)
    assert said() == notes


@pytest.mark.parametrize("kind", ["mps_net", "vibe"])
def test_the_command_names_what_it_wrote(
    tmp_path: Path, body: Body, folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = saved(tmp_path / "best", build(MODELS[kind](), torch.zeros(157)), body)
    official(OfficialSpec(checkpoint=checkpoint, body=folder, out=tmp_path / "out.pth.tar"))
    printed = capsys.readouterr().out
    assert f"out.pth.tar: {len(listed(kind))} tensors" in printed or not LISTED.is_file()
    assert ("batch size of 1" in printed) == (kind == "mps_net")
