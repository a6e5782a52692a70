"""Prediction over a track equals one window at a time, for any length and batch size, without side effects."""

import numpy as np
import pytest
import torch

from glot.config import ModelConfig
from glot.model import GLoT
from glot.predict import predict_track
from glot.windows import evaluation_windows

CONFIG = ModelConfig(
    feature_size=12, frames=8, nearby_frames=2, width=16, heads=2, decoder_width=8, local_width=8, hidden=16, depth=1
)


@pytest.fixture(scope="module")
def model() -> GLoT:
    torch.manual_seed(0)
    identity = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24)
    return GLoT(CONFIG, mean_pose=identity, mean_shape=torch.zeros(10), mean_cam=torch.tensor([0.9, 0, 0]))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(21, 12)).astype(np.float32)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 64), (3, 2), (8, 8), (21, 4), (21, 64)])
def test_equals_one_window_at_a_time(model: GLoT, features: np.ndarray, rows: int, batch_size: int) -> None:
    mine = predict_track(model, features[:rows], batch_size=batch_size)
    model.eval()
    with torch.no_grad():
        for row, window in enumerate(evaluation_windows(rows, 8)):
            alone = model.middle(model(torch.from_numpy(features[window])[None]))
            # An untrained model is ill-conditioned: some 6D columns are nearly parallel.
            for got, expected in zip(mine, alone, strict=True):
                torch.testing.assert_close(got[row], expected[0], atol=2e-4, rtol=0)
    assert mine.rotmats.shape == (rows, 24, 3, 3)


def test_official_reverses_the_tail(model: GLoT, features: np.ndarray) -> None:
    corrected = predict_track(model, features)
    official = predict_track(model, features, protocol="official")
    for a, b in zip(corrected, official, strict=True):
        torch.testing.assert_close(a[:-3], b[:-3])
        torch.testing.assert_close(a[-3:].flip(0), b[-3:])
        assert not torch.allclose(a[-3:], b[-3:])


def test_leaves_the_model_and_the_features_as_they_were(model: GLoT, features: np.ndarray) -> None:
    frozen = features.copy()
    frozen.flags.writeable = False  # as the rows of a memory map are
    model.train()
    first = predict_track(model, frozen)
    assert model.training
    assert not first.betas.requires_grad
    second = predict_track(model, frozen)  # no dropout, no masking
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    model.eval()
    predict_track(model, frozen)
    assert not model.training
