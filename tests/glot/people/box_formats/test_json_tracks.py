"""JSON of boxes: each video once, with its own mistakes; its hash does not depend on other videos or on the writing."""

import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glot.errors import InputError
from glot.people.box_formats import json_stream
from glot.people.box_formats.json_tracks import iterate_json
from glot.people.frame_boxes import VideoBoxes

GOOD = {"1": {"frames": [0, 2], "bbox": [[1, 2, 3, 4], [1.5, 2, 3, 4]]}, "2": {"frames": [7], "bbox": [[0, 0, 9, 9]]}}


def read(text: str | bytes, *videos: str) -> dict[str, VideoBoxes | InputError]:
    file = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    found = list(iterate_json(file, Path("b.json"), videos))
    assert sorted(video for video, _ in found) == sorted(videos), "each video is given once"
    return dict(found)


def boxes(text: str | bytes, *videos: str) -> dict[str, VideoBoxes]:
    found = read(text, *videos)
    assert all(isinstance(value, VideoBoxes) for value in found.values()), found
    return found  # type: ignore[return-value]


def test_numbers_are_those_in_the_file_bit_for_bit() -> None:
    rng = random.Random(0)
    numbers = [[rng.uniform(-1e5, 1e5) * 10 ** rng.randint(-9, 0) for _ in range(4)] for _ in range(200)]
    content = {"a.mp4": {"1": {"frames": list(range(200)), "bbox": numbers, "score": [0.5] * 200}}}
    found = boxes(json.dumps(content), "a.mp4")["a.mp4"].people["1"]
    assert found.bbox.dtype == np.float64 and found.bbox.tobytes() == np.array(numbers).tobytes()
    assert found.frames.dtype == np.int64 and found.frames.tolist() == list(range(200))


def test_videos_come_in_the_order_of_the_file_and_those_without_an_entry_last() -> None:
    text = json.dumps({"b.mp4": GOOD, "other.mp4": GOOD, "a.mp4": {}})
    found = list(iterate_json(io.BytesIO(text.encode()), Path("b.json"), ["c.mp4", "a.mp4", "b.mp4"]))
    assert [video for video, _ in found] == ["b.mp4", "a.mp4", "c.mp4"]
    (_, first), (_, nobody), (_, missing) = found
    assert isinstance(first, VideoBoxes) and list(first.people) == ["1", "2"]
    assert isinstance(nobody, VideoBoxes) and nobody.people == {}
    assert isinstance(missing, InputError) and str(missing) == "b.json: has no boxes for c.mp4"


def test_a_hash_stays_when_other_videos_come_and_when_the_file_is_written_otherwise() -> None:
    (one,) = boxes(json.dumps({"a.mp4": GOOD}), "a.mp4").values()
    more = {"0.mp4": {"x": {"frames": [0], "bbox": [[0, 0, 1, 1]]}}, "a.mp4": GOOD, "z.mp4": {}}
    assert boxes(json.dumps(more, indent=2), "a.mp4", "z.mp4")["a.mp4"].hash == one.hash
    written = (
        '{"a.mp4":{"2":{"bbox":[[0.0,0,9e0,900e-2]],"frames":[7.0]},"\\u0031":'
        '{"frames":[2,0],"bbox":[[15e-1,2.0,3.00,4],[1,2,3,4]],"note":"x"}}}'
    )
    assert boxes(written, "a.mp4")["a.mp4"].hash == one.hash, "the same numbers"
    assert boxes(json.dumps(GOOD), "a.mp4")["a.mp4"].hash == one.hash, "a file about one video"
    for change in ('"frames": [0, 3]', '"frames": [2, 0]'):
        changed = json.dumps({"a.mp4": GOOD}).replace('"frames": [0, 2]', change)
        assert boxes(changed, "a.mp4")["a.mp4"].hash != one.hash


BAD = [
    ('{"1": {"frames": [0, 1], "bbox": [[1, 2, 3, 4]]}}', "person 1: 2 frames, boxes: 1 with 4"),
    ('{"1": {"frames": [0], "bbox": [[1, 2, NaN, 4]]}}', "person 1: the box in frame 0 holds NaN"),
    ('{"1": {"frames": [0], "bbox": [[1, 2, 1e999, 4]]}}', "holds NaN or an infinite number"),
    ('{"1": {"frames": [0], "bbox": [[1, 2, %s, 4]]}}' % ("9" * 5000), "holds NaN or an infinite number"),
    ('{"1": {"frames": [12345678901234567890], "bbox": [[1, 2, 3, 4]]}}', "whole numbers"),
    ('{"1": {"frames": [3, 3], "bbox": [[1, 2, 3, 4], [1, 2, 3, 4]]}}', "two boxes in frame 3"),
    ('{"1": {"frames": [0], "bbox": [[1, 2, "3", 4]]}}', "not a list of numbers"),
    ('{"1": {"frames": [0], "bbox": null}}', "not a list of boxes"),
    ('{"1": {"frames": [0]}}', "person 1 has no bbox"),
    ('{"1": {}}', "person 1 has no frames and no bbox"),
    ('{"1": [[0, 1, 2, 3, 4]]}', "person 1 is not an object"),
    ('{"1": {"frames": [], "bbox": []}, "1": {"frames": [], "bbox": []}}', "has 1 twice"),
    ('{"1": {"frames": [0], "frames": [1], "bbox": [[1, 2, 3, 4]]}}', "person 1 has frames twice"),
    ('{"\\ud800": {"frames": [], "bbox": []}}', "name of a person is not UTF-8"),
    ('{"frames": [0], "bbox": [[1, 2, 3, 4]]}', "no person above them"),
    ("[]", "is not an object with people"),
    ("7", "is not an object with people"),
    ("null", "is not an object with people"),
]


