"""Tracks: people who cross keep their tracks, gaps are filled, boxes are smooth, and no detection is lost."""

import numpy as np
import pytest
from numpy.typing import NDArray

from glot.people.track_files import FrameBoxes
from glot.people.tracks import Track, Tracker, appearance, filled

FPS = 25.0
WIDTH, HEIGHT = 900, 420
COLOURS = ((200, 40, 40), (40, 60, 200))


def scene(number: int, *, speed: float, seed: int, frames: int = 100) -> tuple[NDArray, list[tuple[int, NDArray]]]:
    """Two people walk towards and past each other: the picture, and (person, box) of the detections, in random order.

    The person behind is not detected while hidden by the other; every twentieth detection is missing.
    """
    random = np.random.default_rng((seed, number))
    reach = speed * (frames - 1) / 2
    near = np.array([WIDTH / 2 - 40 - reach + speed * number, 100, 80, 220])
    far = np.array([WIDTH / 2 - 40 + reach - speed * number, 108, 76, 212])
    picture = np.full((HEIGHT, WIDTH, 3), 160, np.uint8)
    for (left, top, width, height), colour in ((far, COLOURS[1]), (near, COLOURS[0])):
        picture[int(top) : int(top + height), max(int(left), 0) : int(left + width)] = colour
    picture += random.integers(0, 40, picture.shape, np.uint8)
    hidden = abs(near[0] - far[0]) < 50
    people = [(0, near)] if hidden else [(0, near), (1, far)]
    found = [(who, box + random.normal(0, 2, 4)) for who, box in people if random.random() > 0.05]
    return picture, [found[i] for i in random.permutation(len(found))]


@pytest.mark.parametrize("speed", [2.0, 5.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_two_people_who_cross_keep_their_ids(speed: float, seed: int) -> None:
    tracker, truth = Tracker(FPS), []
    for number in range(100):
        picture, found = scene(number, speed=speed, seed=seed)
        boxes = np.array([box for _, box in found]).reshape(-1, 4)
        tracker.add(picture, boxes, np.full(len(boxes), 0.9))
        truth += [(number, who, box) for who, box in found]
    tracks, short = tracker.tracks()
    assert len(tracks) == 2 and not short
    owners: dict[int, set[str]] = {0: set(), 1: set()}
    for number, who, box in truth:
        centres = {t.person: t.boxes[number - t.frames[0], 0] for t in tracks if number in t.frames[t.seen]}
        if (
            abs(box[0] - (WIDTH / 2 - 40)) > 60
        ):  # far from each other: a track belongs to the person with the nearest box
            owners[who].add(min(centres, key=lambda person: abs(centres[person] - box[0])))
    assert all(len(ids) == 1 for ids in owners.values()) and owners[0] != owners[1]


def walk(tracker: Tracker, frames: int, *, missing: range = range(0), scores: float = 0.9) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for number in range(frames):
        boxes = np.zeros((0, 4)) if number in missing else np.array([[50.0 + 4 * number, 100, 80, 200]])
        tracker.add(picture, boxes, np.full(len(boxes), scores))


def test_a_gap_is_filled_with_interpolated_boxes() -> None:
    tracker = Tracker(FPS)
    walk(tracker, 80, missing=range(30, 45))
    ((track,), short) = tracker.tracks()
    assert track.frames.tolist() == list(range(80)) and not short  # including the very first frame
    assert np.flatnonzero(~track.seen).tolist() == list(range(30, 45))
    inside = slice(10, 70)
    np.testing.assert_allclose(track.boxes[inside, 0], 50 + 4 * track.frames[inside], atol=0.5)


def test_short_tracklets_are_reported_and_not_followed() -> None:
    tracker = Tracker(FPS)
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for number in range(100):
        boxes = [[50.0 + 2 * number, 100, 80, 200]]
        if 40 <= number < 46:
            boxes.append([700, 50, 60, 180])
        tracker.add(picture, np.array(boxes), np.full(len(boxes), 0.9))
    tracks, short = tracker.tracks()
    assert len(tracks) == 1
    assert [(one.first, one.last, one.seen) for one in short] == [(40, 45, 6)]


def test_a_single_picture_has_people_and_low_scores_begin_no_track() -> None:
    tracker = Tracker(FPS)
    walk(tracker, 1)
    ((track,), short) = tracker.tracks()
    assert track.frames.tolist() == [0] and not short
    np.testing.assert_allclose(track.boxes, [[50, 100, 80, 200]])
    tracker = Tracker(FPS)
    walk(tracker, 60, scores=0.55)
    assert tracker.tracks() == ([], [])


def test_a_person_who_comes_back_late_gets_a_new_track() -> None:
    tracker = Tracker(FPS)
    walk(tracker, 260, missing=range(60, 200))
    tracks, _ = tracker.tracks()
    assert [(int(t.frames[0]), int(t.frames[-1])) for t in tracks] == [(0, 59), (200, 259)]


def test_boxes_are_smooth_and_do_not_lag() -> None:
    random = np.random.default_rng(0)
    frames = np.arange(200)
    true = np.column_stack([50 + 3.0 * frames, 100 + 0 * frames, 80 + 0 * frames, 200 + 0 * frames])
    noisy = true + random.normal(0, 4, true.shape)
    track: Track = filled("1", FrameBoxes(frames, noisy), fps=FPS)
    shake = np.abs(np.diff(track.boxes, 2, axis=0)).mean() / np.abs(np.diff(noisy, 2, axis=0)).mean()
    assert shake < 0.2
    assert np.abs(track.boxes - true)[10:-10].mean() < 0.6 * np.abs(noisy - true).mean()
    assert abs((track.boxes - true)[10:-10, 0].mean()) < 0.5


def test_clothes_distinguish_people() -> None:
    red, blue = (np.full((HEIGHT, WIDTH, 3), colour, np.uint8) for colour in COLOURS)
    box, beyond = np.array([100.0, 50, 80, 200]), np.array([-500.0, -500, 80, 200])
    assert appearance(red, box) @ appearance(red, box + 5) == pytest.approx(1, abs=1e-5)
    assert appearance(red, box) @ appearance(blue, box) < 0.1
    assert np.linalg.norm(appearance(red, beyond)) == pytest.approx(1, abs=1e-5)
