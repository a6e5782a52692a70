"""The 3DPW decoder: which rows it keeps, what is in its columns, and that every broken file is reported in one line."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.crop import crop_image
from glot.human.joints import COMMON14, SPIN49, THREEDPW_2D
from glot.people.boxes import keypoint_boxes
from pipelines.decoders.clips import Unit
from pipelines.decoders.frames import read_crops
from pipelines.decoders.threedpw import decode, find_units
from pipelines.scenes.legacy_pickle import dump
from tests.fixtures.threedpw import sequence, write_sequence


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def unit_of(root: Path, data: Any) -> Unit:
    """A dataset of one sequence with this content."""
    pickle = write_sequence(root, "walk_00", frames=12)
    dump(data, pickle)
    return find_units(root, "test")[0]


def test_units_are_sorted_and_know_their_files(tmp_path: Path) -> None:
    for name in ("b_00", "a_01", "a_00"):
        write_sequence(tmp_path, name, frames=3)
    write_sequence(tmp_path, "other", split="train", frames=3)
    units = find_units(tmp_path, "test")
    assert [unit.name for unit in units] == ["a_00", "a_01", "b_00"]
    assert all(unit.frames == 3 and Unit.from_json(unit.to_json()) == unit for unit in units)
    pickle, images = units[0].sources
    status = (tmp_path / "sequenceFiles/test/a_00.pkl").stat()
    assert pickle == {
        "path": "sequenceFiles/test/a_00.pkl",
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
    }
    assert images == {"path": "imageFiles/a_00", "files": 3}


def test_a_rendered_sample_has_the_frame_rates_of_its_sample_json(tmp_path: Path, body: Body) -> None:
    for name in ("slow", "usual"):
        write_sequence(tmp_path, name)

    def rates() -> dict[str, set[float]]:
        units = find_units(tmp_path, "test")
        units = [Unit.from_json(unit.to_json()) for unit in units]  # as a worker gets them
        return {unit.name: {clip.fps for clip in decode(tmp_path, unit, body, "corrected").clips} for unit in units}

    assert rates() == {"slow": {30.0}, "usual": {30.0}}, "3DPW itself"
    file = tmp_path / "sample.json"
    for content, slow in (
        ({"every": [2]}, 30.0),  # made before the rates were written
        ({"fps": {"slow": 7.5, "other": 1}}, 7.5),
    ):
        file.write_text(json.dumps(content))
        assert rates() == {"slow": {slow}, "usual": {30.0}}
    for text in ("{", "[]", '{"fps": 15}', '{"fps": {"slow": 0}}', '{"fps": {"slow": NaN}}', '{"fps": {"slow": "x"}}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"sample.json: .*render the sample again"):
            find_units(tmp_path, "test")


def test_rows_labels_and_order(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00")
    data["poses2d"][1][:, :, :2] = 0  # person 1 is absent in the first two frames and the last
    data["poses2d"][1][0:2] = data["poses2d"][1][-1] = 0
    data["poses2d"][1][2:, :, :2] = 20
    data["poses2d"][1][2:-1, :2, 10] = 60
    found = decode(tmp_path, unit_of(tmp_path, data), body, "corrected")
    (first, second), counts = found.clips, found.counts
    assert [first.track_id, second.track_id] == ["walk_00_0", "walk_00_1"]
    assert first.frame_index.tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]  # 3: absent, 5: six limb joints
    assert second.frame_index.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert counts == {
        "person_frames": 24, "rows": 19, "rows_outside_visible": 3, "rows_too_few_joints": 2, "rows_without_box": 0,
        "cameras_not_rigid": 0,
    }  # fmt: skip
    assert first.image[3] == "imageFiles/walk_00/image_00004.jpg"
    assert (first.gender, second.gender, first.fps, first.crop_scale) == ("male", "female", 30.0, 1.2)
    assert first.valid.tolist() == [True] * 8 + [False] * 2 and second.valid.all()
    for name in COMMON14:
        if name in THREEDPW_2D:
            slot, source = SPIN49.index(name), THREEDPW_2D.index(name)
            assert np.array_equal(first.keypoints2d[4, slot, :2], data["poses2d"][0][6, :2, source])
            assert first.keypoints2d[4, slot, 2] == 1
    assert first.keypoints2d[..., 2].sum() == 12 * len(first)
    assert np.array_equal(first.betas[5], data["betas"][0])
    assert first.has_3d.all() and first.has_smpl.all() and first.joints3d_valid.all()


def test_exactly_seven_visible_limb_joints_are_enough(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00", people=1)
    limbs = [THREEDPW_2D.index(name) for name in COMMON14 if name in THREEDPW_2D]
    data["poses2d"][0][7, 2, limbs[:5]] = 0.3  # 7 left
    data["poses2d"][0][8, 2, limbs[:6]] = 0.3  # 6 left
    clip = decode(tmp_path, unit_of(tmp_path, data), body, "corrected").clips[0]
    assert 7 in clip.frame_index and 8 not in clip.frame_index
    assert clip.keypoints2d[clip.frame_index.tolist().index(7), 25:37, 2].sum() == 7


def test_the_root_is_rotated_from_the_world_into_the_camera_frame(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00", people=1)
    clip = decode(tmp_path, unit_of(tmp_path, data), body, "corrected").clips[0]
    world = data["poses"][0][clip.frame_index].reshape(-1, 24, 3)
    cameras = data["cam_poses"][clip.frame_index, :3, :3]
    seen = Rotation.from_rotvec(clip.pose[:, 0]).as_matrix()
    assert np.allclose(seen, cameras @ Rotation.from_rotvec(world[:, 0]).as_matrix())
    assert np.array_equal(clip.pose[:, 1:], world[:, 1:])
    rotmats = Rotation.from_rotvec(clip.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    with torch.no_grad():
        full = body(torch.from_numpy(rotmats).float(), torch.from_numpy(clip.betas).float()).joints.numpy()
    hips = full[:, [SPIN49.index("rhip"), SPIN49.index("lhip")]].mean(1, keepdims=True)
    assert np.allclose(clip.joints3d, full - hips, atol=1e-5)


def test_a_camera_that_is_no_rotation_costs_only_its_frame(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00", people=1)
    data["cam_poses"][2, 0, 0] = np.nan
    data["cam_poses"][6, :3, :3] *= 2
    found = decode(tmp_path, unit_of(tmp_path, data), body, "corrected")
    clip, counts = found.clips, found.counts
    lost = np.isin(clip[0].frame_index, [2, 6])
    assert np.array_equal(clip[0].has_3d, ~lost) and np.array_equal(clip[0].has_smpl, ~lost)
    assert not clip[0].valid[lost].any() and np.isfinite(clip[0].pose).all() and counts["cameras_not_rigid"] == 2


def test_reference_crops_features_wider_than_it_places_their_2d_targets(tmp_path: Path, body: Body) -> None:
    unit = unit_of(tmp_path, sequence("walk_00", people=1))
    crops = {}
    for preprocessing, scale in (("corrected", 1.2), ("reference", 1.3)):
        clip = decode(tmp_path, unit, body, preprocessing).clips[0]
        assert clip.crop_scale == 1.2  # for the stored 2D targets
        crops[preprocessing] = crop = next(read_crops(tmp_path, [clip])).crops[0]
        picture = cv2.imread(str(tmp_path / clip.image[0]))
        assert np.array_equal(crop, crop_image(picture, clip.bbox[0], scale))
    assert not np.array_equal(*crops.values())


def test_reference_joints_are_moved_by_the_worlds_translation_and_differ_in_nothing_else(
    tmp_path: Path, body: Body
) -> None:
    data = sequence("walk_00", people=1)
    unit = unit_of(tmp_path, data)
    corrected, reference = (decode(tmp_path, unit, body, name).clips[0] for name in ("corrected", "reference"))
    assert np.array_equal(corrected.frame_index, reference.frame_index)
    hips = [SPIN49.index("rhip"), SPIN49.index("lhip")]
    assert np.abs(corrected.joints3d[:, hips].mean(1)).max() < 1e-6
    pelvis = reference.joints3d[:, hips].mean(1)
    assert np.allclose(reference.joints3d - pelvis[:, None], corrected.joints3d, atol=1e-5)
    # The offset is the world's translation, not rotated into the camera frame, plus that of SMPL's hips.
    trans = data["trans"][0][reference.frame_index]
    assert np.linalg.norm(pelvis - trans, axis=1).max() < 0.6 < np.linalg.norm(pelvis, axis=1).max()
    without = {**data, "trans": [np.zeros_like(data["trans"][0])]}
    dump(without, tmp_path / unit.annotation)
    still = decode(tmp_path, unit, body, "reference").clips[0]
    assert np.allclose(reference.joints3d - still.joints3d, trans[:, None], atol=1e-5)


def seen_late(start: int, frames: int = 40) -> dict[str, Any]:
    """A person who walks to the right and is first seen in frame ``start``."""
    data = sequence("walk_00", people=1, frames=frames)
    data["poses2d"][0][:] = data["poses2d"][0][:1]
    data["poses2d"][0][:, 0] += 2.0 * np.arange(frames)[:, None]
    data["poses2d"][0][:start] = 0
    return data


def test_reference_boxes_are_late_by_the_frames_before_a_person_is_seen(tmp_path: Path, body: Body) -> None:
    write_sequence(tmp_path, "walk_00", frames=40)
    pickle = tmp_path / "sequenceFiles" / "test" / "walk_00.pkl"
    unit = find_units(tmp_path, "test")[0]
    dump(seen_late(7), pickle)
    found = decode(tmp_path, unit, body, "corrected")
    corrected, counts = found.clips, found.counts
    assert counts["rows_without_box"] == 0 and corrected[0].frame_index[0] == 7
    found = decode(tmp_path, unit, body, "reference")
    reference, counts = found.clips, found.counts
    # The first 7 rows have an infinite box in the reference. Such rows would be useless and would break every reader.
    assert counts["rows_without_box"] == 7 and reference[0].frame_index.tolist() == list(range(14, 40))
    assert counts["person_frames"] == sum(
        counts[why] for why in ("rows", "rows_outside_visible", "rows_too_few_joints", "rows_without_box")
    )
    late = keypoint_boxes(seen_late(7)["poses2d"][0].transpose(0, 2, 1), zero_padded=True).bbox[:-7]
    assert np.array_equal(reference[0].bbox, late)
    middle = slice(10, 16)  # frames 24 to 29 of the reference, far from the ends
    assert np.allclose(corrected[0].bbox[17:23, 0] - reference[0].bbox[middle, 0], 14, atol=1.5)  # 7 frames of 2 px
    # A person who is seen from the first frame has the same rows in both, and different boxes only at the ends.
    dump(seen_late(0), pickle)
    ours, theirs = (decode(tmp_path, unit, body, name).clips[0] for name in ("corrected", "reference"))
    assert np.array_equal(ours.frame_index, theirs.frame_index)
    assert np.abs(ours.bbox[:, 0] - theirs.bbox[:, 0]).max() > 1


def test_reference_has_no_rows_of_a_person_seen_for_less_than_six_frames(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00", people=1)
    data["poses2d"][0][5:] = 0
    unit = unit_of(tmp_path, data)
    assert len(decode(tmp_path, unit, body, "corrected").clips[0]) == 4
    found = decode(tmp_path, unit, body, "reference")
    clips, counts = found.clips, found.counts
    assert not clips and counts["rows_without_box"] == 4


def test_only_reference_needs_the_translation(tmp_path: Path, body: Body) -> None:
    unit = unit_of(tmp_path, broken(trans=None))
    assert len(decode(tmp_path, unit, body, "corrected").clips) == 2
    with pytest.raises(InputError, match="no trans in it"):
        decode(tmp_path, unit, body, "reference")


def test_a_person_who_is_never_visible_has_no_clip(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00")
    data["poses2d"][0][:] = 0
    clips = decode(tmp_path, unit_of(tmp_path, data), body, "corrected").clips
    assert [clip.track_id for clip in clips] == ["walk_00_1"]


def test_longer_betas_are_cut_to_ten(tmp_path: Path, body: Body) -> None:
    data = sequence("walk_00", people=1)
    data["betas"] = [np.arange(300) / 1000]
    clips = decode(tmp_path, unit_of(tmp_path, data), body, "corrected").clips
    assert np.array_equal(clips[0].betas[0], np.arange(10) / 1000)


def broken(**changes: Any) -> dict[str, Any]:
    data = sequence("walk_00")
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([1, 2], "holds a list"),
        (broken(cam_poses=None), "no cam_poses in it"),
        (broken(betas=[np.zeros(10)]), "2 people have poses, 1 have betas"),
        (broken(betas=[np.zeros(9)] * 2), "fewer than 10 betas"),
        (broken(poses=[np.zeros((11, 72))] * 2), r"poses\[0\] is \(11, 72\), expected \(12, 72\)"),
        (broken(poses2d=[np.zeros((12, 18, 3))] * 2), r"poses2d\[0\] is \(12, 18, 3\), expected \(12, 3, 18\)"),
        (broken(poses=[np.full((12, 72), np.nan)] * 2), r"poses\[0\] holds NaN"),
        (broken(cam_poses=["a"]), "cam_poses is not an array of numbers"),
        (broken(img_frame_ids=np.zeros(0)), "0 frames"),
        (broken(genders=["m"]), "1 genders"),
        (broken(poses=5), "poses is of type int, not a list"),
        (broken(poses2d=[np.full((12, 3, 18), np.nan)] * 2), r"poses2d\[0\] holds NaN"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_file_is_reported(tmp_path: Path, body: Body, data: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        decode(tmp_path, unit_of(tmp_path, data), body, "corrected")
    assert "walk_00.pkl" in str(error.value)


def test_missing_folders_and_an_empty_split_are_reported(tmp_path: Path, body: Body) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "nowhere", "test")
    with pytest.raises(InputError, match="sequenceFiles/test: there is no such folder"):
        find_units(tmp_path, "test")
    (tmp_path / "sequenceFiles" / "test").mkdir(parents=True)
    with pytest.raises(InputError, match="no .pkl files"):
        find_units(tmp_path, "test")
    unit = unit_of(tmp_path, sequence("walk_00"))
    (tmp_path / "imageFiles" / "walk_00").rename(tmp_path / "imageFiles" / "gone")
    with pytest.raises(InputError, match="imageFiles/walk_00: there is no such folder"):
        decode(tmp_path, unit, body, "corrected")
