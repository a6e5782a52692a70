"""Boxes are exact where nothing moves, smooth where something moves, and never made of zeros."""

import numpy as np

from glot.people.boxes import keypoint_boxes
from pipelines.decoders.box_variants import jittered, misaligned


def track(centres: np.ndarray, half: float = 30.0) -> np.ndarray:
    """(N, 4, 3) corners of squares around centres (N, 2), all visible."""
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    points = centres[:, None] + corners
    return np.concatenate([points, np.ones((*points.shape[:2], 1))], -1)


def moving(frames: int = 40) -> np.ndarray:
    return np.column_stack([115 + 4.0 * np.arange(frames), np.full(frames, 200.0)])


def test_a_constant_box_is_exact_and_its_side_is_the_diagonal() -> None:
    boxes = keypoint_boxes(track(np.full((40, 2), 100.0)))
    assert (boxes.start, boxes.stop) == (0, 40)
    assert np.allclose(boxes.bbox, [100, 100, 1.1 * 60 * 2**0.5, 1.1 * 60 * 2**0.5])


def test_the_zero_padded_median_pulls_the_ends_and_ours_does_not() -> None:
    old = keypoint_boxes(track(moving()), zero_padded=True).bbox[:, 0]
    assert np.allclose(old[[0, -1]], [138.6, 241.7], atol=0.1)  # as the reference gives for this motion
    ours = keypoint_boxes(track(moving()), zero_padded=False).bbox[:, 0]
    assert np.allclose(ours + ours[::-1], 115 + 271)  # the same at both ends
    long = [keypoint_boxes(track(moving(100)), zero_padded=padded).bbox[40:60] for padded in (True, False)]
    assert np.allclose(*long)  # the ends have no effect in the middle


def test_short_tracks_have_boxes() -> None:
    assert np.isinf(keypoint_boxes(track(moving(5)), zero_padded=True).bbox[:, 2]).any()
    assert np.allclose(keypoint_boxes(track(moving(5))).bbox[:, 2], 1.1 * 60 * 2**0.5)
    assert np.allclose(keypoint_boxes(track(moving(1))).bbox[0, :2], [115, 200])


def test_boxes_are_cut_to_the_visible_frames_and_gaps_are_filled() -> None:
    keypoints = track(np.full((30, 2), 100.0))
    keypoints[:5] = 0
    keypoints[12:15, :, 2] = 0.3  # not above the threshold
    keypoints[12:15, :, :2] = 999
    keypoints[27:] = 0
    boxes = keypoint_boxes(keypoints)
    assert (boxes.start, boxes.stop, len(boxes.bbox)) == (5, 27, 22)
    assert np.allclose(boxes.bbox[:, :2], 100)


def test_nobody_and_a_single_point_give_no_boxes() -> None:
    assert keypoint_boxes(np.zeros((8, 18, 3)))[:2] == (0, 0)
    dot = np.tile([50.0, 50.0, 1.0], (8, 18, 1))
    assert len(keypoint_boxes(dot).bbox) == 0


def test_misaligned_boxes_are_late_by_start_frames_and_missing_at_first() -> None:
    keypoints = track(moving(30))
    keypoints[:4] = 0
    boxes = keypoint_boxes(keypoints)
    late = misaligned(boxes)
    assert len(late) == 26 and np.isnan(late[:4]).all() and np.array_equal(late[4:], boxes.bbox[:-4])
    assert np.array_equal(misaligned(keypoint_boxes(track(moving(30)))), keypoint_boxes(track(moving(30))).bbox)
    keypoints[:20] = 0  # visible for 10 frames from frame 20 on: no frame has a box
    assert (
        misaligned(keypoint_boxes(keypoints)).shape == (10, 4) and np.isnan(misaligned(keypoint_boxes(keypoints))).all()
    )
    short = misaligned(keypoint_boxes(track(moving(5)), zero_padded=True))
    assert np.isnan(short).all()  # an infinite side counts as no box
    assert misaligned(keypoint_boxes(np.zeros((8, 18, 3)))).shape == (0, 4)


def test_jittered_boxes_drift_and_never_jump() -> None:
    boxes = keypoint_boxes(track(moving(60))).bbox
    for seed in range(20):
        off = jittered(boxes, np.random.default_rng(seed))
        assert np.array_equal(off, jittered(boxes, np.random.default_rng(seed))) and np.array_equal(
            off[:, 2], off[:, 3]
        )
        scale, shift = off[:, 2] / boxes[:, 2], (off - boxes)[:, :2] / boxes[:, 2:]
        assert ((scale > 0.849) & (scale < 1.201)).all() and np.abs(shift).max() < 0.121
        assert np.abs(np.diff(scale)).max() < 0.01 and np.abs(np.diff(shift, axis=0)).max() < 0.01
        assert np.ptp(scale) > 0 and np.abs(shift).max() > 0
    assert jittered(boxes[:1], np.random.default_rng(0)).shape == (1, 4)
