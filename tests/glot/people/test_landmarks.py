"""A track begins and ends with frames in which a person surely is present."""

import numpy as np
import pytest

from glot.people.landmarks import _surely_present

RATE = 10.0  # fps: three frames are a stretch


@pytest.mark.parametrize(
    ("presence", "present"),
    [
        ([0.9] * 6, [1] * 6),
        ([0.7, 0, 0.6, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
        ([0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.1], [0, 0, 0, 1, 1, 1, 1, 0]),
        ([0.7, 0.9, 0.7, 0.7, 0.9], [1] * 5),  # no stretch of high presence: the whole track is kept
        ([0.9, 0.9], [1, 1]),  # shorter than a stretch
    ],
)
def test_tracks_are_cut_to_the_frames_with_a_person(presence: list[float], present: list[int]) -> None:
    assert _surely_present(np.array(presence, np.float32), RATE).tolist() == [bool(each) for each in present]
