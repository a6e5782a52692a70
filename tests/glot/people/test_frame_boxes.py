"""FrameBoxes: frames rise, parts of a range are exact, and the hash stands for the numbers."""

from typing import Any

import numpy as np
import pytest

from glot.people.frame_boxes import FrameBoxes, boxes_of_lists, hash_of

BOX = [1.0, 2.0, 3.0, 4.0]


def boxes(*frames: int) -> FrameBoxes:
    return FrameBoxes(np.array(frames, np.int64), np.arange(4.0 * len(frames)).reshape(-1, 4))


@pytest.mark.parametrize(
    ("start", "stop", "wanted"),
    [(0, None, [3, 4, 8]), (3, 8, [3, 4]), (4, 9, [4, 8]), (5, 8, []), (9, None, []), (0, 3, []), (8, 9, [8])],
)
def test_the_boxes_of_a_range_of_frames(start: int, stop: int | None, wanted: list[int]) -> None:
    whole = boxes(3, 4, 8)
    part = whole.between(start, stop)
    assert part.frames.tolist() == wanted and part.bbox.shape == (len(wanted), 4)
    np.testing.assert_array_equal(part.bbox, whole.bbox[np.isin(whole.frames, wanted)])


def test_ranges_that_follow_each_other_have_every_box_once() -> None:
    whole = boxes(*range(0, 100, 3))
    parts = [whole.between(start, start + 20 if start < 80 else None) for start in range(0, 100, 20)]
    np.testing.assert_array_equal(np.concatenate([part.frames for part in parts]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([part.bbox for part in parts]), whole.bbox)


def test_the_hash_is_that_of_names_and_numbers() -> None:
    first, second = boxes(0, 1), boxes(5)
    wanted = hash_of({"a": first, "b": second})
    assert len(wanted) == 16 and wanted == hash_of({"b": second, "a": first})
    zero = FrameBoxes(first.frames, first.bbox.copy())
    zero.bbox[0, 0] = -0.0
    assert hash_of({"a": zero, "b": second}) == wanted
    nudged = FrameBoxes(first.frames, np.nextafter(first.bbox, np.inf))
    others = [
        {"a": first}, {"b": first, "a": second}, {"a": first, "B": second}, {"a": nudged, "b": second}, {},
        {"a": boxes(0, 2), "b": second}, {"a": first, "b": second, "c": boxes()},
    ]  # fmt: skip
    assert len({wanted, *map(hash_of, others)}) == len(others) + 1


def test_frames_are_sorted_with_their_boxes() -> None:
    found = boxes_of_lists([2.0, 0.0], [[1.0] * 4, [2.0] * 4], "1")
    assert found.frames.tolist() == [0, 2] and found.bbox[:, 0].tolist() == [2, 1]
    assert boxes_of_lists([], [], "1").bbox.shape == (0, 4)


@pytest.mark.parametrize(
    ("frames", "bbox", "reason"),
    [
        ([0.0], [[1.0, 2.0, float("nan"), 4.0]], "box in frame 0 holds NaN"),
        ([0.0, 1.0], [BOX, [1.0, 2.0, float("inf"), 4.0]], "box in frame 1 holds NaN or an infinite"),
        ([float("nan")], [BOX], "whole numbers"),
        ([-1.0], [BOX], "whole numbers"),
        ([2.0**31], [BOX], "whole numbers"),
        ([0.0, 0.0], [BOX, BOX], "two boxes in frame 0"),
        ([0.0], [BOX, BOX], "1 frames, boxes: 2 with 4"),
        ([0.0, 1.0], [BOX, BOX[:3]], "boxes: 2 with 3 or 4 numbers"),
        ([0.0], [], "1 frames, boxes: none"),
        ([0.0], [[1.0, 2.0, None, 4.0]], "bbox is not a list of numbers"),
        ([0.0], [[1.0, 2.0, True, 4.0]], "bbox is not a list of numbers"),
        ([0.0], [[1.0, 2.0, "3", 4.0]], "bbox is not a list of numbers"),
        ([0.0], [[1.0, 2.0, [3.0], 4.0]], "bbox is not a list of numbers"),
        (["0"], [BOX], "frames is not a list of numbers"),
        ([[0.0]], [BOX], "frames is not a list of numbers"),
        (0.0, [BOX], "frames is not a list of numbers"),
        ([0.0], BOX, "not a list of boxes"),
        ([0.0], {"0": BOX}, "not a list of boxes"),
        ([0.0], None, "not a list of boxes"),
    ],
)
def test_what_are_no_boxes_of_one_person_is_refused(frames: Any, bbox: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"person Ada: .*{reason}"):
        boxes_of_lists(frames, bbox, "Ada")
