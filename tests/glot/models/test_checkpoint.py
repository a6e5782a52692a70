"""A checkpoint that is read equals the one that was written; messages name what is damaged."""

import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import glot.models.checkpoint
from glot.config import LossConfig, Recipe, to_dict
from glot.errors import InputError
from glot.features.schema import Manifest
from glot.human.body import load_body
from glot.models.checkpoint import (
    check_features,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from glot.models.glot import GLoT
from glot.models.losses import glot_loss
from glot.recipes import open_sample
from tests.fixtures.small_model import SMALL, features, random_targets, small_model, tensors
from tests.glot.models.test_glot import NAMED

STORED = Path(__file__).parent / "stored" / "checkpoint"  # of earlier code
BACKBONE = {"name": "resnet50", "hash": "0123456789abcdef", "feature_size": 40}


def save(folder: Path, model: GLoT, *, step: int = 7) -> None:
    save_checkpoint(
        folder,
        model=model,
        recipe=open_sample(),
        body={"name": "open_body", "hash": "ab", "open": True},
        features={"backbone": BACKBONE},
        metrics={"val_pa_mpjpe": 45.5},
        step=step,
    )


@pytest.mark.parametrize("changes", NAMED)
def test_every_ablation_comes_back_as_it_was(tmp_path: Path, changes: dict) -> None:
    model = small_model(replace(SMALL, **changes)).eval()
    save(tmp_path / "c", model)
    back = load_checkpoint(tmp_path / "c")
    assert back.recipe == replace(open_sample(), model=model.config) and not back.model.training
    assert back.info["step"] == 7 and back.info["metrics"] == {"val_pa_mpjpe": 45.5} and back.info["body"]["open"]
    x = features(model.config)
    with torch.no_grad():
        for a, b in zip(tensors(model(x)), tensors(back.model(x)), strict=True):
            assert torch.equal(a, b)


def test_saving_leaves_nothing_else_behind_and_replaces(tmp_path: Path) -> None:
    save(tmp_path / "c", small_model(seed=1), step=1)
    save(tmp_path / "c", small_model(seed=2), step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["config.json", "model.safetensors"]
    assert load_checkpoint(tmp_path / "c").info["step"] == 2


def _die_while_saving(folder: Path, where: str) -> None:
    module, _, function = where.partition(".")
    setattr(getattr(glot.models.checkpoint, module), function, lambda *_, **__: os._exit(9))
    save(folder, small_model(seed=2), step=2)


@pytest.mark.parametrize("where", ["json.dumps", "os.replace"])
def test_a_save_that_dies_leaves_the_old_checkpoint_whole(tmp_path: Path, where: str) -> None:
    save(tmp_path / "c", small_model(seed=1), step=1)
    process = multiprocessing.get_context("fork").Process(target=_die_while_saving, args=(tmp_path / "c", where))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert load_checkpoint(tmp_path / "c").info["step"] == 1
    save(tmp_path / "new", small_model())
    assert load_checkpoint(tmp_path / "new").info["step"] == 7


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(InputError, match=r"no checkpoint, there is no config\.json"):
        load_checkpoint(folder)
    save(folder, small_model())
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged or cut short"):
            load_checkpoint(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: missing"):
        load_checkpoint(folder)
    weights.write_bytes(whole)
    config.write_text(text[:200])
    with pytest.raises(InputError, match=r"config\.json: not readable"):
        load_checkpoint(folder)
    for changed, message in (
        ({"version": 99}, "checkpoint version 99, this program reads version 1"),
        ({"recipe": {**json.loads(text)["recipe"], "lr2": 1}}, r"c/config\.json: .* not know lr2; .* a newer version"),
        ({"schema": 99}, r"c/config\.json: recipe: has schema 99"),
        ({"schema": "new"}, r"c/config\.json: recipe: has schema new"),
    ):
        config.write_text(json.dumps(json.loads(text) | changed))
        with pytest.raises(InputError, match=message):
            load_checkpoint(folder)
    config.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "features"}))
    with pytest.raises(InputError, match="has no features"):
        load_checkpoint(folder)


