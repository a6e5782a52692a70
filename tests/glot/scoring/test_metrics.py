"""Laws of the errors (zero for the truth, what they do not depend on) and the official code's stored values."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glot.scoring.metrics import accel_error, centred, mpjpe, mpvpe, pa_mpjpe, procrustes_aligned
from tests.fixtures.places import GOLDEN

VALUES = GOLDEN / "golden_metrics.npz"
RNG = np.random.default_rng(5)
TRUTH = RNG.normal(size=(9, 14, 3)) * 0.4
NOISY = TRUTH + RNG.normal(size=TRUTH.shape) * 0.05


def test_perfect_prediction_is_zero() -> None:
    for error in (mpjpe, pa_mpjpe, accel_error, mpvpe):
        np.testing.assert_allclose(error(TRUTH, TRUTH), 0, atol=1e-12)


def test_known_values() -> None:
    pred = TRUTH.copy()
    pred[:, 0, 0] += 0.14  # one joint of fourteen, 14 cm
    np.testing.assert_allclose(mpjpe(pred, TRUTH), 0.01)
    np.testing.assert_allclose(mpvpe(TRUTH + [0.3, 0, 0.4], TRUTH), 0.5)
    jerk = TRUTH.copy()
    jerk[4, :2] += [0, 0.07, 0]  # two joints of fourteen for one frame: 1 cm on average, twice that in the middle
    np.testing.assert_allclose(accel_error(jerk, TRUTH), [0, 0, 0.01, 0.02, 0.01, 0, 0], atol=1e-12)


def test_pa_ignores_similarities_mpjpe_translations_mpvpe_nothing() -> None:
    turns = Rotation.random(9, rng=3).as_matrix()
    moved = 1.7 * np.einsum("nij,nkj->nki", turns, NOISY) + RNG.normal(size=(9, 1, 3))
    np.testing.assert_allclose(pa_mpjpe(moved, TRUTH), pa_mpjpe(NOISY, TRUTH), atol=1e-12)
    np.testing.assert_allclose(mpjpe(NOISY + 5.0, TRUTH), mpjpe(NOISY, TRUTH), atol=1e-12)
    assert (mpjpe(moved, TRUTH) > 2 * mpjpe(NOISY, TRUTH)).all()
    assert (mpvpe(NOISY + 5.0, TRUTH) > 5).all()
    rigid = np.einsum("ij,nkj->nki", turns[0], TRUTH) + 1
    np.testing.assert_allclose(pa_mpjpe(rigid, np.einsum("ij,nkj->nki", turns[1], TRUTH)), 0, atol=1e-12)


def test_pa_never_reflects() -> None:
    assert (pa_mpjpe(TRUTH * [-1, 1, 1], TRUTH) > 0.05).all()


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_pa_does_not_depend_on_the_batch_size(batch: int) -> None:
    np.testing.assert_allclose(pa_mpjpe(NOISY[:batch], TRUTH[:batch]), pa_mpjpe(NOISY, TRUTH)[:batch], atol=1e-12)


def test_coinciding_joints_are_put_on_the_centroid() -> None:
    point = np.ones((1, 14, 3))
    spread = np.linalg.norm(TRUTH[:1] - TRUTH[:1].mean(axis=1, keepdims=True), axis=-1).mean()
    np.testing.assert_allclose(pa_mpjpe(point, TRUTH[:1]), spread)


def test_acceleration_of_steady_motion_is_no_error() -> None:
    drift = np.arange(9)[:, None, None] * RNG.normal(size=(1, 14, 3))
    np.testing.assert_allclose(accel_error(TRUTH + drift, TRUTH), 0, atol=1e-12)
    assert accel_error(TRUTH[:2], TRUTH[:2]).shape == (0,)


def test_other_pelvis_and_wrong_shapes() -> None:
    assert centred(TRUTH, (14 - 1,))[:, 13].tolist() == [[0.0] * 3] * 9
    with pytest.raises(ValueError, match="one size"):
        mpjpe(TRUTH[:, :13], TRUTH)


@pytest.fixture
def golden() -> dict[str, np.ndarray]:
    if not VALUES.is_file():
        pytest.skip("no stored metric values of the official code (set GLOT_GOLDEN)")
    with np.load(VALUES) as stored:
        return dict(stored)


def test_values_of_the_official_code(golden: dict[str, np.ndarray]) -> None:
    pred, truth = golden["pred14"], golden["gt14"]
    np.testing.assert_allclose(mpjpe(pred, truth), golden["mpjpe"], atol=1e-6)
    np.testing.assert_allclose(pa_mpjpe(pred, truth), golden["pa_mpjpe"], atol=1e-6)
    np.testing.assert_allclose(pa_mpjpe(pred, truth), golden["compute_errors_pa"], atol=1e-6)
    np.testing.assert_allclose(procrustes_aligned(pred, centred(truth)), golden["pa_aligned"], atol=1e-5)
    np.testing.assert_allclose(accel_error(pred, truth), golden["accel_err"], atol=1e-6)
    np.testing.assert_allclose(mpvpe(golden["verts_pred"], golden["verts_gt"]), golden["mpvpe"], atol=1e-6)
    np.testing.assert_allclose(1000 * mpjpe(pred, truth), golden["evalpy_full_mpjpe"], atol=1e-3)
    np.testing.assert_allclose(1000 * accel_error(pred, truth), golden["evalpy_full_accel"], atol=1e-3)


def test_edge_cases_of_the_official_code(golden: dict[str, np.ndarray]) -> None:
    mine = pa_mpjpe(golden["edge_pred"], golden["edge_gt"])
    assert np.isfinite(mine).all()
    known = np.isfinite(golden["edge_np_pa"])
    assert golden["edge_names"][~known].tolist() == ["constant_pred"]  # NaN there, the distance to the centroid here
    np.testing.assert_allclose(mine[known], golden["edge_np_pa"][known], atol=1e-6)


def test_values_on_valid_frames_and_with_17_joints(golden: dict[str, np.ndarray]) -> None:
    valid = golden["valid_map"]
    for pred, truth, pelvis, name in (("pred14", "gt14", (2, 3), "valid"), ("pred17", "gt17", (14,), "mpii")):
        p, t = golden[pred], golden[truth]
        accel = np.zeros(len(p))
        accel[1:-1] = accel_error(p, t, pelvis=pelvis)
        np.testing.assert_allclose(1000 * mpjpe(p, t, pelvis=pelvis)[valid], golden[f"evalpy_{name}_mpjpe"], atol=1e-3)
        np.testing.assert_allclose(1000 * pa_mpjpe(p, t)[valid], golden[f"evalpy_{name}_pa"], atol=1e-3)
        np.testing.assert_allclose(1000 * accel[valid], golden[f"evalpy_{name}_accel"], atol=1e-3)
