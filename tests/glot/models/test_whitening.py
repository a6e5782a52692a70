"""What the first layers compute from features when training starts; nothing but the start changes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models import whitening
from glot.models.whitening import whiten
from glot.recipes import recipe_named
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


def test_the_layers_are_those_of_all_features_at_once(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in blocks from two sets, every third frame of each, with the mean and the covariance of these frames."""
    write_feature_set(tmp_path, tracks=[150, 40], feature_size=SIZE, seed=5)
    stores = [store, FeatureStore.open(tmp_path)]
    monkeypatch.setattr(whitening, "FRAMES", 240)
    monkeypatch.setattr(whitening, "ROWS_AT_ONCE", 37)
    recipe = recipe_named("open_sample", [f"model.feature_size={SIZE}", "model.modules=gmm", "model.width=64"])
    model = first_model(recipe, load_body()).double()
    whiten(model, stores, shrinkage=0.5, seed=3)

    features = np.concatenate([np.asarray(each.features, np.float64)[::3] for each in stores])
    variances, directions = np.linalg.eigh(np.cov(features.T, bias=True))
    whitened = (features - features.mean(0)) @ directions / np.sqrt(variances + 0.5 * variances.mean())
    seen = model.motion.project(torch.from_numpy(features)).detach().numpy()
    # A rotation of the whitened features: all products of two frames are equal.
    np.testing.assert_allclose(seen @ seen.T, whitened @ whitened.T, rtol=0, atol=1e-10 * (whitened**2).sum(1).max())


class Rows:
    """Stands for a store of many frames; it makes the features that it is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def features_of(self, rows: np.ndarray) -> np.ndarray:
        return np.random.default_rng(int(rows[0])).standard_normal((len(rows), SIZE), np.float32)


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    """The arrays of numpy, which tracemalloc sees."""
    recipe = recipe_named("open_sample", [f"model.feature_size={SIZE}", "model.modules=gmm", "model.width=64"])
    model, peaks = first_model(recipe, load_body()), []
    for count in (3_000, 45_000):
        tracemalloc.start()
        whiten(model, [Rows(count)], shrinkage=1.0, seed=0)  # type: ignore[list-item]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 45_000 * 8  # the numbers of the frames are not read in blocks
