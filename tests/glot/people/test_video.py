"""Videos as a source: all kinds of files, boxes in two formats, and mistakes reported in one line."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.people.video import Unreadable, Video, estimated_frames, read_timeline
from pipelines.decoders.clips import Clip, Decoded
from pipelines.decoders.frames import read_crops
from pipelines.decoders.video_dataset import FrameNames, find_units, video_decoder
from tests.fixtures.video import write_video


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def decoded(root: Path, body: Body, tracks: Path | None = None) -> list[Decoded]:
    decoder = video_decoder(tracks)
    return [decoder.decode(root, unit, body, "corrected") for unit in decoder.find(root, "test")]


@pytest.mark.parametrize(
    ("codec", "pixels", "ending"),
    [
        ("mpeg4", "yuv420p", ".mp4"),
        ("libx264", "yuv420p", ".mov"),
        ("libx264", "yuv420p10le", ".mkv"),
        ("libx265", "yuv420p10le", ".mp4"),
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "gray16le", ".mkv"),
        ("libx264", "yuv444p", ".mp4"),
        ("ffv1", "bgra", ".mkv"),
    ],
)
def test_colour_depths_and_containers_give_the_same_pictures(
    tmp_path: Path, codec: str, pixels: str, ending: str
) -> None:
    path = write_video(tmp_path / f"a{ending}", codec=codec, pixels=pixels)
    timeline = read_timeline(path)
    assert timeline == (12, 25.0, True, 64, 48)
    assert estimated_frames(path) == 12
    with closing(Video(path)) as video:
        for number in (0, 5, 11):
            picture = video.read(number)
            assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
            assert abs(int(picture[40, 50].mean()) - (10 + 2 * number)) < 6 and picture[4, 4].min() > 230


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_pictures_filmed_sideways_are_turned_upright(tmp_path: Path, turned: int) -> None:
    path = write_video(tmp_path / "phone.mp4", turned=turned)
    capture = cv2.VideoCapture(str(path))  # turns pictures upright itself
    with closing(Video(path)) as video:
        ours = video.read(0)
    theirs = capture.read()[1]
    capture.release()
    assert ours.shape == theirs.shape == ((48, 64, 3) if turned == 180 else (64, 48, 3))
    assert np.abs(ours.astype(int) - theirs).max() < 12
    assert read_timeline(path)[3:] == ours.shape[1::-1]


def test_a_varying_frame_rate_is_noticed_and_counted(tmp_path: Path, body: Body) -> None:
    write_video(tmp_path / "even.mkv", codec="libx264", ticks=list(range(0, 48, 4)))
    write_video(tmp_path / "uneven.mkv", codec="libx264", ticks=[0, 4, 8, 12, 30, 34, 38, 42, 46, 90, 94, 98])
    even, uneven = decoded(tmp_path, body)
    assert (even.counts["uneven_rate"], uneven.counts["uneven_rate"]) == (0, 1)
    assert uneven.clips[0].frame_index.tolist() == list(range(12))


def test_without_boxes_the_whole_picture_is_one_person(tmp_path: Path, body: Body) -> None:
    write_video(tmp_path / "deep" / "walk.mp4")
    (found,) = decoded(tmp_path, body)
    (clip,) = found.clips
    assert list(clip.image[:2]) == ["deep/walk.mp4#0", "deep/walk.mp4#1"] and len(clip) == 12 and clip.fps == 25
    np.testing.assert_allclose(clip.bbox[3] * [1, 1, clip.crop_scale, clip.crop_scale], [32, 24, 64, 64])
    crop = next(iter(read_crops(tmp_path, [clip]))).crops[0]
    assert crop[50, 20].min() > 230 and crop[20].max() < 5, "the picture's corner, and black above the picture"


def boxes_json(path: Path, people: dict) -> Path:
    path.write_text(json.dumps(people))
    return path


def test_boxes_are_read_from_json_and_from_the_mot_challenges_text(tmp_path: Path, body: Body) -> None:
    root = tmp_path / "videos"
    write_video(root / "walk.mp4")
    people = {
        "3": {"frames": [2, 3, 5], "bbox": [[10, 10, 20, 30], [11, 10, 20, 30], [12, 10, 22, 8]]},
        "7": {"frames": [0], "bbox": [[0, 0, 5, 5]]},
    }
    (root / "mot.txt").write_text(
        "3,3,10,10,20,30,0.9,-1,-1,-1\n4,3,11,10,20,30,1\n1,7,0,0,5,5\n\n6,3,12,10,22,8,0.4,-1,-1,-1\n"
    )
    folder = tmp_path / "boxes"
    folder.mkdir()
    found = [
        decoded(root, body, boxes)[0]
        for boxes in (
            boxes_json(tmp_path / "one.json", people),
            boxes_json(tmp_path / "many.json", {"walk.mp4": people, "other.mp4": {}}),
            root / "mot.txt",
            boxes_json(folder / "walk.json", people).parent,
        )
    ]
    for other in found:
        by_name = {clip.track_id: clip for clip in other.clips}
        assert sorted(by_name) == ["walk.mp4_3", "walk.mp4_7"]
        assert by_name["walk.mp4_3"].frame_index.tolist() == [2, 3, 5]
        np.testing.assert_allclose(by_name["walk.mp4_3"].bbox, [[20, 25, 30, 30], [21, 25, 30, 30], [23, 14, 22, 22]])
        assert other.counts["rows"] == 4 and other.counts["people"] == 2


def test_boxes_without_size_or_beyond_the_end_are_left_out_and_counted(tmp_path: Path, body: Body) -> None:
    write_video(tmp_path / "walk.mp4")
    boxes = [[1, 1, 9, 9], [1, 1, 0, 9], [1, 1, -2, 9], [1, 1, 9, 9], [1, 1, 1e9, 9]]
    tracks = boxes_json(tmp_path / "b.json", {"a": {"frames": [0, 1, 2, 12, 4], "bbox": boxes}})
    (found,) = decoded(tmp_path, body, tracks)
    assert found.clips[0].frame_index.tolist() == [0]
    assert found.counts["boxes_without_size"] == 3 and found.counts["boxes_beyond_the_video"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "no boxes in JSON"),
        ("[1, 2]", "not an object with people"),
        ('{"a": {"frames": [0, 1], "bbox": [[1, 2, 3, 4]]}}', "2 frames, boxes"),
        ('{"a": {"frames": [0.5], "bbox": [[1, 2, 3, 4]]}}', "must be whole numbers"),
        ('{"a": {"frames": [1, 1], "bbox": [[1, 2, 3, 4], [1, 2, 3, 4]]}}', "two boxes in frame 1"),
        ('{"a": {"frames": [1]}}', "bbox"),
        ('{"other.mp4": {}}', "has no boxes for walk.mp4"),
        ("[" * 100_000, "no boxes in JSON"),
    ],
)
def test_files_without_boxes_are_refused_with_the_reason(tmp_path: Path, body: Body, content: str, reason: str) -> None:
    write_video(tmp_path / "walk.mp4")
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        decoded(tmp_path, body, tmp_path / "b.json")
    (tmp_path / "b.txt").write_text("1,2,3\n")
    with pytest.raises(InputError, match="line 1 has 3 numbers, fewer than 6"):
        decoded(tmp_path, body, tmp_path / "b.txt")


def test_roots_and_tracks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    film = write_video(tmp_path / "films" / "a.mp4")
    write_video(tmp_path / "films" / "b.mp4")
    (tmp_path / "mot.txt").write_text("1,1,1,1,9,9\n")
    for root, tracks, reason in (
        (tmp_path / "gone", None, "no such folder"),
        (film, None, "give the folder"),
        (tmp_path / "empty", None, "no videos in it"),
        (tmp_path / "films", tmp_path / "gone.json", "no such file"),
        (tmp_path / "films", tmp_path / "mot.txt", "holds 2; give a folder"),
    ):
        with pytest.raises(InputError, match=reason):
            find_units(root, "test", tracks=tracks)


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])


def test_unreadable_videos_are_units_that_fail_with_the_reason(tmp_path: Path, body: Body) -> None:
    whole = write_video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mkv").write_bytes(b"")
    (tmp_path / "text.avi").write_text("#EXTM3U\n/etc/hostname\n")
    write_sound(tmp_path / "none.mp4")
    units = {unit.name: unit for unit in find_units(tmp_path, "test")}
    decoder = video_decoder(None)
    for name in ("cut.mp4", "empty.mkv", "text.avi", "none.mp4"):
        assert units[name].frames == 0
        with pytest.raises(InputError, match=f"{name}: .*(not a readable video|no pictures|ends after 0|Invalid)"):
            decoder.decode(tmp_path, units[name], body, "corrected")


def test_units_of_any_name_have_different_files(tmp_path: Path) -> None:
    deep = "/".join(["a long name of a folder"] * 8)
    for name in ("a/b.mp4", "a%2Fb.mp4", "a b.mp4", f"{deep}/1.mp4", f"{deep}/2.mp4"):
        write_video(tmp_path / name, frames=1)
    names = [unit.name for unit in find_units(tmp_path, "test")]
    assert len(set(names)) == 5 and not any("/" in name for name in names) and max(map(len, names)) < 200


def test_names_of_frames_and_labels_of_a_long_video_take_no_memory(tmp_path: Path, body: Body) -> None:
    names = FrameNames("a.mp4", np.arange(10))
    assert names[3] == "a.mp4#3" and list(names[8:]) == ["a.mp4#8", "a.mp4#9"] and len(names) == 10
    write_video(tmp_path / "a.mp4")
    (clip,) = decoded(tmp_path, body)[0].clips
    assert isinstance(clip, Clip) and clip.joints3d.strides == (0, 0, 0) and clip.keypoints2d.strides == (0, 0, 0)
    assert list(clip.take(np.array([2, 4])).image) == ["a.mp4#2", "a.mp4#4"]


def test_a_video_cut_while_it_is_read_ends_with_the_place(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=40, size=(320, 240))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    timeline = read_timeline(path)
    with closing(Video(path)) as video, pytest.raises(Unreadable, match=r"(ends|damaged) after \d+ frames"):
        for number in range(40):
            video.read(number)
    assert 0 < timeline.frames < 40
