"""MOT's text: the boxes that MOT's own evaluation counts as pedestrians, from ground truth and from results."""

import io

import numpy as np
import pytest

from glot.people.box_formats.mot_files import read_mot

# A street as in MOT17: frame, id, left, top, width, height, flag, class, visibility.
GROUND_TRUTH = """\
1,1,912,484,97,109,0,7,1
2,1,912,484,97,109,0,7,1
1,2,1338,418,167,379,1,1,1
2,2,1342.5,417,168,380,1,1,0.98
3,2,1346,417,170,380,0,1,0.1
1,3,586,447,85,263,1,1,0.8
1,4,1585,-1,336,578,0,12,0.5
1,5,100,100,200,90,0,3,1
2,5,101,100,200,90,1,3,1
1,6,10,10,20,60,1,2,1
2,7,700,10,90,60,0,9,0
3,8,20,20,40,80,0,1,0.4
"""


def read(text: str | bytes) -> tuple[dict[str, list[int]], int]:
    """The frames of each person, and how many boxes were left out."""
    found = read_mot(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
    return {person: boxes.frames.tolist() for person, boxes in found.people.items()}, found.left_out


def test_ground_truth_has_the_pedestrians_that_are_to_be_considered() -> None:
    assert read(GROUND_TRUTH) == ({"2": [0, 1], "3": [0]}, 9)
    boxes = read_mot(io.BytesIO(GROUND_TRUTH.encode())).people["2"].bbox
    assert boxes.dtype == np.float64 and boxes.tolist() == [[1338, 418, 167, 379], [1342.5, 417, 168, 380]]


def test_ground_truth_without_visibility_is_ground_truth() -> None:
    assert read("".join(line.rsplit(",", 1)[0] + "\n" for line in GROUND_TRUTH.splitlines())) == (
        {"2": [0, 1], "3": [0]}, 9,
    )  # fmt: skip


def test_classes_count_whatever_the_confidences_of_a_tracker_are() -> None:
    assert read("1,1,0,0,9,9,0.87,1,-1\n1,2,0,0,9,9,0,1,-1\n1,3,0,0,9,9,0.9,3,-1\n") == ({"1": [0], "2": [0]}, 1)


@pytest.mark.parametrize(
    "ending", ["0.9,-1,-1,-1", "-1,-1,-1,-1", "0,-1,-1,-1", "1,3.5,2.1,0", "0.9,-1,-1", "0.9", "0"]
)
def test_results_of_trackers_are_people_whatever_their_confidence(ending: str) -> None:
    assert read(f"1,1,0,0,9,9,{ending}\n2,1,0,0,9,9,{ending}\n2,5,0,0,9,9,{ending}\n") == ({"1": [0, 1], "5": [1]}, 0)


def test_a_flag_without_classes_counts_as_in_mot15() -> None:
    assert read("1,1,0,0,9,9,1,-1,-1,-1\n2,1,0,0,9,9,0,-1,-1,-1\n1,2,0,0,9,9,0,-1,-1,-1\n") == ({"1": [0]}, 2)


def test_lines_may_differ_in_what_is_not_needed() -> None:
    assert read("3,3,10,10,20,30,0,-1,-1,-1\r\n1,7,0,0,5,5\r\n\r\n4,3,11,10,20,30,1\r\n") == (
        {"3": [2, 3], "7": [0]},
        0,
    )
    assert read("") == ({}, 0) and read(b"\xef\xbb\xbf1,1,0,0,9,9\n") == ({"1": [0]}, 0)


def test_large_ids_are_different_people() -> None:
    assert list(read("1,1234567,0,0,9,9\n1,1234568,0,0,9,9\n1,2.0,0,0,9,9\n")[0]) == ["1234567", "1234568", "2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,1,0,0,9,9\n1,2,3\n", "line 2 has 3 numbers, fewer than 6"),
        ("1,1,0,0,9,9,1,0,1\n1,2,0,0,9,9,1,2,1\n", "column 8 must be MOT's class"),
        ("1,1,0,0,9,9,1,1,1\n1,2,0,0,9,9,1,14,1\n", "column 8 must be MOT's class"),
        ("1,a,0,0,9,9\n", "could not convert"),
        ("1,1,0,0,9,nan\n", "person 1: the box in frame 0 holds NaN"),
        ("1,nan,0,0,9,9\n", "an id is NaN"),
        ("0,1,0,0,9,9\n", "whole numbers"),
        ("1.5,1,0,0,9,9\n", "whole numbers"),
        ("1,1,0,0,9,9\n1,1,1,0,9,9\n", "person 1: two boxes in frame 0"),
        (b"1,1,0,0,9,9\n\xff\xfe\n", "utf-8"),
    ],
)
def test_other_content_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(text)


def test_lines_that_do_not_count_may_hold_anything() -> None:
    assert read("1,1,0,0,9,9,1,1,1\n1,2,0,0,nan,9,0,3,1\n1,2,0,0,9,9,0,3,1\n") == ({"1": [0]}, 2)
