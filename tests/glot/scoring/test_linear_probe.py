"""The linear probe on known features: it finds poses that they hold, and does not find any in noise."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from glot.features.moments import Moments
from glot.scoring.linear_probe import STRENGTHS, LinearProbe, ridge
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


def blocks(x: np.ndarray, y: np.ndarray, *, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Can be read once, as what a store gives."""
    return ((x[start : start + rows], y[start : start + rows]) for start in range(0, len(x), rows))


def probe(features: dict[str, np.ndarray], joints: dict[str, np.ndarray]) -> dict[str, float]:
    train, validation = (blocks(features[split], joints[split], rows=30) for split in ("train", "validation"))
    linear = LinearProbe(train, validation)
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


def fits_of(x: np.ndarray, y: np.ndarray, *, rows: int, strengths: np.ndarray) -> list:
    moments = Moments(x.shape[1] + y.shape[1])
    for part in blocks(x, y, rows=rows):
        moments.add(np.concatenate(part, axis=1))
    return ridge(moments, x.shape[1], strengths=strengths)


def test_ridge_without_strength_is_least_squares_and_with_a_large_one_the_mean() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((50, 8)) * 3 + 5, rng.standard_normal((50, 4)) + 7
    (weights, bias), (flat, level) = fits_of(x, y, rows=50, strengths=np.array([1e-9, 1e12]))
    expected, *_ = np.linalg.lstsq(np.c_[x, np.ones(50)], y, rcond=None)
    np.testing.assert_allclose(np.r_[weights, bias[None]], expected, atol=1e-4)
    np.testing.assert_allclose(x @ flat + level, np.broadcast_to(y.mean(0), y.shape), atol=1e-6)


def test_ridge_from_blocks_is_ridge_on_everything_at_once() -> None:
    """Of features that are far from 0 and of very different spreads."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((500, 30)) @ rng.standard_normal((30, 30)) * np.logspace(-2, 2, 30) + 1000
    y = rng.standard_normal((500, 6)) + x[:, :6]
    z, centre = (x - x.mean(0)) / (x.std(0) + 1e-6), y.mean(0)
    for strength, (weights, bias) in zip(STRENGTHS, fits_of(x, y, rows=37, strengths=STRENGTHS), strict=True):
        direct = np.linalg.solve(z.T @ z + strength * np.eye(30), z.T @ (y - centre))
        expected = z @ direct + centre
        np.testing.assert_allclose(x @ weights + bias, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_nothing_to_learn_from_is_an_error(joints: dict[str, np.ndarray]) -> None:
    some = [(np.ones((50, 4)), joints["validation"])]
    for train, validation in (([], some), (some, [])):
        with pytest.raises(ValueError, match="no frames"):
            LinearProbe(train, validation)


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    """The arrays of numpy, which tracemalloc sees; all of 40 blocks would be 26 MB in double precision."""

    def frames(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield rng.standard_normal((1024, 80), np.float32), rng.standard_normal((1024, 14, 3))

    peaks = []
    for count in (4, 40):
        tracemalloc.start()
        LinearProbe(frames(count), frames(1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] < 8e6
