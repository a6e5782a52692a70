"""The fit moves limbs to the landmarks, and changes nothing else."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.capture import reconstruction
from glot.capture.capture_options import FITS
from glot.capture.reconstruction import SMPL_ROWS, Reconstruction
from glot.human.body import Body, load_body
from glot.human.joints import SMPL_JOINTS
from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT
from glot.models.prediction.track_predictors import track_predictor
from glot.motion.person_motion import SHAPES, Motion, joined
from glot.motion.pose_fit import JOINT_ROWS, POSE_PAIRS, fit_poses
from glot.people.landmarks import LANDMARK_NAMES, LANDMARKS, Person
from glot.people.spool import Spool
from glot.people.video import Timeline
from glot.scoring.metrics import accel_error, mpjpe
from tests.fixtures.motion import moving

ARM = [SMPL_JOINTS.index(name) for name in ("left_shoulder", "left_elbow")]
LINE = Timeline(40, 25.0, True, 640, 360)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def true(body: Body) -> Motion:
    return moving(body, frames=range(30))


def landmarks_of(motion: Motion, body: Body) -> np.ndarray:
    """(N, J, 3) of the pairs, all visible."""
    with torch.no_grad():
        joints = body.joints(torch.from_numpy(motion.rotmats), torch.from_numpy(motion.betas))[:, JOINT_ROWS].numpy()
    seen = (joints + motion.transl[:, None]) @ motion.intrinsics.T
    return np.concatenate([seen[..., :2] / seen[..., 2:], np.ones((*seen.shape[:2], 1))], axis=-1).astype(np.float32)


def fitted(motion: Motion, rotmats: np.ndarray, landmarks: np.ndarray, body: Body) -> tuple[np.ndarray, np.ndarray]:
    tensors: Any = (torch.from_numpy(values).float() for values in (rotmats, motion.betas, motion.transl, landmarks))
    options: Any = {"size": (motion.width, motion.height), "focal": motion.focal}
    turns, places = fit_poses(*tensors, torch.from_numpy(motion.bbox[:, 2]), body=body, fps=motion.fps, **options)
    return turns.numpy(), places.numpy()


def joints(motion: Motion, rotmats: np.ndarray, body: Body) -> np.ndarray:
    with torch.no_grad():
        return body.smpl_joints(torch.from_numpy(rotmats).float(), torch.from_numpy(motion.betas)).numpy()


def test_a_right_pose_is_not_changed(body: Body, true: Motion) -> None:
    turns, places = fitted(true, true.rotmats, landmarks_of(true, body), body)
    np.testing.assert_allclose(turns, true.rotmats, atol=5e-3)
    np.testing.assert_allclose(places, true.transl, atol=5e-3)


def test_an_arm_that_hangs_too_low_is_lifted(body: Body, true: Motion) -> None:
    wrong = true.rotmats.copy()
    wrong[:, ARM[0]] = wrong[:, ARM[0]] @ Rotation.from_rotvec([0, 0, 0.5]).as_matrix()
    turns, _ = fitted(true, wrong, landmarks_of(true, body), body)
    errors = [mpjpe(joints(true, each, body), true.joints3d, pelvis=(0,)).mean() for each in (wrong, turns)]
    assert errors[1] < 0.6 * errors[0]
    others = [joint for joint in range(24) if joint not in ARM]
    assert np.abs(turns - true.rotmats)[:, others].max() < 0.2


def test_landmarks_that_are_not_visible_have_no_effect(body: Body, true: Motion) -> None:
    landmarks = landmarks_of(true, body)
    landmarks[..., :2] += 40
    landmarks[..., 2] = 0
    turns, places = fitted(true, true.rotmats, landmarks, body)
    np.testing.assert_allclose(turns, true.rotmats, atol=1e-6)
    np.testing.assert_allclose(places, true.transl, atol=1e-6)


def test_jitter_of_landmarks_does_not_become_jitter_of_the_body(body: Body, true: Motion) -> None:
    landmarks = landmarks_of(true, body)
    landmarks[..., :2] += np.random.default_rng(0).normal(0, 3, landmarks[..., :2].shape)
    turns, _ = fitted(true, true.rotmats, landmarks, body)
    shaking = accel_error(joints(true, turns, body), true.joints3d, pelvis=(0,)).mean()
    # 3 px are 14 mm here. A body that followed them would accelerate by sqrt(6) times that in each of two directions.
    assert shaking < 0.15 * 0.014 * 12**0.5


def test_a_landmark_far_off_has_a_limited_effect(body: Body, true: Motion) -> None:
    landmarks = landmarks_of(true, body)
    wrist = [name for _, name in POSE_PAIRS].index("lwrist")
    landmarks[10:13, wrist, :2] += 150  # another person's wrist
    turns, _ = fitted(true, true.rotmats, landmarks, body)
    assert mpjpe(joints(true, turns, body), true.joints3d, pelvis=(0,)).mean() < 0.02


def test_pieces_of_a_track_are_fitted_nearly_as_the_whole(
    body: Body, true: Motion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person whose limbs are predicted wrongly: pieces of 10 frames with their context, and one piece of 30."""
    torch.manual_seed(0)
    config = GLoTConfig(feature_size=8, frames=8, nearby_frames=2, width=16, heads=2, decoder_width=8, local_width=8,
                         hidden=16, depth=1)  # fmt: skip
    model = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam)
    features = np.random.default_rng(0).normal(0, 1, (len(true), 8)).astype(np.float32)
    spool = Spool([len(true)], len(LANDMARKS) * 3)
    points = np.zeros((len(true), len(LANDMARK_NAMES), 3), np.float32)
    points[:, [LANDMARK_NAMES.index(name) for _, name in POSE_PAIRS]] = landmarks_of(true, body)
    for row, values in enumerate(points):
        spool.put(0, row, values.ravel())
    person = Person("1", true.frames, true.bbox, true.seen, true.scores, spool, 0, 0)
    make = partial(Reconstruction, track_predictor(model), body, LINE)
    whole = joined(list(make()(person, lambda rows: features[rows])))
    off = {}
    for fit in FITS:
        motion = joined(list(make(fit=fit)(person, lambda rows: features[rows])))
        off[fit] = np.linalg.norm((motion.keypoints2d - true.keypoints2d)[:, SMPL_ROWS], axis=-1).mean()
    assert off["limbs"] < 0.7 * off["camera"] < 0.7 * off["none"]
    monkeypatch.setattr(reconstruction, "PIECE", 10)
    pieces = list(make()(person, lambda rows: features[rows]))
    assert [len(piece) for piece in pieces] == [10, 10, 10]
    for name in SHAPES:
        if name in ("rotmats", "joints3d", "transl"):
            np.testing.assert_allclose(getattr(joined(pieces), name), getattr(whole, name), atol=0.02)
    spool.__exit__()
