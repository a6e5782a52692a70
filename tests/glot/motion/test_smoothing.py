"""A body at rest stays, jitter is damped, movement is followed; gaps are filled."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glot.human.body import Body, load_body
from glot.motion.person_motion import SHAPES, Y_UP, joined, with_bodies
from glot.motion.smoothing import BETA, MIN_CUTOFF, OneEuro, OneEuroRotations, Smoother, fill_gaps
from glot.scoring.metrics import accel_error, mpjpe
from pipelines.motions.mocap import load_motions
from tests.fixtures.motion import GAPPY, moving

DEFAULTS = {"min_cutoff": MIN_CUTOFF, "beta": BETA}


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_a_person_who_stands_still_is_not_changed(body: Body) -> None:
    one = moving(body, frames=[5])
    still = moving(body, frames=range(12))
    still = with_bodies(
        still,
        body,
        rotmats=np.repeat(one.rotmats, 12, axis=0),
        betas=np.repeat(one.betas, 12, axis=0),
        transl=np.repeat(one.transl, 12, axis=0),
    )
    calm = Smoother(body)(still)
    for name in SHAPES:
        np.testing.assert_allclose(getattr(calm, name), getattr(still, name), rtol=2e-6, atol=2e-6)


def test_jitter_is_damped_and_the_truth_is_nearer(body: Body) -> None:
    rng = np.random.default_rng(0)
    poses = load_motions()["walk"].poses
    count = len(poses)
    walk = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    walk[:, 0] = Y_UP @ walk[:, 0]
    true = moving(body, frames=range(count))
    true = with_bodies(true, body, rotmats=walk, betas=0 * true.betas, transl=true.transl)
    shaking = Rotation.from_rotvec(rng.normal(0, 0.05, (count * 24, 3))).as_matrix().reshape(count, 24, 3, 3)
    noisy = with_bodies(
        true,
        body,
        rotmats=true.rotmats @ shaking,
        betas=true.betas + rng.normal(0, 0.2, true.betas.shape),
        transl=true.transl + rng.normal(0, 1, (count, 3)) * [0.01, 0.01, 0.1],
    )
    calm = Smoother(body)(noisy)
    for error, factor in ((accel_error, 0.45), (mpjpe, 0.8)):
        before, after = (np.mean(error(each.joints3d, true.joints3d, pelvis=(0,))) for each in (noisy, calm))
        assert after < factor * before
    depths = [np.abs(each.transl - true.transl)[:, 2].mean() for each in (noisy, calm)]
    assert depths[1] < 0.5 * depths[0]
    # The people walk across the picture at 100 px/s; the bodies lag behind by at most 2 % of the crop.
    assert np.abs(calm.keypoints2d - true.keypoints2d)[:, 0].max() < 0.02 * true.crop_boxes[0, 2]
    assert calm.betas.std(axis=0).mean() < 0.6 * noisy.betas.std(axis=0).mean()


def test_turning_the_world_turns_the_output() -> None:
    rng = np.random.default_rng(1)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (40, 3)), axis=0)).as_matrix()[:, None]
    world = Rotation.from_rotvec([0.4, -2.0, 1.1]).as_matrix()
    times = np.arange(40) / 25
    answers = [OneEuroRotations(**DEFAULTS)(each, times) for each in (world @ turns, turns)]
    np.testing.assert_allclose(answers[0], world @ answers[1], atol=1e-12)


def test_the_lag_is_what_the_filter_promises() -> None:
    """At a constant speed w the output lags by w / (2 pi (min_cutoff + beta w)), once the filter knows the speed."""
    times = np.arange(150) / 30
    for speed in (0.1, 1.0, 6.0):
        lag = speed / (2 * np.pi * (MIN_CUTOFF + BETA * speed))
        turning = Rotation.from_rotvec(times[:, None] * speed * np.array([[0.6, 0, 0.8]]))
        answer = Rotation.from_matrix(OneEuroRotations(**DEFAULTS)(turning.as_matrix()[:, None], times)[:, 0])
        behind = (answer.inv() * turning).magnitude()
        assert behind[-1] == pytest.approx(lag, rel=1e-3) and behind.max() < 3 * lag
        line = OneEuro(**DEFAULTS)(times[:, None] * speed, times)[:, 0]
        assert (times * speed - line)[-1] == pytest.approx(lag, rel=1e-3)


def test_later_frames_change_nothing(body: Body) -> None:
    motion = moving(body, frames=range(20))
    first, whole = Smoother(body)(motion.rows(slice(12))), Smoother(body)(motion)
    for name in SHAPES:
        np.testing.assert_array_equal(getattr(whole, name)[:12], getattr(first, name))


def test_a_motion_in_pieces_gives_the_same(body: Body) -> None:
    motion, smoother = moving(body), Smoother(body)
    pieces = joined([smoother(motion.rows(slice(*ends))) for ends in ((0, 1), (1, 5), (5, len(motion)))])
    whole = Smoother(body)(motion)
    for name in SHAPES:
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_half_turns_are_filtered_like_others() -> None:
    """A person upright in the camera frame is turned by half a turn, where axis-angle changes its sign."""
    times = np.arange(60) / 30
    turns = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(0.1 * np.sin(times)[:, None] * [[1, 0, 0]])
    answer = OneEuroRotations(**DEFAULTS)(turns.as_matrix()[:, None], times)[:, 0]
    assert (Rotation.from_matrix(answer).inv() * turns).magnitude().max() < 0.05


def test_gaps_are_filled_on_the_shortest_arc(body: Body) -> None:
    motion = moving(body)
    full = fill_gaps(motion, body)
    assert full.frames.tolist() == list(range(GAPPY[0], GAPPY[-1] + 1))
    there = np.isin(full.frames, motion.frames)
    for name in SHAPES:
        np.testing.assert_allclose(getattr(full, name)[there], getattr(motion, name), rtol=1e-5, atol=1e-5)
    assert not full.seen[~there].any() and not full.scores[~there].any()
    # 6 -> 9: frame 7 is a third of the way.
    a, b, c = (Rotation.from_matrix(full.rotmats[full.frames == n][0]) for n in (6, 7, 9))
    np.testing.assert_allclose((a.inv() * b).as_rotvec(), (a.inv() * c).as_rotvec() / 3, atol=1e-5)
    np.testing.assert_allclose(full.bbox[full.frames == 7][0], motion.bbox[3] + [4, 0, 0, 0])


def test_a_motion_without_gaps_is_not_changed(body: Body) -> None:
    motion = moving(body, frames=range(3))
    assert fill_gaps(motion, body) is motion


def test_a_gap_counts_with_its_duration() -> None:
    """After ten seconds away, the last output has no more weight."""
    values, times = np.array([[0.0], [0.0], [1.0]]), np.array([0.0, 1 / 30, 10.0])
    assert OneEuro(**DEFAULTS)(values, times)[-1, 0] > 0.98


def test_a_single_frame_stays(body: Body) -> None:
    motion = moving(body, frames=[3])
    np.testing.assert_allclose(Smoother(body)(motion).joints3d, motion.joints3d, atol=1e-5)
