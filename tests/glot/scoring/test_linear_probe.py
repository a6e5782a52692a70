"""The linear probe on known features: it finds poses that they hold, and does not find any in noise."""

import numpy as np
import pytest

from glot.scoring.linear_probe import LinearProbe, ridge
from glot.scoring.metrics import mpjpe, pa_mpjpe


@pytest.fixture
def joints() -> dict[str, np.ndarray]:
    """Poses with six degrees of freedom."""
    rng = np.random.default_rng(0)
    mean, ways = rng.normal(0, 0.3, (24, 3)), rng.normal(0, 0.1, (6, 24, 3))
    out = {}
    for split, count in {"train": 200, "validation": 50, "test": 80}.items():
        values = mean + np.einsum("nk,kjd->njd", rng.standard_normal((count, 6)), ways)
        out[split] = values - values[:, :1]
    return out


def errors(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """In mm; the pelvis is the first joint."""
    return {
        "pa_mm": 1000 * float(pa_mpjpe(pred, truth).mean()),
        "mpjpe_mm": 1000 * float(mpjpe(pred, truth, pelvis=(0,)).mean()),
    }


def probe(features: dict[str, np.ndarray], joints: dict[str, np.ndarray]) -> dict[str, float]:
    linear = LinearProbe((features["train"], joints["train"]), (features["validation"], joints["validation"]))
    return errors(linear(features["test"]), joints["test"])


def test_features_that_hold_the_pose_give_small_errors(joints: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((72, 40))
    features = {split: (values.reshape(-1, 72) @ mixing).astype(np.float32) for split, values in joints.items()}
    found = probe(features, joints)
    assert found["pa_mm"] < 1 and found["mpjpe_mm"] < 1


def test_noise_is_no_better_than_the_mean_pose(joints: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(2)
    features = {split: rng.standard_normal((len(values), 40)).astype(np.float32) for split, values in joints.items()}
    mean = errors(np.broadcast_to(joints["train"].mean(0), joints["test"].shape), joints["test"])
    assert mean["pa_mm"] > 50
    assert probe(features, joints)["pa_mm"] == pytest.approx(mean["pa_mm"], rel=0.1)


def test_a_constant_feature_does_no_harm(joints: dict[str, np.ndarray]) -> None:
    features = {s: np.concatenate([v.reshape(-1, 72), np.zeros((len(v), 3))], 1) for s, v in joints.items()}
    assert probe(features, joints)["pa_mm"] < 1


def test_ridge_without_strength_is_least_squares_and_with_a_large_one_the_mean() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((50, 8)) * 3 + 5, rng.standard_normal((50, 4)) + 7
    (weights, bias), (flat, level) = ridge(x, y, strengths=np.array([1e-9, 1e12]))
    expected, *_ = np.linalg.lstsq(np.c_[x, np.ones(50)], y, rcond=None)
    np.testing.assert_allclose(np.r_[weights, bias[None]], expected, atol=1e-4)
    np.testing.assert_allclose(x @ flat + level, np.broadcast_to(y.mean(0), y.shape), atol=1e-6)
