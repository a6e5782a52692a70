"""The windows of the released evaluations: laws of all, and the stitching of MEVA's own code."""

import numpy as np
import pytest

from glot.scoring.official_protocols import OFFICIAL, middle_windows, stitched_windows, whole_windows
from tests.fixtures.places import GOLDEN

VALUES = GOLDEN / "baseline_meva_eval.npz"
CASES = [(kind, 90 if kind == "meva" else 16, extra) for kind in OFFICIAL for extra in (0, 1, 15, 16, 79, 80, 81, 243)]


@pytest.mark.parametrize(("kind", "frames", "extra"), CASES)
def test_an_answer_is_for_the_row_that_its_frame_shows(kind: str, frames: int, extra: int) -> None:
    rows = frames + extra
    found = OFFICIAL[kind].cut(rows, frames)
    assert found.windows.shape[1] == frames and found.windows.min() == 0
    assert (found.windows[found.window, found.frame] == found.rows).all()
    assert (np.diff(found.windows, axis=1) >= 0).all()
    answered = rows // 16 * 16 if kind == "vibe" else rows  # VIBE drops what is left at the end
    assert found.rows.tolist() == list(range(answered)) and found.windows.max() == answered - 1
    assert sorted(set(found.window)) == list(range(len(found.windows)))  # no window is predicted for nothing


def test_the_ends_of_a_track_are_still_pictures() -> None:
    windows = middle_windows(20, 16).windows
    still = [i for i, window in enumerate(windows) if len(set(window)) == 1]
    assert still == [0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 16, 17, 18, 19]
    assert windows[8].tolist() == list(range(16)) and windows[12].tolist() == list(range(4, 20))
    assert (windows[still] == np.array(still)[:, None]).all()


def test_windows_of_vibe_share_no_row() -> None:
    found = whole_windows(70, 16)
    assert found.windows.ravel().tolist() == list(range(64)) and (found.window[15], found.window[16]) == (0, 1)


@pytest.mark.skipif(not VALUES.is_file(), reason="no stored windows of MEVA's code (set GLOT_GOLDEN)")
@pytest.mark.parametrize("case", ["90_10", "91_10", "169_10", "170_10", "171_10", "333_10", "333_20"])
def test_mevas_stitching_is_that_of_its_code(case: str) -> None:
    with np.load(VALUES) as stored:
        golden = stored[f"chunks_{case}"]  # start, first frame, frame after the last
    rows, overlap = (int(number) for number in case.split("_"))
    theirs = [start + frame for start, first, stop in golden for frame in range(first, stop)]
    assert theirs == list(range(rows))
    found = stitched_windows(rows, 90, overlap=overlap)
    frames = np.concatenate([np.arange(first, stop) for _, first, stop in golden])
    starts = np.concatenate([np.full(stop - first, start) for start, first, stop in golden])
    assert (found.frame == frames).all()
    assert (found.windows[found.window, 0] == starts).all()
