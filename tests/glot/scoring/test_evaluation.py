"""A model that knows the truth has no errors; what the official protocol adds; which rows count; the baselines."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.smpl_params import SMPLParams
from glot.scoring.baselines import linear_predictor
from glot.scoring.evaluation import Evaluation, Predictor, evaluate_predictor, genders_of
from glot.scoring.metrics import mpjpe
from glot.scoring.track_errors import track_truth
from tests.fixtures.features import write_feature_set


def oracle(store: FeatureStore) -> Predictor:
    """Knows the pose and shape behind every feature vector."""
    known = {row.tobytes(): i for i, row in enumerate(store.features)}

    def predict(features: np.ndarray) -> SMPLParams:
        rows = [known[row.tobytes()] for row in features]
        pose, betas = torch.from_numpy(store.pose[rows]), torch.from_numpy(store.betas[rows])
        return SMPLParams(axis_angle_to_rotmat(pose), betas, torch.zeros(len(rows), 3))

    return predict


def judged(store: FeatureStore, body: Body, *, frames: int = 16, vertices: bool = False) -> dict[str, Evaluation]:
    return evaluate_predictor(oracle(store), store, body, frames=frames, vertices=vertices)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def opened(folder: Path, body: Body, **settings) -> FeatureStore:
    write_feature_set(folder / "set", body=body, split="test", **settings)
    return FeatureStore.open(folder / "set", cache=folder / "cache")


def test_oracle_is_perfect_and_the_official_protocol_says_otherwise(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[30, 16, 40])
    both = judged(store, body, vertices=True)
    corrected = both["corrected"]
    assert corrected.metrics.keys() == {"mpjpe", "pa_mpjpe", "mpvpe", "accel"}
    assert max(corrected.metrics.values()) < 1e-3  # a micrometre
    assert (corrected.frames, corrected.tracks, corrected.skipped_tracks) == (86, 3, [])
    official = both["official"]
    assert min(official.metrics.values()) > 0.5
    # Six of the last seven frames of a track are wrong, all others right.
    truth = track_truth(store, store.track("clip00_0"), body).joints
    tail = mpjpe(truth[-7:][::-1], truth[-7:])
    assert tail[3] == 0
    assert official.per_track[0]["mpjpe"] == pytest.approx(1000 * tail.sum() / 30, rel=1e-3)


def test_tracks_shorter_than_a_window_are_skipped(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[24, 23, 40])
    result = judged(store, body, frames=24)["corrected"]
    assert result.skipped_tracks == ["clip01_0"]
    assert result.metrics["mpjpe"] < 1e-3


def test_all_frames_have_the_same_weight_in_any_track(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[20, 60])
    shift = torch.tensor([0.0, 0.3])  # radians of a wrong left elbow, by track

    def predict(features: np.ndarray) -> SMPLParams:
        rows = store.tracks[0].rows if len(features) == 20 else store.tracks[1].rows
        pose = torch.from_numpy(store.pose[rows].copy())
        pose[:, 18, 1] += shift[int(len(features) == 60)]
        cam = torch.zeros(len(pose), 3)
        return SMPLParams(axis_angle_to_rotmat(pose), torch.from_numpy(store.betas[rows].copy()), cam)

    result = evaluate_predictor(predict, store, body, frames=16, vertices=False)["corrected"]
    wrong = result.per_track[1]["mpjpe"]
    assert wrong > 1
    assert result.metrics["mpjpe"] == pytest.approx(wrong * 60 / 80, rel=1e-4)
    assert "mpvpe" not in result.metrics


def test_only_valid_rows_count_and_corrected_accelerations_stay_off_gaps(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[60], gap=30)
    still = mean_pose_at(store)
    both = evaluate_predictor(still, store, body, frames=16, vertices=False)
    # Thirty frames are missing in the middle; only the official acceleration counts the gap as a movement.
    assert both["official"].metrics["accel"] > 1.2 * both["corrected"].metrics["accel"]
    assert both["official"].metrics["mpjpe"] == pytest.approx(both["corrected"].metrics["mpjpe"])

    partly = opened(tmp_path / "partly", body, tracks=[60], invalid=0.4)
    result = judged(partly, body)["corrected"]
    assert result.frames == int(partly.valid.sum()) < 60
    nothing = opened(tmp_path / "nothing", body, tracks=[60, 30], invalid=1.0)
    with pytest.raises(InputError, match="none of its 2 tracks"):
        judged(nothing, body)


def mean_pose_at(store: FeatureStore):
    identity = torch.eye(3).expand(24, 3, 3)

    def predict(features: np.ndarray) -> SMPLParams:
        rows = len(features)
        return SMPLParams(identity.expand(rows, 24, 3, 3), torch.zeros(rows, 10), torch.zeros(rows, 3))

    return predict


def test_3dhp_windows_all_rows_scores_17_joints_of_the_valid_ones(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[40], dataset="mpi_inf_3dhp", invalid=0.3)
    truth = track_truth(store, store.tracks[0], body)
    assert truth.joints.shape == (40, 17, 3)
    assert len(truth.rows) == 40
    assert 0 < truth.scored.sum() == store.valid.sum() < 40
    result = judged(store, body)["corrected"]
    assert result.frames == store.valid.sum()
    # The fixture's joints3d are the body's own, so that the oracle is right here too.
    assert max(result.metrics.values()) < 1e-3


def test_human36m_is_scored_against_its_motion_capture(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[40], dataset="human36m")
    truth = track_truth(store, store.tracks[0], body)
    np.testing.assert_allclose(truth.joints, store.joints3d[:, 25:39], atol=1e-6)
    result = judged(store, body)["corrected"]
    assert 1 < result.metrics["mpjpe"] < 100  # regressed joints against picked ones: near, not equal
    assert result.metrics.keys() == {"mpjpe", "pa_mpjpe", "accel"}


def test_the_truth_may_be_of_another_body_by_gender(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[30, 20])
    assert genders_of(store) == {"clip00_0": "neutral", "clip01_0": "neutral"}
    taller = copy.deepcopy(body)
    taller.template *= 1.1
    taller.rest_template *= 1.1
    taller._points14.offset *= 1.1
    truth = track_truth(store, store.tracks[0], taller)
    predict = oracle(store)

    def errors(bodies: dict[str, Body]) -> dict[str, float]:
        return evaluate_predictor(predict, store, body, frames=16, true_bodies=bodies)["corrected"].metrics

    assert truth.body is taller
    other = errors({"neutral": taller})
    assert other["mpvpe"] > 20 and other["mpjpe"] > 20 and other["pa_mpjpe"] < 5  # a scale, which PA takes away
    assert errors({"male": taller}) == errors({}) and max(errors({}).values()) < 1e-3


def test_a_linear_map_finds_what_is_linear_in_the_features(tmp_path: Path, body: Body) -> None:
    for number, (split, tracks) in enumerate((("train", [60] * 12), ("validation", [60] * 3), ("test", [60] * 3))):
        write_feature_set(
            tmp_path / split, body=body, split=split, tracks=tracks, seed=number, feature_size=256, invalid=0.1
        )
    store = FeatureStore.open(tmp_path / "test")
    linear = evaluate_predictor(linear_predictor(tmp_path, body), store, body, frames=16)["corrected"]
    still = evaluate_predictor(mean_pose_at(store), store, body, frames=16)["corrected"]
    # The fixture's features are linear in the rotations; joints are products of these.
    assert linear.metrics["mpjpe"] < 0.5 * still.metrics["mpjpe"], (linear.metrics, still.metrics)
    assert linear.metrics.keys() == {"mpjpe", "pa_mpjpe", "accel"} and linear.frames == int(store.valid.sum())
    with pytest.raises(InputError, match="--probe learns on .*elsewhere/train, which is not there"):
        linear_predictor(tmp_path / "elsewhere", body)