def test_a_checkpoint_from_before_a_field_existed_has_its_default(tmp_path: Path) -> None:
    """As if all fields whose value is the default had come into the program after the file was written."""
    config, defaults = json.loads((STORED / "config.json").read_text()), to_dict(Recipe("open_sample"))
    for section in ("model", "loss", "data"):
        for name, value in defaults.pop(section).items():
            if config["recipe"][section].get(name) == json.loads(json.dumps(value)):
                del config["recipe"][section][name]
    given = config["recipe"]
    for name in [name for name, value in defaults.items() if name != "name" and given.get(name) == value]:
        del given[name]
    assert not config["recipe"]["loss"] and "dropout" not in config["recipe"]["model"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(STORED / "model.safetensors", tmp_path)
    whole, older = load_checkpoint(STORED), load_checkpoint(tmp_path)
    assert older.recipe == whole.recipe and older.info == whole.info
    x = features(whole.recipe.model)
    with torch.no_grad():
        for a, b in zip(tensors(whole.model(x)), tensors(older.model(x)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 25}, r"correction\.regressor\.cam\.weight is \(3, 51\), the configuration says \(3, 53\)"),
        ({"regressor": "residual"}, r"holds correction\.regressor\.joints\.0\.bias, which .* does not have"),
        ({"mask_token": "learnable"}, r"holds motion\.token\.mlp\.0\.bias|lacks motion\.token"),
        ({"local_depth": 4}, r"lacks correction\.blocks\.3\.attn\.proj\.bias"),
    ],
)
def test_tensors_that_do_not_match_the_configuration_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    save(tmp_path / "c", small_model())
    path = tmp_path / "c" / "config.json"
    config = json.loads(path.read_text())
    config["recipe"]["model"] |= changes
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "c")


def manifest(**backbone: object) -> Manifest:
    return Manifest("3dpw", "test", 1, 1, BACKBONE | backbone, {}, {}, [])


def test_features_of_another_backbone_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", small_model())
    checkpoint = load_checkpoint(tmp_path / "c")
    check_features(checkpoint, manifest())
    message = r"another backbone \(vit, .* hash ff\) than .* trained on \(resnet50, .* hash 0123"
    with pytest.raises(InputError, match=message):
        check_features(checkpoint, manifest(name="vit", hash="ff"))
    with pytest.raises(InputError, match="have 2048 numbers a frame, this model takes 40"):
        check_features(checkpoint, manifest(feature_size=2048))


def train(model: GLoT, optimiser: torch.optim.Optimizer, epochs: range, folder: Path | None = None) -> list[float]:
    """Three steps an epoch, seeded as training does; saves after every epoch if there is a folder."""
    body, x, targets, losses = load_body(), features(), random_targets(), []
    for epoch in epochs:
        torch.manual_seed(epoch)
        for _ in range(3):
            total, _ = glot_loss(model.train()(x), targets, body=body, config=LossConfig())
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            losses.append(total.item())
        if folder:
            save(folder, model)
            save_training_state(folder, model=model, optimiser=optimiser, progress={"epoch": epoch + 1})
    return losses


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    one = small_model()
    whole = train(one, torch.optim.Adam(one.parameters(), 1e-2), range(4))
    two = small_model()
    train(two, torch.optim.Adam(two.parameters(), 1e-2), range(2), tmp_path / "c")
    three = small_model(seed=9)  # whatever it starts from is replaced
    optimiser = torch.optim.Adam(three.parameters(), 1e-2)
    first = load_training_state(tmp_path / "c", model=three, optimiser=optimiser)["epoch"]
    assert first == 2 and train(three, optimiser, range(first, 4)) == whole[6:]


def test_training_state_is_checked(tmp_path: Path) -> None:
    model, folder = small_model(), tmp_path / "c"
    optimiser = torch.optim.Adam(model.parameters())
    save(folder, model)
    with pytest.raises(InputError, match=r"training\.pt: there is no such file"):
        load_training_state(folder, model=model, optimiser=optimiser)
    save_training_state(folder, model=model, optimiser=optimiser, progress={})
    other = small_model(replace(SMALL, hidden=30))
    with pytest.raises(InputError, match="configured differently"):
        load_training_state(folder, model=other, optimiser=torch.optim.Adam(other.parameters()))
    path = folder / "training.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"training\.pt: not a readable torch file"):
        load_training_state(folder, model=model, optimiser=optimiser)
