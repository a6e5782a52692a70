"""The Penn Action decoder: joints and labels go where they belong, and every broken file is reported."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import loadmat

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import COMMON14, SPIN49
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.penn_action import decode, find_units
from tests.fixtures.penn_action import labels, write_dataset, write_labels, write_video

# The source's order, as its README lists it.
ORDER = ("head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
         "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")  # fmt: skip


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_video(tmp_path, "0001")
    return tmp_path


def decoded(root: Path, body: Body, preprocessing: str = "corrected") -> tuple[Clip, dict[str, int]]:
    found = decode(root, find_units(root, "train")[0], body, preprocessing)
    (clip,), counts = found.clips, found.counts
    return clip, counts


def test_the_fixture_is_as_matlab_writes_it(root: Path) -> None:
    path = root / "labels" / "0001.mat"
    assert path.read_bytes().startswith(b"MATLAB 5.0 MAT-file")
    content = loadmat(path)
    assert content["nframes"].dtype == np.uint8 and content["x"].shape == (12, 13) and content["train"] == 1


def test_splits_are_the_sources_flag_in_both_its_ways(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "labels" / "notes.txt").write_text("")
    assert [unit.name for unit in find_units(tmp_path, "train")] == ["0001", "0003"]
    assert [unit.name for unit in find_units(tmp_path, "test")] == ["0002", "0004"]
    unit = find_units(tmp_path, "test")[0]
    assert Unit.from_json(unit.to_json()) == unit and unit.frames == 22
    label = (tmp_path / "labels/0002.mat").stat()
    assert unit.sources[0] == {"path": "labels/0002.mat", "bytes": label.st_size, "modified": label.st_mtime_ns}
    assert unit.sources[1] == {"path": "frames/0002", "files": 22}


def test_every_joint_lands_in_its_own_slot(root: Path, body: Body) -> None:
    clip, _ = decoded(root, body)
    content = labels()
    for index, name in enumerate(ORDER):
        slot = SPIN49.index(name.replace("left_", "l").replace("right_", "r") if "_" in name else "headtop")
        assert np.array_equal(clip.keypoints2d[2, slot], [content["x"][2, index], content["y"][2, index], 1])
    assert clip.keypoints2d[2, :, 2].sum() == 13 and not clip.keypoints2d[:, SPIN49.index("neck")].any()
    # The reference reads its files in the source's order, so the top of the head gets the place of an ankle.
    heights = {name: clip.keypoints2d[2, SPIN49.index(name), 1] for name in COMMON14 if name != "neck"}
    assert min(heights, key=lambda name: heights[name]) == "headtop"
    assert heights["rankle"] - heights["headtop"] > 30


def test_there_is_no_3d_and_every_frame_has_its_picture(root: Path, body: Body) -> None:
    clip, counts = decoded(root, body)
    assert not (clip.has_3d.any() or clip.has_smpl.any() or clip.joints3d_valid.any())
    assert not (clip.joints3d.any() or clip.pose.any() or clip.betas.any()) and clip.valid.all()
    assert clip.frame_index.tolist() == list(range(12)) and clip.image[0] == "frames/0001/000001.jpg"
    assert all((root / image).is_file() for image in clip.image) and np.isfinite(clip.fps)
    assert (clip.gender, clip.crop_scale, clip.track_id) == ("neutral", 1.2, "0001")
    assert counts == {
        "pictures": 12, "rows": 12, "pictures_without_labels": 0, "labels_without_picture": 0, "rows_without_box": 0,
        "joints_not_finite": 0,
    }  # fmt: skip


def test_boxes_are_around_what_is_visible(root: Path, body: Body) -> None:
    content = labels()
    clip, reference = decoded(root, body)[0], decoded(root, body, "reference")[0]
    points = np.stack([content["x"], content["y"]], -1)
    for frame, joints in ((2, points[2]), (4, points[4, :11])):
        low, high = joints.min(0), joints.max(0)
        assert np.allclose(clip.bbox[frame], [*(low + high) / 2, *[(high - low).max()] * 2])
    assert np.allclose(reference.bbox[2], clip.bbox[2])
    assert reference.bbox[4, 2] > 200  # the hidden ankles, which are far away
    assert not clip.keypoints2d[4, [SPIN49.index("lankle"), SPIN49.index("rankle")], 2].any()


def test_the_references_boxes_leave_out_zeros_only(root: Path, body: Body) -> None:
    content = labels()
    content["x"][2, 0] = 0  # visible, but on the picture's edge
    write_labels(root, "0001", content)
    clip, reference = decoded(root, body)[0], decoded(root, body, "reference")[0]
    assert clip.bbox[2, 0] < reference.bbox[2, 0] and clip.bbox[2, 2] > reference.bbox[2, 2]


def test_labels_stay_with_their_own_pictures(root: Path, body: Body) -> None:
    (root / "frames" / "0001" / "000004.jpg").unlink()
    (root / "frames" / "0001" / "000012.jpg").rename(root / "frames" / "0001" / "000013.jpg")
    clip, counts = decoded(root, body)
    assert clip.frame_index.tolist() == [0, 1, 2, *range(4, 11)]
    assert clip.image[3] == "frames/0001/000005.jpg" and clip.image[-1] == "frames/0001/000011.jpg"
    assert clip.keypoints2d[-1, SPIN49.index("headtop"), 0] == labels()["x"][10, 0]
    assert (counts["labels_without_picture"], counts["pictures_without_labels"], counts["rows"]) == (2, 1, 10)


def test_two_hundred_frames_do_not_overflow_a_byte(tmp_path: Path, body: Body) -> None:
    write_labels(tmp_path, "0001", labels(200))
    (tmp_path / "frames" / "0001").mkdir(parents=True)
    for frame in range(200):
        (tmp_path / "frames" / "0001" / f"{frame + 1:06d}.jpg").touch()
    assert len(decoded(tmp_path, body)[0]) == 200


def test_frames_without_a_box_are_left_out_and_counted(root: Path, body: Body) -> None:
    content = labels()
    content["visibility"][3] = 0
    content["visibility"][5, 1:] = 0  # one point has no size
    content["x"][7], content["y"][7] = 20, 20
    write_labels(root, "0001", content)
    clip, counts = decoded(root, body)
    assert clip.frame_index.tolist() == [0, 1, 2, 4, 6, 8, 9, 10, 11]
    assert counts["rows_without_box"] == 3 and counts["rows"] == 9 and (clip.bbox[:, 2] > 0).all()
    write_labels(root, "0001", content | {"visibility": np.zeros((12, 13), np.uint8)})
    found = decode(root, find_units(root, "train")[0], body, "corrected")
    clips, counts = found.clips, found.counts
    assert clips == [] and counts["rows_without_box"] == 12


def test_a_joint_that_is_not_finite_costs_only_that_joint(root: Path, body: Body) -> None:
    content = labels()
    content["x"][2, 5] = np.nan
    content["y"][6] = np.inf
    write_labels(root, "0001", content)
    for preprocessing in ("corrected", "reference"):
        clip, counts = decoded(root, body, preprocessing)
        assert 6 not in clip.frame_index and len(clip) == 11 and counts["joints_not_finite"] == 14
        assert np.isfinite(clip.keypoints2d).all() and np.isfinite(clip.bbox).all()
        assert not clip.keypoints2d[2, SPIN49.index("lwrist")].any() and clip.keypoints2d[2, :, 2].sum() == 12


def without(name: str) -> dict[str, Any]:
    content = labels()
    del content[name]
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (without("x"), "no x in it"),
        (without("train"), "no train in it"),
        (labels() | {"y": np.zeros((11, 13))}, r"y is \(11, 13\), expected \(12, 13\)"),
        (labels() | {"x": np.zeros((12, 14))}, r"x is \(12, 14\), expected \(12, 13\)"),
        (labels() | {"visibility": np.ones(12)}, r"visibility is \(1, 12\)"),
        (labels() | {"x": np.array([["a", 1]], object)}, "x is not an array of numbers"),
        (labels() | {"train": np.zeros((0, 0))}, "its split is not known"),
        (labels() | {"train": np.array([[np.nan]])}, "its split is not known"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_file_is_reported(root: Path, body: Body, content: dict[str, Any], reason: str) -> None:
    write_labels(root, "0001", content)
    write_video(root, "0002", train=-1)
    assert [unit.name for unit in find_units(root, "test")] == ["0002"]
    with pytest.raises(InputError, match=reason) as error:
        decoded(root, body)
    assert "labels/0001.mat" in str(error.value)


def test_unreadable_files_are_listed_and_named(root: Path, body: Body) -> None:
    path = root / "labels" / "0001.mat"
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], content[:100], b"", b"\x80\x02cos\nsystem\n(S'false'\ntR." * 20):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"labels/0001.mat: (not a readable MATLAB v5 file|no )"):
            decoded(root, body)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = np.zeros((13, 12))
    user_block = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(user_block.ljust(512, b"\0") + path.read_bytes()[512:])
    with pytest.raises(InputError, match="not a readable MATLAB v5 file .NotImplementedError"):
        decoded(root, body)
    path.unlink()
    with pytest.raises(InputError, match="labels/0001.mat: there is no such file"):
        decoded(root, body)


def test_folders_without_usable_pictures_are_refused(root: Path, body: Body) -> None:
    folder = root / "frames" / "0001"
    (folder / "000001.jpg").rename(folder / "000000.jpg")
    with pytest.raises(InputError, match="frames/0001: its pictures are numbered from 0"):
        decoded(root, body)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="frames/0001: no pictures"):
        decoded(root, body)
    folder.rmdir()
    with pytest.raises(InputError, match="frames/0001: No such file or directory, but labels/0001.mat"):
        decoded(root, body)


def test_missing_folders_and_an_empty_split_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="labels: there is no such folder"):
        find_units(tmp_path, "train")
    (tmp_path / "labels").mkdir()
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match=r"no files such as 0001.mat"):
        find_units(tmp_path, "train")
    write_video(tmp_path, "0001")
    with pytest.raises(InputError, match="none of its 1 videos belongs to the test split"):
        find_units(tmp_path, "test")
