"""Predictions for a track equal those of one window at a time, for any length and batch size, without side effects."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from glot.capture.spec import PredictSpec
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.features.windows import evaluation_windows
from glot.human.rotation import axis_angle_to_rotmat
from glot.model_configs import GLoTConfig
from glot.models.checkpoint import save_checkpoint
from glot.models.glot import GLoT
from glot.models.inference import predict_track
from glot.models.prediction.track_predictors import track_predictor
from glot.predict import main
from glot.recipes import open_sample
from tests.fixtures.features import write_feature_set

CONFIG = GLoTConfig(
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


def test_without_the_local_branch_it_is_the_global_estimate_of_the_middle_frame(
    model: GLoT, features: np.ndarray
) -> None:
    mine = predict_track(model, features, local=False, batch_size=4)
    model.eval()
    with torch.no_grad():
        windows = torch.from_numpy(np.stack([features[window] for window in evaluation_windows(21, 8)]))
        every = model(windows).global_
    for got, expected in zip(mine, every, strict=True):
        torch.testing.assert_close(got, expected[:, 4], atol=2e-4, rtol=0)
    assert not torch.allclose(mine.rotmats, predict_track(model, features).rotmats, atol=1e-3)


def test_official_reverses_the_tail(model: GLoT, features: np.ndarray) -> None:
    corrected = predict_track(model, features)
    official = predict_track(model, features, protocol="official")
    for a, b in zip(corrected, official, strict=True):
        torch.testing.assert_close(a[:-3], b[:-3])
        torch.testing.assert_close(a[-3:].flip(0), b[-3:])
        assert not torch.allclose(a[-3:], b[-3:])


def test_the_fast_form_made_once_gives_the_same(model: GLoT, features: np.ndarray) -> None:
    for local in (True, False):
        once = track_predictor(model, local=local)
        for rows in (features, features[:5]):
            for mine, expected in zip(predict_track(once, rows), predict_track(model, rows, local=local), strict=True):
                assert torch.equal(mine, expected)


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


def test_command_writes_every_frame(tmp_path: Path, model: GLoT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    folder, out = tmp_path / "features" / "3dpw" / "test", tmp_path / "bodies.parquet"
    manifest = write_feature_set(folder, tracks=[9, 3], feature_size=12, invalid=0.5)
    save_checkpoint(
        tmp_path / "best",
        model=model,
        recipe=replace(open_sample(), model=CONFIG),
        body={"name": "open_body", "hash": "x", "open": True},
        features={"backbone": manifest.backbone},
        metrics={},
        step=1,
    )
    main(PredictSpec(checkpoint=tmp_path / "best", features=tmp_path / "features", out=out))
    table = pq.read_table(out).to_pydict()
    assert table["track_id"] == ["clip00_0"] * 9 + ["clip01_0"] * 3
    assert table["frame_index"] == [*range(9), *range(3)]
    expected = predict_track(model, FeatureStore.open(folder).features[:9])
    pose = torch.tensor(table["pose"][:9])
    torch.testing.assert_close(axis_angle_to_rotmat(pose), expected.rotmats, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(table["cam"][:9]), expected.cam)
    with pytest.raises(InputError, match="'nobody': not in"):
        main(PredictSpec(checkpoint=tmp_path / "best", features=tmp_path / "features", out=out, track="nobody"))
    with pytest.raises(InputError, match="must end in .parquet"):
        main(PredictSpec(checkpoint=tmp_path / "best", features=tmp_path / "features", out=tmp_path / "bodies.csv"))
    with pytest.raises(InputError, match="cannot be written"):
        main(PredictSpec(checkpoint=tmp_path / "best", features=tmp_path / "features", out=out / "below.parquet"))
    assert not list(tmp_path.glob(".bodies*"))
