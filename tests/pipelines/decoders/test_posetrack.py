"""PoseTrack 2018: tracks from its JSON, joints by their names in the file, and counts of what is left out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.crop import keypoints_to_crop
from glot.human.joints import SPIN49
from pipelines.decoders.clips import Unit
from pipelines.decoders.frames import read_crops
from pipelines.decoders.posetrack import POSETRACK, decode, find_units
from tests.fixtures.posetrack import NAMES, OFFSETS, keypoints, video, write_dataset, write_video

NAME = "000001_bonn_train"
SLOTS = {name: SPIN49.index(name.replace("left_", "l").replace("right_", "r")) for name in NAMES[3:]} | {
    "nose": SPIN49.index("nose"),
    "head_bottom": SPIN49.index("neck"),
    "head_top": SPIN49.index("headtop"),
}


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def decoded(root: Path, body: Body, data: Any = None, *, preprocessing: str = "corrected") -> Any:
    write_video(root, NAME, data=data)
    return decode(root, find_units(root, "train")[0], body, preprocessing)


def annotation(data: dict[str, Any], frame: int, track: int) -> dict[str, Any]:
    """The annotation of a track in a labelled frame."""
    found = [a for a in data["annotations"] if a["image_id"] % 10_000 == frame and a["track_id"] == track]
    return found[0]


def test_units_are_sorted_and_know_their_files(tmp_path: Path) -> None:
    for name in ("000020_mpii_train", NAME):
        write_video(tmp_path, name, frames=3, labelled=[1])
    write_video(tmp_path, "000003_bonn_val", folder="val", frames=3, labelled=[1])
    units = find_units(tmp_path, "train")
    assert [unit.name for unit in units] == [NAME, "000020_mpii_train"]
    assert units[0].annotation == f"posetrack_data/annotations/train/{NAME}.json" and units[0].frames == 3
    assert units[0].sources[1]["path"] == f"images/train/{NAME}" and units[0].sources[1]["files"] == 3
    assert Unit.from_json(units[0].to_json()) == units[0]
    assert [unit.name for unit in find_units(tmp_path, "validation")] == ["000003_bonn_val"]
    (tmp_path / "posetrack_data" / "annotations").rename(tmp_path / "annotations")
    assert [unit.name for unit in find_units(tmp_path, "train")] == [unit.name for unit in units]


def test_rows_joints_and_boxes(tmp_path: Path, body: Body) -> None:
    found = decoded(tmp_path, body)
    (first, second), counts = found.clips, found.counts
    assert [first.track_id, second.track_id] == [f"{NAME}_0", f"{NAME}_1"]
    assert first.frame_index.tolist() == list(range(4, 28)) and len(second) == 24
    assert first.image[0] == f"images/train/{NAME}/000004.jpg" and first.crop_scale == 1.3
    given = np.array([keypoints(1, frame) for frame in range(4, 28)]).reshape(24, 17, 3)
    for name, slot in SLOTS.items():
        assert np.array_equal(second.keypoints2d[:, slot, :2], given[:, NAMES.index(name), :2])
        assert (second.keypoints2d[:, slot, 2] == (name in OFFSETS)).all()  # also the wrist marked as hidden
    assert (second.keypoints2d[..., 2].sum(1) == 15).all()
    assert np.allclose(first.bbox[0], [54, 60, 80, 80])  # 0.8 times the larger side, around the middle
    assert not (first.has_3d.any() or first.has_smpl.any() or first.joints3d_valid.any()) and first.valid.all()
    assert counts["rows"] == counts["person_frames"] == 48 and sum(counts.values()) == 96


def test_joints_follow_the_names_in_the_file_not_their_usual_places(tmp_path: Path, body: Body) -> None:
    names = [NAMES[i] for i in np.random.default_rng(0).permutation(17)]
    shuffled = decoded(tmp_path / "a", body, video(NAME, names=names)).clips
    usual = decoded(tmp_path / "b", body).clips
    assert names != list(NAMES) and np.array_equal(shuffled[0].keypoints2d, usual[0].keypoints2d)


def test_unlabelled_pictures_leave_gaps(tmp_path: Path, body: Body) -> None:
    data = video(NAME)
    for image in data["images"][10:13]:
        image["is_labeled"] = False
    found = decoded(tmp_path, body, data)
    clips, counts = found.clips, found.counts
    assert clips[0].frame_index.tolist() == [*range(4, 10), *range(13, 28)]
    assert counts["rows_of_unlabelled_pictures"] == 6


def test_every_fourth_label_keeps_its_time(tmp_path: Path, body: Body) -> None:
    write_video(tmp_path, NAME, frames=40, labelled=range(0, 40, 4))
    clips = decode(tmp_path, find_units(tmp_path, "train")[0], body, "corrected").clips
    assert clips[0].frame_index.tolist() == list(range(0, 40, 4))


def test_order_in_the_file_does_not_matter(tmp_path: Path, body: Body) -> None:
    data = video(NAME)
    rng = np.random.default_rng(0)
    for key in ("images", "annotations"):
        data[key] = [data[key][i] for i in rng.permutation(len(data[key]))]
    shuffled, usual = decoded(tmp_path / "a", body, data).clips, decoded(tmp_path / "b", body).clips
    assert [clip.track_id for clip in shuffled] == [clip.track_id for clip in usual]
    assert shuffled[1].image == usual[1].image and np.array_equal(shuffled[1].keypoints2d, usual[1].keypoints2d)


def test_ids_are_whole_numbers_of_any_size_including_zero(tmp_path: Path, body: Body) -> None:
    data = video(NAME)
    new = {image["id"]: 2**53 + 1 + i for i, image in enumerate(data["images"])}  # floats would merge neighbours
    new[data["images"][4]["id"]] = 0
    for image in data["images"]:
        image["id"] = new[image["id"]]
    for entry in data["annotations"]:
        entry["image_id"] = new[entry["image_id"]]
        entry["track_id"] *= 10**15  # so large that a loop up to it would not end
    started = time.monotonic()
    found = decoded(tmp_path, body, data)
    clips, counts = found.clips, found.counts
    assert time.monotonic() - started < 60 and clips[1].track_id == f"{NAME}_{10**15}"
    assert clips[0].frame_index.tolist() == list(range(4, 28)) and counts["rows"] == 48


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, body: Body) -> None:
    data = video(NAME)
    annotation(data, 4, 0)["keypoints"] = [0] * 51
    annotation(data, 5, 0)["bbox"] = [40, 10, 0, 100]
    annotation(data, 6, 0)["bbox"] = [40, 10, 40, -1]
    del annotation(data, 7, 0)["bbox"]
    annotation(data, 8, 0)["bbox"] = [40, 10, float("nan"), 100]
    annotation(data, 9, 0)["keypoints"][3] = float("nan")
    annotation(data, 10, 0)["keypoints"][4] = float("inf")
    annotation(data, 11, 0)["keypoints"][4] = 1e300
    annotation(data, 12, 0)["image_id"] = 7
    annotation(data, 13, 0)["image_id"] = annotation(data, 14, 0)["image_id"]
    data["annotations"] += [{**annotation(data, frame, 1), "track_id": 5} for frame in range(4, 11)]
    found = decoded(tmp_path, body, data)
    clips, counts = found.clips, found.counts
    assert clips[0].frame_index.tolist() == list(range(14, 28)) and [len(clip) for clip in clips] == [14, 24]
    assert counts == {
        "person_frames": 55, "rows": 38, "rows_without_picture": 1, "rows_of_unlabelled_pictures": 0,
        "rows_not_finite": 3, "rows_without_joints": 1, "rows_without_box": 4, "rows_twice": 1,
        "rows_in_short_tracks": 7, "short_tracks": 1,
    }  # fmt: skip
    for clip in clips:
        assert np.isfinite(clip.keypoints2d).all() and (clip.bbox[:, 2] > 0).all()


def test_eight_rows_are_a_track(tmp_path: Path, body: Body) -> None:
    found = decoded(tmp_path, body, video(NAME, labelled=range(8)))
    clips, counts = found.clips, found.counts
    assert [len(clip) for clip in clips] == [8, 8] and counts["short_tracks"] == 0


def test_reference_targets_are_placed_at_another_scale_than_the_crop(tmp_path: Path, body: Body) -> None:
    ours = decoded(tmp_path / "a", body).clips[0]
    theirs = decoded(tmp_path / "b", body, preprocessing="reference").clips[0]
    assert np.array_equal(ours.bbox, theirs.bbox) and ours.crop_scale == theirs.crop_scale == 1.3
    seen = ours.keypoints2d[..., 2] > 0
    published = keypoints_to_crop(ours.keypoints2d, ours.bbox, 1.2)
    assert np.allclose(keypoints_to_crop(theirs.keypoints2d, theirs.bbox, 1.3)[seen], published[seen])
    assert not theirs.keypoints2d[~seen].any()


def test_a_missing_picture_is_reported_and_costs_its_frame_only(tmp_path: Path, body: Body) -> None:
    clips = decoded(tmp_path, body).clips
    (tmp_path / clips[0].image[3]).unlink()
    seen = list(read_crops(tmp_path, clips))
    assert [(frame.image, frame.reason) for frame in seen if frame.reason] == [
        (clips[0].image[3], "No such file or directory")
    ]


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = video(NAME)
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        (json.dumps(video(NAME))[:-1000], "not readable as JSON"),
        ("[]", "no list of images"),
        (changed(lambda data: data.pop("annotations")), "no list of annotations"),
        (changed(lambda data: data["images"].append(3)), "no list of images"),
        (changed(lambda data: data["categories"].clear()), "does not list which joints"),
        (changed(lambda data: data["categories"][0]["keypoints"].__setitem__(0, "tail")), "unknown joints tail"),
        (changed(lambda data: data["categories"][0]["keypoints"].__setitem__(0, "left_hip")), "named twice"),
        (changed(lambda data: data["images"][5].pop("is_labeled")), "lacks id, file_name or is_labeled"),
        (changed(lambda data: data["images"][5].update(id=1.5)), "lacks id, file_name or is_labeled"),
        (changed(lambda data: data["images"][5].update(id=data["images"][4]["id"])), "two images have the id"),
        (changed(lambda data: data["images"][5].update(file_name="../../x/1.jpg")), "is not below --root"),
        (changed(lambda data: data["images"][5].update(file_name="/etc/1.jpg")), "is not below --root"),
        (changed(lambda data: data["annotations"][5]["keypoints"].pop()), "not 51 keypoint values"),
        (changed(lambda data: data["annotations"][5]["keypoints"].__setitem__(0, "1")), "not 51 keypoint values"),
        (changed(lambda data: data["annotations"][5]["keypoints"].__setitem__(0, 10**400)), "not 51 keypoint values"),
        (changed(lambda data: data["annotations"][5].update(track_id="0")), "has no track_id"),
    ],
    ids=lambda value: value[:25] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_file_is_reported(tmp_path: Path, body: Body, data: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        decoded(tmp_path, body, data)
    assert f"{NAME}.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_folders_are_reported(tmp_path: Path, body: Body) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="posetrack_data/annotations/train: no .json files there"):
        find_units(tmp_path, "train")
    write_video(tmp_path, NAME)
    with pytest.raises(InputError, match="annotations/val: no .json files there"):
        find_units(tmp_path, "validation")
    (tmp_path / "images" / "train" / NAME).rename(tmp_path / "gone")
    with pytest.raises(InputError, match=f"images/train/{NAME}: there is no such folder"):
        decode(tmp_path, find_units(tmp_path, "train")[0], body, "corrected")
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match="images: there is no such folder"):
        find_units(tmp_path, "train")


def test_the_tiny_dataset_is_whole(tmp_path: Path, body: Body) -> None:
    write_dataset(tmp_path)
    for split in POSETRACK.splits:
        for unit in find_units(tmp_path, split):
            clips = decode(tmp_path, unit, body, "corrected").clips
            assert [len(clip) for clip in clips] == [24, 24]
            assert all((tmp_path / image).is_file() for clip in clips for image in clip.image)
