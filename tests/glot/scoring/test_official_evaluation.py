"""A model that knows the truth has no errors by any release's evaluation; the windows, batches and rows are theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.human.rotation import axis_angle_to_rotmat
from glot.model_configs import MODELS
from glot.models.inference import predict_track
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel
from glot.scoring.evaluation import evaluate_split
from glot.scoring.metric_names import METRICS, PREDICTED_ACCEL
from glot.scoring.metrics import accel_error
from glot.scoring.official_evaluation import evaluate_officially, official_bodies
from glot.scoring.official_protocols import OFFICIAL
from glot.scoring.track_errors import track_truth
from tests.fixtures.features import write_feature_set
from tests.fixtures.peer_models import PEERS, small_peer

EVERY = pytest.mark.parametrize("kind", PEERS)


class Knowing(TemporalModel):
    """Knows the pose and shape behind every feature vector; ``still``: answers with the mean body instead."""

    def __init__(self, kind: str, store: FeatureStore, *, still: bool = False) -> None:
        super().__init__()
        self.config, self.store, self.still = MODELS[kind](frames=16), store, still
        self.known = {row.tobytes(): i for i, row in enumerate(store.features)}
        self.register_buffer("mean", torch.zeros(157))

    @classmethod
    def from_mean(cls, config: Any, mean: torch.Tensor) -> TemporalModel:
        raise NotImplementedError

    @property
    def supervised_frames(self) -> tuple[int, ...]:
        return tuple(self.answered_frames)

    @property
    def answered_frames(self) -> range:
        return range(16) if self.config.kind in ("vibe", "meva") else range(8, 9)

    def bodies(self, features: torch.Tensor) -> SMPLParams:
        answered = features[:, list(self.answered_frames)]
        rows = [self.known[row.numpy().tobytes()] for row in answered.flatten(0, 1)]
        pose, betas = torch.from_numpy(self.store.pose[rows]), torch.from_numpy(self.store.betas[rows])
        scale = 0 if self.still else 1
        flat = SMPLParams(axis_angle_to_rotmat(scale * pose), scale * betas, torch.zeros(len(rows), 3))
        return SMPLParams(*(values.unflatten(0, answered.shape[:2]) for values in flat))


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def opened(folder: Path, body: Body, **settings: Any) -> FeatureStore:
    write_feature_set(folder, body=body, split="test", **settings)
    return FeatureStore.open(folder)


@EVERY
def test_a_model_that_knows_the_truth_has_no_errors(tmp_path: Path, body: Body, kind: str) -> None:
    store = opened(tmp_path, body, tracks=[35, 12, 20, 16])
    result = evaluate_officially(Knowing(kind, store), store, body)
    assert max(result.metrics[name] for name in METRICS) < 1e-3  # a micrometre
    assert result.skipped_tracks == ["clip01_0"]
    frames = [32, 16, 16] if kind == "vibe" else [35, 20, 16]  # VIBE drops what is left at the end of a track
    assert [row["frames"] for row in result.per_track] == frames and result.frames == sum(frames)
    assert (PREDICTED_ACCEL in result.metrics) == (kind == "vibe")


@EVERY
def test_rows_that_are_not_valid_count_for_vibe_alone(tmp_path: Path, body: Body, kind: str) -> None:
    for dataset in ("3dpw", "mpi_inf_3dhp"):
        store = opened(tmp_path / dataset, body, tracks=[64], dataset=dataset, invalid=0.3)
        result = evaluate_officially(Knowing(kind, store), store, body)
        assert max(result.metrics.values()) < 1e-3 or kind == "vibe"
        assert 32 < int(store.valid.sum()) < 64
        assert result.frames == (64 if kind == "vibe" else int(store.valid.sum()))


def test_vibes_accelerations_are_those_of_all_tracks_joined(tmp_path: Path, body: Body) -> None:
    store = opened(tmp_path, body, tracks=[35, 20])
    whole = [track_truth(store, track, body).joints for track in store.tracks]
    joints = np.concatenate([each[: len(each) // 16 * 16] for each in whole])
    moves = 1000 * float(accel_error(joints, np.zeros_like(joints)).mean())
    known = evaluate_officially(Knowing("vibe", store), store, body).metrics
    assert known[PREDICTED_ACCEL] == pytest.approx(moves, rel=1e-4) and known["accel"] < 1e-3
    still = evaluate_officially(Knowing("vibe", store, still=True), store, body)
    assert still.metrics[PREDICTED_ACCEL] < 1e-3 and still.metrics["accel"] == pytest.approx(moves, rel=1e-4)
    each = [row["accel"] for row in still.per_track]
    assert still.metrics["accel"] > max(each)  # the jump from one track to the next counts


@pytest.mark.parametrize("kind", ["tcmr", "mps_net"])
def test_only_the_ends_of_a_track_differ_from_corrected(kind: str) -> None:
    model = small_peer(kind)
    features = np.random.default_rng(0).standard_normal((30, 24)).astype(np.float32)
    found = OFFICIAL[kind].cut(30, 16)
    official, corrected = official_bodies(model, features, found, batch_size=7), predict_track(model, features)
    torch.testing.assert_close(official.rotmats[8:23], corrected.rotmats[8:23], atol=1e-4, rtol=0)
    apart = (official.rotmats - corrected.rotmats).abs().amax((1, 2, 3))
    assert apart[[0, 3, 7, 23, 26, 29]].min() > 1e-3
    still = model.bodies(torch.from_numpy(features[3]).expand(1, 16, 24)).rotmats[0, 0]
    torch.testing.assert_close(official.rotmats[3], still, atol=1e-4, rtol=0)


def test_windows_of_mps_net_that_depend_on_each_other_come_in_the_batches_of_its_release() -> None:
    model = small_peer("mps_net", similarities="official")
    features = np.random.default_rng(0).standard_normal((21, 24)).astype(np.float32)
    found = OFFICIAL["mps_net"].cut(21, 16)
    mine = official_bodies(model, features, found, batch_size=64).rotmats
    for rows in (slice(0, 8), slice(8, 16), slice(16, 21)):
        with torch.no_grad():
            expected = model.bodies(torch.from_numpy(features[found.windows[rows]])).rotmats[:, 0]
        torch.testing.assert_close(mine[rows], expected)
    with torch.no_grad():
        together = model.bodies(torch.from_numpy(features[found.windows])).rotmats[:, 0]
    assert (together - mine).abs().max() > 1e-3
    odd = small_peer("mps_net", frames=20, hafi_frames="official")
    with pytest.raises(InputError, match="answers for frame 8 of 20, not for the middle one"):
        evaluate_officially(odd, FeatureStore.__new__(FeatureStore), load_body())


def test_corrected_is_one_protocol_for_all(tmp_path: Path, body: Body) -> None:
    """By it, models are scored on the same rows, whatever their windows; MEVA's own evaluation skips short tracks."""
    store = opened(tmp_path, body, tracks=[40, 30, 12], invalid=0.2)
    models = [small_peer(kind, feature_size=32) for kind in PEERS] + [small_peer("meva", feature_size=32, frames=35)]
    results = [evaluate_split(model, store, body) for model in models]
    rows = sum(int(store.valid[track.rows].sum()) for track in store.tracks[:2])
    assert {(result.frames, tuple(result.skipped_tracks)) for result in results} == {(rows, ("clip02_0",))}
    with pytest.raises(InputError, match="none of its 3 tracks has ground truth and the 35 frames of a window"):
        evaluate_officially(models[-1], store, body)
