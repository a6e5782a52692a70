"""MPI-INF-3DHP: both kinds of MATLAB files end up in the right columns; frames that must not become rows do not."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import SPIN49
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.dataset_facts import MPI28
from pipelines.decoders.frames import read_crops
from pipelines.decoders.mpi_inf_3dhp import decode, find_units
from pipelines.decoders.mpi_inf_3dhp_videos import CAMERAS
from tests.fixtures.mpi_inf_3dhp import (
    SIZE,
    TEST_ORDER,
    TRAIN_ORDER,
    annotations,
    person,
    write_dataset,
    write_sequence,
    write_test,
)

MAPPED = [name for name in TRAIN_ORDER if name in SPIN49]
HIP, R_HIP, L_HIP = (SPIN49.index(name) for name in ("hip", "rhip", "lhip"))


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def clips_of(root: Path, body: Body, preprocessing: str = "corrected", *, at: int = 0, split: str = "train") -> Any:
    return decode(root, find_units(root, split)[at], body, preprocessing)


def rows_of(clips: list[Clip]) -> list[list[int]]:
    return [clip.frame_index.tolist() for clip in clips]


def outside(data: dict[str, Any], camera: int, rows: list[int]) -> None:
    """Puts a wrist left of the picture."""
    data["annot2"][camera, 0][rows, 2 * TRAIN_ORDER.index("lwrist")] = -1


def test_units_are_the_eight_cameras_of_each_sequence_in_order(tmp_path: Path) -> None:
    for subject in (10, 2):
        write_sequence(tmp_path, subject=subject, frames=3, cameras=CAMERAS[:2])
    write_sequence(tmp_path, subject=2, sequence=2, frames=4, cameras=CAMERAS[:2], film=True)
    units = find_units(tmp_path, "train")
    assert [unit.name for unit in units[::8]] == ["S2_Seq1_video_0", "S2_Seq2_video_0", "S10_Seq1_video_0"]
    assert [unit.frames for unit in units[:10]] == [3, 3, 0, 0, 0, 0, 0, 0, 4, 4]
    assert len({unit.annotation for unit in units}) == len(units) == 24  # the manifest stores counts under this name
    assert all(Unit.from_json(unit.to_json()) == unit for unit in units)
    film = tmp_path / "S2/Seq2/imageSequence/video_0.avi"
    entry = {"path": "S2/Seq2/imageSequence/video_0.avi", "bytes": film.stat().st_size}
    assert units[8].sources[1] == {**entry, "modified": film.stat().st_mtime_ns}
    assert units[8].sources[0]["bytes"] == (tmp_path / "S2/Seq2/annot.mat").stat().st_size


def test_joints_are_found_by_name_and_millimetres_become_metres(tmp_path: Path, body: Body) -> None:
    write_sequence(tmp_path, cameras=(0, 1))
    found = clips_of(tmp_path, body, at=1)
    (clip,), counts = found.clips, found.counts
    keypoints2d, joints3d = person(24, TRAIN_ORDER, camera=1)
    middle = joints3d[:, [TRAIN_ORDER.index("rhip"), TRAIN_ORDER.index("lhip")]].mean(1)
    for name in MAPPED:
        slot, source = SPIN49.index(name), TRAIN_ORDER.index(name)
        assert np.allclose(clip.keypoints2d[:, slot, :2], keypoints2d[:, source])
        assert np.allclose(clip.joints3d[:, slot], (joints3d[:, source] - middle) / 1000, atol=1e-9)
    assert len(MAPPED) == 17 and (clip.keypoints2d[..., 2].sum(1) == 17).all()
    missing = [slot for slot, name in enumerate(SPIN49) if name not in MAPPED]
    assert not clip.joints3d_valid[:, missing].any() and clip.joints3d_valid[:, R_HIP].all()
    assert not clip.joints3d[:, missing].any() and not clip.keypoints2d[:, missing].any()
    assert clip.has_3d.all() and not clip.has_smpl.any() and not clip.pose.any() and clip.valid.all()
    assert (clip.track_id, clip.fps, clip.gender, clip.crop_scale) == ("subj1_seq1_vid1_seg0", 25.0, "neutral", 1.2)
    assert clip.image[0] == "S1/Seq1/video_1/000001.jpg" and clip.frame_index[0] == 0
    assert counts["rows"] == 24 and counts["annotation_rows"] == 26 and MPI28 == TRAIN_ORDER


def test_the_box_is_around_the_17_joints_only(tmp_path: Path, body: Body) -> None:
    write_sequence(tmp_path, cameras=(0,))
    clip = clips_of(tmp_path, body).clips[0]
    points = person(24, MAPPED)[0]
    low, high = points.min(1), points.max(1)
    assert np.allclose(clip.bbox[:, :2], (low + high) / 2)
    assert np.allclose(clip.bbox[:, 2], 1.1 * (high - low).max(1)) and np.array_equal(clip.bbox[:, 2], clip.bbox[:, 3])


def test_reference_has_missing_joints_at_minus_the_pelvis(tmp_path: Path, body: Body) -> None:
    write_sequence(tmp_path, cameras=(0,))
    clip = clips_of(tmp_path, body, "reference").clips[0]
    hip = person(24, ["hip"])[1] / 1000
    assert np.allclose(clip.joints3d[:, 0], -hip[:, 0]) and np.allclose(clip.joints3d[:, HIP], 0)
    assert not clip.joints3d_valid[:, 0].any()


def test_rows_beyond_the_pictures_and_pictures_beyond_the_rows_are_counted(tmp_path: Path, body: Body) -> None:
    write_sequence(tmp_path, frames=20, rows=29, cameras=(0,))
    write_sequence(tmp_path, subject=2, frames=20, rows=18, cameras=(0,))
    write_test(tmp_path, subject=4, frames=20, rows=18)
    found = clips_of(tmp_path, body)
    (clip,), counts = found.clips, found.counts
    assert len(clip) == 20 and (counts["rows_without_picture"], counts["pictures_without_row"]) == (9, 0)
    for split, at in (("train", 8), ("test", 0)):
        for preprocessing in ("corrected", "reference"):
            found = clips_of(tmp_path, body, preprocessing, split=split, at=at)
            (clip,), counts = found.clips, found.counts
            assert len(clip) == 18 and (counts["rows_without_picture"], counts["pictures_without_row"]) == (0, 2)


def test_a_lost_picture_does_not_move_the_labels_of_the_others(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, cameras=(0,))
    (folder / "video_0" / "000006.jpg").unlink()
    first, second = clips_of(tmp_path, body).clips
    assert rows_of([first, second]) == [list(range(5)), list(range(6, 24))]
    keypoints2d = person(24, ["neck"])[0]
    assert second.image[0] == "S1/Seq1/video_0/000007.jpg"
    assert np.allclose(second.keypoints2d[0, SPIN49.index("neck"), :2], keypoints2d[6, 0])
    (clip,) = clips_of(tmp_path, body, "reference").clips
    assert clip.image[5] == "S1/Seq1/video_0/000007.jpg"
    assert np.allclose(clip.keypoints2d[5, SPIN49.index("neck"), :2], keypoints2d[5, 0])


def test_pictures_numbered_from_zero_and_other_names(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, frames=6, cameras=(0, 1))
    for camera, name in ((0, "frame_{:06d}.jpg"), (1, "{:06d}.jpg")):
        (folder / "imageFrames").mkdir(exist_ok=True)
        moved = (folder / f"video_{camera}").rename(folder / "imageFrames" / f"video_{camera}")
        for number, path in enumerate(sorted(moved.iterdir())):
            path.rename(moved / name.format(number + (camera == 0)))
    for at in (0, 1):
        clip = clips_of(tmp_path, body, at=at).clips[0]
        expected = person(6, ["neck"], camera=at)[0][:, 0]
        assert np.allclose(clip.keypoints2d[:, SPIN49.index("neck"), :2], expected) and clip.frame_index[0] == 0
    assert clip.image[0] == "S1/Seq1/imageFrames/video_1/000000.jpg"


def test_cells_are_found_by_camera_not_by_place(tmp_path: Path, body: Body) -> None:
    data = annotations(26)
    order = np.random.default_rng(0).permutation(14)
    for name in ("annot2", "annot3"):
        data[name] = data[name][order]
    data["cameras"] = order[None].astype(np.float64)
    write_sequence(tmp_path, cameras=(5,), data=data)
    clip = clips_of(tmp_path, body, at=CAMERAS.index(5)).clips[0]
    assert np.allclose(clip.keypoints2d[:, SPIN49.index("neck"), :2], person(24, ["neck"], camera=5)[0][:, 0])


def test_a_camera_without_pictures_or_without_labels_is_reported(tmp_path: Path, body: Body) -> None:
    data = annotations(26)
    data["cameras"][0, 1] = 99
    folder = write_sequence(tmp_path, cameras=(0, 1), data=data)
    with pytest.raises(InputError, match="annot.mat#1: no camera 1 among"):
        clips_of(tmp_path, body, at=1)
    with pytest.raises(InputError, match="S1/Seq1/video_2: there is no such folder, and no video"):
        clips_of(tmp_path, body, at=2)
    (folder / "video_4").mkdir()
    with pytest.raises(InputError, match="S1/Seq1/video_4: no pictures in it"):
        clips_of(tmp_path, body, at=3)
    (folder / "annot.mat").unlink()
    with pytest.raises(InputError, match="annot.mat#0: there is no such file"):
        clips_of(tmp_path, body)


def test_every_frame_left_out_ends_a_segment_and_each_video_numbers_its_segments(tmp_path: Path, body: Body) -> None:
    data = annotations(42)
    outside(data, 0, [0, 20, 21])
    outside(data, 1, [0, 30])
    write_sequence(tmp_path, frames=40, cameras=(0, 1), data=data)
    found = clips_of(tmp_path, body)
    clips, counts = found.clips, found.counts
    assert rows_of(clips) == [list(range(1, 20)), list(range(22, 40))]
    assert [clip.track_id for clip in clips] == ["subj1_seq1_vid0_seg0", "subj1_seq1_vid0_seg1"]
    assert (counts["rows_outside_picture"], counts["segments"], counts["segments_under_16_frames"]) == (3, 2, 0)
    found = clips_of(tmp_path, body, at=1)
    clips, counts = found.clips, found.counts
    assert [clip.track_id for clip in clips] == ["subj1_seq1_vid1_seg0", "subj1_seq1_vid1_seg1"]
    assert counts["segments_under_16_frames"] == 1


def test_reference_segments_continue_from_the_last_stored_name(tmp_path: Path, body: Body) -> None:
    data = annotations(42)
    outside(data, 0, [20, 21])
    outside(data, 1, [0, 1, 30])
    outside(data, 2, list(range(42)))
    outside(data, 4, [0])
    write_sequence(tmp_path, frames=40, cameras=(0, 1, 2, 4, 5), data=data)
    names = [[clip.track_id for clip in clips_of(tmp_path, body, "reference", at=at).clips] for at in range(5)]
    assert names == [
        ["subj1_seq1_vid0_seg0", "subj1_seq1_vid0_seg1"],
        ["subj1_seq1_vid0_seg2", "subj1_seq1_vid0_seg3"],
        [],
        ["subj1_seq1_vid0_seg4"],
        ["subj1_seq1_vid5_seg0"],
    ]


def test_reference_continues_if_the_very_first_frame_is_left_out(tmp_path: Path, body: Body) -> None:
    data = annotations(42)
    outside(data, 0, [0, 5])
    write_sequence(tmp_path, frames=40, cameras=(0,), data=data)
    assert [clip.track_id for clip in clips_of(tmp_path, body, "reference").clips] == [
        "subj1_seq1_vid0_seg0",
        "subj1_seq1_vid0_seg1",
    ]


def test_the_picture_ends_before_its_width(tmp_path: Path, body: Body) -> None:
    data = annotations(6)
    wrist = 2 * TRAIN_ORDER.index("lwrist")
    data["annot2"][0, 0][0, wrist : wrist + 2] = 0, SIZE - 0.5
    data["annot2"][0, 0][2, wrist] = SIZE
    data["annot2"][0, 0][4, wrist + 1] = -0.01
    data["annot2"][0, 0][:, 2 * TRAIN_ORDER.index("left_hand")] = -50  # not one of the 17
    write_sequence(tmp_path, frames=6, cameras=(0,), data=data)
    assert rows_of(clips_of(tmp_path, body).clips) == [[0, 1], [3], [5]]


def test_every_second_frame_of_50_fps_videos_is_kept(tmp_path: Path, body: Body) -> None:
    data = annotations(42)
    outside(data, 0, [7, 12])  # 7 is not read
    write_sequence(tmp_path, sequence=2, frames=40, cameras=(0,), data=data)
    found = clips_of(tmp_path, body)
    clips, counts = found.clips, found.counts
    assert rows_of(clips) == [list(range(0, 12, 2)), list(range(14, 40, 2))]
    assert clips[0].fps == 50.0 and counts["rows_left_out_for_25_fps"] == 20
    neck = person(40, ["neck"])[0][:, 0]
    assert np.allclose(clips[1].keypoints2d[:, SPIN49.index("neck"), :2], neck[14::2])
    assert rows_of(clips_of(tmp_path, body, "reference").clips) == [[*range(7)], [*range(8, 12)], [*range(13, 40)]]


def test_rows_without_numbers_or_without_a_person_are_left_out_and_counted(tmp_path: Path, body: Body) -> None:
    data = annotations(26)
    data["annot2"][0, 0][3, 2 * TRAIN_ORDER.index("neck")] = np.nan
    data["annot2"][0, 0][4, 2 * TRAIN_ORDER.index("neck")] = np.inf
    data["annot2"][0, 0][9] = 0
    data["annot2"][0, 0][11] = 33
    data["annot3"][0, 0][15, 20] = np.nan
    data["annot3"][0, 0][16] = 0
    write_sequence(tmp_path, cameras=(0,), data=data)
    found = clips_of(tmp_path, body)
    clips, counts = found.clips, found.counts
    assert rows_of(clips) == [[0, 1, 2], [5, 6, 7, 8], [10], list(range(12, 24))]
    assert (counts["rows_not_finite"], counts["rows_without_box"], counts["rows_without_3d"]) == (2, 2, 2)
    assert clips[3].has_3d.tolist() == [True] * 3 + [False] * 2 + [True] * 7
    assert not clips[3].joints3d[3:5].any() and not clips[3].joints3d_valid[3:5].any()
    accounted = sum(counts[key] for key in counts if key.startswith("rows_") and key != "rows_without_3d")
    assert accounted + counts["rows"] == counts["annotation_rows"]
    for clip in [*clips, *clips_of(tmp_path, body, "reference").clips]:
        assert np.isfinite(clip.joints3d).all() and (clip.bbox[:, 2] > 0).all()


def test_the_test_split_is_matlab_7_3_scored_against_the_universal_skeleton(tmp_path: Path, body: Body) -> None:
    annotation = write_test(tmp_path, subject=5)
    with pytest.raises(NotImplementedError):
        scipy.io.loadmat(annotation)
    assert annotation.read_bytes()[:10] == b"MATLAB 7.3" and annotation.read_bytes()[512:516] == b"\x89HDF"
    (unit,) = find_units(tmp_path, "test")
    found = decode(tmp_path, unit, body, "corrected")
    (clip,), counts = found.clips, found.counts
    keypoints2d, joints3d = person(24, TEST_ORDER)
    middle = joints3d[:, [TEST_ORDER.index("rhip"), TEST_ORDER.index("lhip")]].mean(1)
    for name in TEST_ORDER:
        slot, source = SPIN49.index(name), TEST_ORDER.index(name)
        assert np.allclose(clip.keypoints2d[:, slot, :2], keypoints2d[:, source])
        assert np.allclose(clip.joints3d[:, slot], 0.9 * (joints3d[:, source] - middle) / 1000)
    assert clip.joints3d_valid.sum() == 17 * 24 and counts["rows"] == 24
    assert clip.image[0] == "mpi_inf_3dhp_test_set/TS5/imageSequence/img_000001.jpg"
    assert clip.track_id == "subj5_seg0"


def test_frames_that_are_not_valid_are_kept_and_marked(tmp_path: Path, body: Body) -> None:
    write_test(tmp_path)
    for preprocessing in ("corrected", "reference"):
        clip = clips_of(tmp_path, body, preprocessing, split="test").clips[0]
        assert clip.valid.tolist() == [frame % 3 == 0 for frame in range(24)] and clip.has_3d.all()


def test_pictures_come_out_of_the_videos(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, frames=20, rows=22, cameras=(0,), film=True)
    found = clips_of(tmp_path, body)
    (clip,), counts = found.clips, found.counts
    assert clip.image[3] == "S1/Seq1/imageSequence/video_0.avi#3" and counts["rows_without_picture"] == 2
    seen = list(read_crops(tmp_path, [clip]))
    assert [frame.image for frame in seen] == list(clip.image) and not any(frame.reason for frame in seen)
    path = folder / "imageSequence" / "video_0.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the header still promises 20
    found = clips_of(tmp_path, body)
    (clip,), counts = found.clips, found.counts
    seen = list(read_crops(tmp_path, [clip]))
    lost = sum(bool(frame.reason) for frame in seen)
    assert len(seen) == 20 and 5 < lost < 15 and all(f"after {20 - lost} frames" in f.reason for f in seen[-lost:])


def test_a_video_that_cannot_be_opened_is_reported(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, frames=20, cameras=(0,), film=True)
    (folder / "imageSequence" / "video_0.avi").write_bytes(b"RIFF")
    assert find_units(tmp_path, "train")[0].frames == 0
    with pytest.raises(InputError, match="video_0.avi: not a readable video"):
        clips_of(tmp_path, body)


def test_pictures_of_another_size_than_labelled_are_refused(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, frames=3, cameras=(0,))
    for path in (folder / "video_0").iterdir():
        cv2.imwrite(str(path), np.zeros((SIZE // 2, SIZE // 2, 3), np.uint8))
    with pytest.raises(InputError, match="64x64 px, but labelled for 128x128"):
        clips_of(tmp_path, body)


def test_the_size_is_that_of_the_first_readable_picture_and_without_any_it_is_an_error(
    tmp_path: Path, body: Body
) -> None:
    folder = write_sequence(tmp_path, frames=3, cameras=(0,))
    pictures = sorted((folder / "video_0").iterdir())
    pictures[0].write_bytes(b"")
    assert len(clips_of(tmp_path, body).clips[0]) == 3
    for path in pictures:
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 3 pictures can be read"):
        clips_of(tmp_path, body)


def test_two_pictures_of_one_number_are_refused(tmp_path: Path, body: Body) -> None:
    folder = write_sequence(tmp_path, frames=3, cameras=(0,))
    (folder / "video_0" / "frame_000002.jpg").write_bytes((folder / "video_0" / "000002.jpg").read_bytes())
    with pytest.raises(InputError, match="000002.jpg and frame_000002.jpg have the same number"):
        clips_of(tmp_path, body)


def test_folders_without_the_dataset_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="must hold S1 to S8"):
        find_units(tmp_path, "train")
    with pytest.raises(InputError, match="must hold mpi_inf_3dhp_test_set/TS1 to TS6"):
        find_units(tmp_path, "test")


def test_the_tiny_dataset_is_whole(tmp_path: Path, body: Body) -> None:
    write_dataset(tmp_path, cameras=(0, 8))
    for split in ("train", "test"):
        decoded = [
            decode(tmp_path, unit, body, "corrected").clips for unit in find_units(tmp_path, split) if unit.frames
        ]
        assert len(decoded) == (4 if split == "train" else 2)
        assert all(len(clips) == 1 and len(clips[0]) == 20 for clips in decoded)
