"""What the first layers compute from features when training starts; nothing but the start changes."""

import pytest
import torch

from glot.config import recipe_named
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.whitening import whiten
from glot.training.loop import first_model
from tests.fixtures.features import write_feature_set

SIZE = 48


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("set")
    write_feature_set(folder, tracks=[300, 200], feature_size=SIZE)
    return FeatureStore.open(folder)


@pytest.mark.parametrize("modules", ["gmm", "gmm+lpc"])
def test_projected_features_are_decorrelated_and_of_one_spread(store: FeatureStore, modules: str) -> None:
    sizes = ["model.width=64", "model.local_width=16", "model.decoder_width=32", "model.hidden=32", "model.heads=2"]
    recipe = recipe_named("open_sample", [*sizes, f"model.modules={modules}", f"model.feature_size={SIZE}"])
    model = first_model(recipe, load_body())
    before = {name: values.clone() for name, values in model.state_dict().items()}
    whiten(model, [store], shrinkage=1e-6, seed=3)
    features = torch.tensor(store.features)

    seen = model.motion.project(features)  # 64 numbers of 48: as many directions as there are
    spread = torch.linalg.eigvalsh(torch.cov(seen.T.double()))[-20:]
    assert seen.mean(0).abs().max() < 1e-3 and spread.min() > 0.9 and spread.max() < 1.1
    if model.correction is not None:
        seen = model.correction.project(features)
        assert torch.cov(seen.T.double()).sub(torch.eye(16)).abs().max() < 0.05
    changed = {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}
    assert {name.rsplit(".", 1)[0] for name in changed} <= {"motion.project", "correction.project"} and changed
    again = first_model(recipe, load_body())
    whiten(again, [store], shrinkage=1e-6, seed=3)
    assert torch.equal(again.motion.project.weight, model.motion.project.weight)


def test_shrinkage_leaves_weak_directions_weak(store: FeatureStore) -> None:
    recipe = recipe_named("open_sample", [f"model.feature_size={SIZE}", "model.modules=gmm"])
    spreads = []
    for shrinkage in (1e-6, 1.0, 100.0):
        model = first_model(recipe, load_body())
        whiten(model, [store], shrinkage=shrinkage, seed=0)
        values = torch.linalg.eigvalsh(torch.cov(model.motion.project(torch.tensor(store.features)).T.double()))
        spreads.append(float(values[-1] / values[-15]))
    assert spreads[0] < spreads[1] < spreads[2]
