"""InstaVariety: labels and pictures come out of the records as they were written; damage costs only its record."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.crop import keypoints_to_crop
from glot.human.joints import SPIN49
from pipelines.decoders.clips import Decoded, Unit
from pipelines.decoders.dataset_facts import INSTA25
from pipelines.decoders.frames import read_crops
from pipelines.decoders.insta_variety import decode, find_units, read_record_picture
from pipelines.decoders.source_entries import Before
from tests.fixtures.insta_variety import encode, frame, name_of, picture, track, write_dataset, write_file


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def one_file(root: Path, tracks: list[dict[str, Any]]) -> Unit:
    write_file(root / "train" / name_of(0), tracks)
    return find_units(root, "train")[0]


def decoded(root: Path, tracks: list[dict[str, Any]], body: Body, preprocessing: str = "corrected") -> Decoded:
    return decode(root, one_file(root, tracks), body, preprocessing)


def test_units_are_files_and_know_their_frames(tmp_path: Path) -> None:
    write_dataset(tmp_path, files=2, tracks=2, frames=20)
    units = find_units(tmp_path, "train")
    assert [unit.annotation for unit in units] == [f"train/{name_of(0)}", f"train/{name_of(1)}"]
    assert [unit.frames for unit in units] == [40, 40]
    status = (tmp_path / "train" / name_of(0)).stat()
    entry = {"path": f"train/{name_of(0)}", "bytes": status.st_size, "modified": status.st_mtime_ns}
    assert units[0].sources == (entry,)
    again = find_units(tmp_path, "train", Before({entry["path"]: entry}))
    assert [unit.frames for unit in again] == [0, 40], "a file that is as before is not read"
    assert all(Unit.from_json(unit.to_json()) == unit for unit in units)
    assert len(find_units(tmp_path, "test")) == 2


def test_joints_are_where_the_writer_put_them(tmp_path: Path, body: Body) -> None:
    values = track(20, seed=3)
    found = decoded(tmp_path, [values], body)
    (clip,), counts = found.clips, found.counts
    assert counts["records"] == 1 and counts["rows"] == counts["person_frames"] == 20
    assert (clip.fps, clip.crop_scale, clip.gender) == (30.0, 1.0, "neutral")
    wanted = {}
    for number, name in enumerate(INSTA25[:14]):
        wanted[name] = (*values["image/xys"][:, :, number].T, values["image/visibilities"][:, 0, number])
    for names, key in ((INSTA25[14:19], "image/face_pts"), (INSTA25[19:], "image/toe_pts")):
        for number, name in enumerate(names):
            wanted[name] = tuple(values[key][:, :, number].T)
    for name, (x, y, seen) in wanted.items():
        found, seen = clip.keypoints2d[:, SPIN49.index(name)], seen > 0
        assert np.array_equal(found[:, 2], seen), name
        assert np.allclose(found[seen, :2], np.column_stack([x, y])[seen] * 112 + 112, atol=1e-4), name
        assert not found[~seen].any(), name
    absent = [SPIN49.index("OP MidHip"), *(slot for slot in range(25, 49) if SPIN49[slot] != "headtop")]
    assert not clip.keypoints2d[:, absent].any() and not clip.keypoints2d[:, SPIN49.index("headtop")].any()


def test_the_25_joints_go_where_the_published_conversion_puts_them() -> None:
    slots = [24, 10, 9, 12, 13, 21, 4, 3, 2, 5, 6, 7, 1, 38, 0, 16, 15, 18, 17, 19, 22, 20, 23, 14, 11]
    assert [SPIN49.index(name) for name in INSTA25] == slots


def test_targets_in_crop_units_are_the_stored_numbers(tmp_path: Path, body: Body) -> None:
    values = track(20)
    clip = decoded(tmp_path, [values], body).clips[0]
    targets = keypoints_to_crop(clip.keypoints2d, clip.bbox, clip.crop_scale)
    knee = INSTA25.index("OP LKnee")
    seen = values["image/visibilities"][:, 0, knee] > 0
    found = targets[seen, SPIN49.index("OP LKnee"), :2]
    assert seen.any() and np.allclose(found, values["image/xys"][seen, :, knee], atol=1e-5)


def test_placeholders_for_3d_are_not_read(tmp_path: Path, body: Body) -> None:
    clip = decoded(tmp_path, [track(20)], body).clips[0]
    assert not clip.pose.any() and not clip.betas.any() and not clip.joints3d.any()
    assert not clip.has_smpl.any() and not clip.has_3d.any() and not clip.joints3d_valid.any() and clip.valid.all()


def test_unseen_joints_lie_in_the_middle_only_in_the_reference(tmp_path: Path, body: Body) -> None:
    values = track(20)
    reference = decoded(tmp_path, [values], body, "reference").clips[0].keypoints2d
    corrected = decoded(tmp_path, [values], body).clips[0].keypoints2d
    assert np.array_equal(reference[:, SPIN49.index("headtop")], np.tile([112.0, 112.0, 0.0], (20, 1)))
    assert np.array_equal(reference[..., 2], corrected[..., 2])


def test_without_phis_joints_are_pixels_already(tmp_path: Path, body: Body) -> None:
    values = track(20)
    del values["image/phis"]
    values["image/xys"] = np.where(values["image/xys"] != 0, values["image/xys"] * 100 + 110, 0).astype(np.float32)
    clip = decoded(tmp_path, [values], body).clips[0]
    seen = values["image/visibilities"][:, 0, 2] > 0
    assert np.allclose(clip.keypoints2d[seen, SPIN49.index("OP RHip"), :2], values["image/xys"][seen, :, 2])


def test_a_picture_comes_out_as_it_lies_in_the_record(tmp_path: Path, body: Body) -> None:
    tracks = [track(20, seed=0), track(21, seed=1)]
    clips = decoded(tmp_path, tracks, body).clips
    assert clips[1].image[7] == f"train/{name_of(0)}#1/7" and clips[1].track_id == f"{name_of(0)}-1"
    assert read_record_picture(tmp_path, clips[1].image[7]) == tracks[1]["image/encoded"][7]
    for frame_ in read_crops(tmp_path, clips):
        assert not frame_.reason
        ((number, row),) = frame_.people
        stored = cv2.imdecode(np.frombuffer(tracks[number]["image/encoded"][row], np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(frame_.crops[0], stored[..., ::-1])
    assert np.abs(frame_.crops[0][..., ::-1].astype(int) - picture(1020)).mean() < 5


@pytest.mark.parametrize("name", [f"train/{name_of(0)}#0/99", f"train/{name_of(0)}#9/0", f"train/{name_of(0)}#x",
                                  "train/gone.tfrecord#0/0"])  # fmt: skip
def test_a_picture_that_is_not_there_is_reported(tmp_path: Path, name: str) -> None:
    one_file(tmp_path, [track(20)])
    with pytest.raises(InputError, match="no such picture|No such file"):
        read_record_picture(tmp_path, name)


def test_a_cut_jpeg_inside_a_whole_record_is_one_frame(tmp_path: Path, body: Body) -> None:
    values = track(20)
    values["image/encoded"][4] = values["image/encoded"][4][:-300]
    clips = decoded(tmp_path, [values], body).clips
    reasons = {frame_.image: frame_.reason for frame_ in read_crops(tmp_path, clips) if frame_.reason}
    assert reasons == {f"train/{name_of(0)}#0/4": "truncated JPEG"}


def test_a_wrong_checksum_costs_its_record_and_is_named(tmp_path: Path, body: Body) -> None:
    unit = one_file(tmp_path, [track(20, seed=seed) for seed in range(3)])
    path = tmp_path / unit.annotation
    content = bytearray(path.read_bytes())
    at = len(frame(encode(track(20, seed=0)))) + 5000
    content[at] ^= 0x10
    path.write_bytes(content)
    found = decode(tmp_path, unit, body, "corrected")
    assert [clip.track_id for clip in found.clips] == [f"{name_of(0)}-0", f"{name_of(0)}-2"]
    assert found.skipped == [{"what": f"{unit.annotation}#1", "reason": "wrong checksum", "frames": 0}]
    assert found.counts["records"] == 3 and found.counts["records_skipped"] == 1
    assert found.counts["frames_lost"] == 20


def test_a_cut_file_gives_its_whole_records(tmp_path: Path, body: Body) -> None:
    one_file(tmp_path, [track(20, seed=seed) for seed in range(2)])
    path = tmp_path / "train" / name_of(0)
    path.write_bytes(path.read_bytes()[:-1000])
    unit = find_units(tmp_path, "train")[0]
    assert unit.frames == 20
    found = decode(tmp_path, unit, body, "corrected")
    assert len(found.clips) == 1 and "#1 and what follows it" in found.skipped[0]["what"]
    assert "file cut" in found.skipped[0]["reason"]


def test_rows_beyond_the_last_picture_are_counted(tmp_path: Path, body: Body) -> None:
    values = track(25)
    values["image/encoded"] = values["image/encoded"][:22]
    found = decoded(tmp_path, [values], body)
    (clip,), counts = found.clips, found.counts
    assert len(clip) == 22 and counts["rows_without_picture"] == 3 and counts["person_frames"] == 25


def test_joints_that_are_not_finite_are_unseen_and_counted(tmp_path: Path, body: Body) -> None:
    values = track(20)
    values["image/visibilities"][2:4, 0, 5] = 1
    values["image/xys"][2, 0, 5] = np.nan
    values["image/xys"][3, 1, 5] = np.inf
    for preprocessing in ("corrected", "reference"):
        found = decoded(tmp_path, [values], body, preprocessing)
        (clip,), counts = found.clips, found.counts
        assert counts["joints_not_finite"] == 2
        assert not clip.keypoints2d[2:4, SPIN49.index("OP LHeel")].any() and np.isfinite(clip.keypoints2d).all()


def test_pictures_of_another_size_are_counted(tmp_path: Path, body: Body) -> None:
    values = track(20)
    values["image/heightwidths"][:3] = [200, 224]
    assert decoded(tmp_path, [values], body).counts["pictures_of_other_size"] == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"meta/N": None}, "no meta/N in it"),
        ({"meta/N": np.array([-3])}, r"meta/N is \[-3\]"),
        ({"meta/N": np.array([21])}, "image/xys holds 560 numbers, 21 frames need 588"),
        ({"image/face_pts": None}, "no image/face_pts in it"),
        ({"image/encoded": None}, "no image/encoded in it"),
        ({"image/encoded": []}, "no pictures in it"),
        ({"image/visibilities": np.ones((20, 14), np.float32)}, "a list of floats, expected integers"),
    ],
)
def test_a_record_that_is_no_track_is_skipped_with_its_reason(
    tmp_path: Path, body: Body, change: dict[str, Any], reason: str
) -> None:
    values = {key: value for key, value in {**track(20), **change}.items() if value is not None}
    found = decoded(tmp_path, [values, track(20, seed=1)], body)
    assert len(found.clips) == 1 and len(found.skipped) == 1
    assert re.search(reason, found.skipped[0]["reason"])


def test_folders_and_files_that_are_not_there(tmp_path: Path, body: Body) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "gone", "train")
    with pytest.raises(InputError, match="must hold InstaVariety's train/ and test/"):
        find_units(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no .tfrecord files"):
        find_units(tmp_path, "train")
    (tmp_path / "train" / name_of(0)).write_bytes(b"")
    unit = find_units(tmp_path, "train")[0]
    with pytest.raises(InputError, match="an empty file"):
        decode(tmp_path, unit, body, "corrected")
