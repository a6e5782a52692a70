"""Numbers of windows as published, the reversed tail of the official evaluation, time gaps."""

import json

import numpy as np
import pytest

from glot.errors import InputError
from glot.features.windows import evaluation_windows, gapless_ranges, prediction_order, training_windows, usual_step
from tests.fixtures.places import GOLDEN

VALUES = GOLDEN / "golden_misc.json"


COUNTS = [(15, 0, 0), (16, 1, 1), (17, 1, 2), (31, 1, 16), (32, 2, 17), (33, 2, 18), (40, 2, 25)]


@pytest.mark.parametrize(("rows", "stride16", "stride1"), COUNTS)
def test_training_window_counts(rows: int, stride16: int, stride1: int) -> None:
    index = np.arange(rows)
    assert len(training_windows([(0, rows)], index, frames=16, stride=16)) == stride16
    assert len(training_windows([(0, rows)], index, frames=16, stride=1)) == stride1


def test_training_windows_stay_in_their_track_and_never_span_a_gap() -> None:
    frame_index = np.concatenate([np.arange(20), [25, 26, 27, 28], np.arange(40, 60), np.arange(7, 40)])
    tracks = [(0, 44), (44, 77)]
    starts = training_windows(tracks, frame_index, frames=6, stride=1)
    rows = starts[:, None] + np.arange(6)
    assert (np.diff(frame_index[rows], axis=1) == 1).all()
    track_of = np.searchsorted([44], rows, side="right")
    assert (track_of == track_of[:, :1]).all()
    assert len(starts) == (20 - 5) + 0 + (20 - 5) + (33 - 5)  # the run of four frames has no window
    assert starts.dtype == np.int64


def test_training_windows_of_every_second_frame_are_consecutive() -> None:
    frame_index = np.concatenate([np.arange(0, 64, 2), np.arange(70, 102, 2)])
    assert usual_step(frame_index) == 2
    assert gapless_ranges(frame_index) == [(0, 32), (32, 48)]
    assert training_windows([(0, 48)], frame_index, frames=16, stride=16).tolist() == [0, 16, 32]


def test_training_windows_of_nothing_and_of_bad_sizes() -> None:
    assert training_windows([], np.empty(0, np.int32), frames=16, stride=16).tolist() == []
    assert training_windows([(0, 1)], np.zeros(1, np.int32), frames=1, stride=1).tolist() == [0]
    with pytest.raises(InputError, match="stride=0"):
        training_windows([(0, 1)], np.zeros(1, np.int32), frames=16, stride=0)


@pytest.mark.parametrize("frames", [2, 4, 16, 24, 32])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33])
def test_evaluation_windows_put_every_row_in_the_middle(rows: int, frames: int) -> None:
    windows = evaluation_windows(rows, frames)
    assert windows.shape == (rows, frames)
    assert (windows[:, frames // 2] == np.arange(rows)).all()
    assert np.isin(np.diff(windows, axis=1), (0, 1)).all()
    assert windows.min() == 0
    assert windows.max() == rows - 1


def test_official_order_of_the_published_example() -> None:
    # 17 rows: windows whose middle frames are 0 ... 9 and then 16, 15, ... 10.
    assert prediction_order(17, 16, protocol="official").tolist() == [*range(10), 16, 15, 14, 13, 12, 11, 10]
    assert prediction_order(16, 16, protocol="official").tolist() == [*range(9), 15, 14, 13, 12, 11, 10, 9]
    assert prediction_order(17, 16, protocol="corrected").tolist() == list(range(17))
    with pytest.raises(InputError, match="published"):
        prediction_order(17, 16, protocol="published")


@pytest.mark.skipif(not VALUES.is_file(), reason="no stored window lists of the official code (set GLOT_GOLDEN)")
@pytest.mark.parametrize("rows", [16, 17, 20, 40])
def test_windows_are_those_of_the_official_code(rows: int) -> None:
    golden = json.loads(VALUES.read_text())
    order = prediction_order(rows, 16, protocol="official")
    assert order.tolist() == golden[f"test_L{rows}"]["mid_frames"]
    windows = evaluation_windows(rows, 16)[order]
    spans = [[int(w.min()), int(w.max())] for w in windows]
    assert spans == golden[f"test_L{rows}"]["chunks"]
    if f"train_L{rows}" in golden:
        starts = training_windows([(0, rows)], np.arange(rows), frames=16, stride=16)
        assert [[s, s + 15] for s in starts.tolist()] == golden[f"train_L{rows}"]
