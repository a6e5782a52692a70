"""Every single-field ablation of the paper's tables takes real training steps, is saved, loaded and scored."""

import math
from pathlib import Path

import pytest
import torch

from glot.config import Recipe
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.model_configs import GLoTConfig
from glot.models.checkpoint import load_checkpoint, save_checkpoint
from glot.models.glot import GLoT
from glot.models.losses import glot_loss
from glot.recipes import open_sample, recipe_named
from glot.scoring.evaluation import evaluate_split
from glot.training.loop import first_model
from glot.training.sampler import Sampler
from tests.fixtures.features import write_feature_set

SMALL = [
    "model.feature_size=32", "model.width=32", "model.decoder_width=16", "model.local_width=16", "model.hidden=32",
    "model.heads=2", "data.batch_size=8", "lr=0.001",
]  # fmt: skip
ABLATIONS = (
    ["model.modules=gmm"]  # Table 3
    + [f"model.mask_ratio={step / 8}" for step in range(8)]  # 4
    + ["model.mask_token=learnable", "model.regressor=residual"]  # 5, 6
    + [f"model.nearby_frames={frames}" for frames in (2, 3, 4, 5, 6)]  # 7
    + ["model.detach_global=false", "model.positions=sine"]  # 8, 9
    + [f"model.frames={frames}" for frames in (10, 24, 32)]  # 11, and another even length
    + ["model.hscr_global_pose=official", "model.local_supervised_frames=1", "loss.use_accel=true"]
    + ["loss.velocity3d_mask=official", "loss.velocity3d_root=official"]
    + ["model.first_corrections=official", "data.invalid_frames=official"]
)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, body: Body) -> dict[str, FeatureStore]:
    root = tmp_path_factory.mktemp("features")
    for split, tracks in (("train", [60] * 4), ("validation", [40])):
        invalid = 0.1 if split == "train" else 0.0
        write_feature_set(root / split, tracks=tracks, body=body, seed=len(tracks), split=split, invalid=invalid)
    return {split: FeatureStore.open(root / split, cache=root / "cache") for split in ("train", "validation")}


def three_steps(recipe: Recipe, store: FeatureStore, body: Body) -> GLoT:
    """The model of a recipe after three steps, in which every parameter got a gradient and moved."""
    model = first_model(recipe, body).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    sampler = Sampler({"3dpw": store}, recipe.data, frames=recipe.model.frames, seed=1, rank=0, world=1)
    for step in range(3):
        features, targets, noise = sampler.batch(step)
        loss, terms = glot_loss(model(features, noise), targets, body=body, config=recipe.loss)
        assert math.isfinite(loss.item()) and loss.item() > 0
        assert any(name.startswith("local/") for name in terms) == (recipe.model.modules == "gmm+lpc")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # With nothing hidden in training, or a sample without joints in some place, all parameters still move.
    assert not {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    return model


@pytest.fixture(scope="module")
def plain(stores: dict[str, FeatureStore], body: Body) -> GLoT:
    """The model without an ablation, after its steps."""
    return three_steps(recipe_named("open_sample", SMALL), stores["train"], body)


@pytest.mark.parametrize("setting", ["seed=1", *ABLATIONS])
def test_three_steps_and_an_evaluation(
    setting: str, stores: dict[str, FeatureStore], body: Body, plain: GLoT, tmp_path: Path
) -> None:
    recipe = recipe_named("open_sample", [*SMALL, setting])
    model = three_steps(recipe, stores["train"], body)
    # An ablation trains something else, unless it sets the value that is the default.
    assert same_weights(model, plain) == (recipe == recipe_named("open_sample", SMALL))
    save_checkpoint(tmp_path / "c", model=model, recipe=recipe, body={}, features={}, metrics={}, step=3)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.recipe == recipe
    scores = [evaluate_split(net, stores["validation"], body).metrics for net in (model, loaded.model)]
    assert scores[0] == scores[1] and all(math.isfinite(value) for value in scores[0].values())


def same_weights(one: GLoT, other: GLoT) -> bool:
    """Whether two models have the same parameters, with the same values to the bit."""
    ours, theirs = (dict(model.named_parameters()) for model in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_list_names_every_architecture_field_of_the_paper_with_a_value_that_is_not_the_default() -> None:
    fields = {setting.partition("=")[0].partition(".")[2] for setting in ABLATIONS if setting.startswith("model.")}
    sizes = {"feature_size", "width", "depth", "heads", "decoder_width", "decoder_depth", "local_width", "local_depth"}
    sizes |= {"kind", "mlp_ratio", "hidden", "iterations", "dropout", "drop_path", "regressor_dropout", "hscr_dropout"}
    assert fields == set(vars(GLoTConfig())) - sizes
    base = open_sample()
    for field in fields:
        values = {getattr(recipe_named("open_sample", [s]).model, field) for s in ABLATIONS if f".{field}=" in s}
        assert values - {getattr(base.model, field)}, field