@pytest.mark.parametrize("block", [5, 1 << 20])
@pytest.mark.parametrize(("entry", "reason"), BAD)
def test_a_mistake_in_an_entry_is_that_of_its_video(
    entry: str, reason: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    good = json.dumps(GOOD)
    found = read(f'{{"a.mp4": {good}, "bad.mp4": {entry}, "c.mp4": {good}}}', "a.mp4", "bad.mp4", "c.mp4")
    wrong = found.pop("bad.mp4")
    assert isinstance(wrong, InputError) and reason in str(wrong) and str(wrong).startswith("b.json: bad.mp4: ")
    assert "\n" not in str(wrong) and str(wrong).isprintable()
    assert all(isinstance(value, VideoBoxes) and len(value.people) == 2 for value in found.values())


def test_bytes_that_are_not_utf_8_spoil_one_video_only() -> None:
    good = json.dumps(GOOD).encode()
    text = b'{"a.mp4": ' + good + b', "b.mp4": {"\xff": {"frames": [], "bbox": []}}, "c\xfe.mp4": {}, "d.mp4": {}}'
    found = read(text, "a.mp4", "b.mp4", "d.mp4")
    assert [type(found[name]) for name in ("a.mp4", "b.mp4", "d.mp4")] == [VideoBoxes, InputError, VideoBoxes]
    assert len(boxes(b"\xef\xbb\xbf" + b'{"a.mp4": ' + good + b"}", "a.mp4")["a.mp4"].people) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an object with people"),
        ("[1]", "not an object with people"),
        ('{"a.mp4": {"1": {"frames": [0', "in or after a.mp4"),
        ('{"a.mp4": {}} x', "something follows"),
        ('{"a.mp4": {"1": ' + "[" * 200_000, r"nested too deeply \(character \d+, in or after a.mp4"),
        ("\ufeff{}".encode("utf-16"), "not an object with people"),
    ],
)
def test_what_is_not_json_is_named_with_the_file_and_the_place(text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"^b.json: holds no boxes in JSON: .*{reason}"):
        read(text, "a.mp4", "b.mp4")


def test_a_file_name_is_a_key_if_no_other_video_has_it() -> None:
    text = json.dumps({"walk.mp4": GOOD, "cam2/run.mp4": {}})
    found = read(text, "cam1/walk.mp4", "cam1/run.mp4", "cam2/run.mp4")
    assert isinstance(found["cam1/walk.mp4"], VideoBoxes) and isinstance(found["cam2/run.mp4"], VideoBoxes)
    assert "has no boxes for cam1/run.mp4" in str(found["cam1/run.mp4"])
    found = read(text, "cam1/walk.mp4", "walk.mp4")
    assert isinstance(found["walk.mp4"], VideoBoxes) and isinstance(found["cam1/walk.mp4"], InputError)
    with pytest.raises(InputError, match="walk.mp4 could be cam1/walk.mp4 or cam2/walk.mp4; use their paths"):
        read(text, "cam1/walk.mp4", "cam2/walk.mp4")
    both = json.dumps({"walk.mp4": {}, "cam1/walk.mp4": {}, "cam2/walk.mp4": {}})
    boxes(both, "cam1/walk.mp4", "cam2/walk.mp4")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [(["walk.mp4", "walk.mp4"], "walk.mp4 twice"), (["walk.mp4", "cam1/walk.mp4"], "cam1/walk.mp4 and walk.mp4")],
)
def test_two_entries_for_one_video_are_refused(keys: list[str], reason: str) -> None:
    for order in (keys, keys[::-1]):
        with pytest.raises(InputError, match=f"two entries for cam1/walk.mp4: {reason}; remove one"):
            read("{" + ", ".join(f'"{key}": {{}}' for key in order) + "}", "cam1/walk.mp4", "run.mp4")


def test_a_file_about_one_video() -> None:
    assert list(boxes(json.dumps(GOOD), "a.mp4")["a.mp4"].people) == ["1", "2"]
    assert boxes("{}", "a.mp4")["a.mp4"].people == {}, "nobody was found"
    with pytest.raises(InputError, match="is about one video, but there are 2; put each video's people"):
        read(json.dumps(GOOD), "a.mp4", "b.mp4")
    wrong: list[tuple[Any, str]] = [
        (json.dumps({**GOOD, "3": {"bbox": []}}), "person 3 has no frames"),
        (json.dumps({**GOOD, "3": {}}), "3 is no person with frames and bbox"),
        (json.dumps(GOOD)[:-1] + ", " + json.dumps(GOOD)[1:], "has person 1 twice"),
        (json.dumps(GOOD).replace("[0, 2]", "[0, 0]"), "person 1: two boxes in frame 0"),
        (json.dumps(GOOD).replace('"frames": [0, 2]', '"frames": [0, 1], "frames": [0, 2]'), "has frames twice"),
    ]
    for text, reason in wrong:
        (error,) = read(text, "a.mp4").values()
        assert isinstance(error, InputError) and reason in str(error) and str(error).startswith("b.json: a.mp4: ")


def test_memory_is_that_of_one_video() -> None:
    videos = [f"cam{number % 9}/{number}.mp4" for number in range(800)]
    person = json.dumps({str(name): {"frames": list(range(300)), "bbox": [[0.125] * 4] * 300} for name in range(2)})
    file = io.BytesIO(("{" + ", ".join(f'"{video}": {person}' for video in videos) + "}").encode())
    size = len(file.getbuffer())
    assert size > 14 << 20
    tracemalloc.start()
    try:
        count = sum(len(found.people) for _, found in iterate_json(file, Path("b.json"), videos))  # type: ignore[union-attr]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1600 and peak < 6 << 20, f"{peak / 2**20:.1f} MiB for a file of {size / 2**20:.1f} MiB"
