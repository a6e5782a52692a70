"""The Human3.6M decoder: which frame a picture shows, and in which frame of reference its labels are."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import SPIN49
from glot.people.boxes import keypoint_boxes
from pipelines.decoders import human36m_files
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.human36m import decode, find_units
from tests.fixtures.human36m import RELEASE, annotations, camera, edit, write_dataset, write_subject

NAME = "s_01_act_02_subact_01_ca_01"
SLOTS = [SPIN49.index(name) for name in RELEASE.values()]
HIP = SPIN49.index("hip")
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One subject, one sequence of 24 frames at 50 fps, one camera."""
    write_subject(tmp_path, 1, [(2, 1, 1)], frames=24)
    return tmp_path


def decoded(root: Path, body: Body, preprocessing: str = "corrected", split: str = "train") -> tuple[Clip, dict]:
    found = decode(root, find_units(root, split)[0], body, preprocessing)
    (clip,), counts = found.clips, found.counts
    return clip, counts


def world(root: Path) -> np.ndarray:
    """(N, 17, 3) mm, the joints as they are in the file."""
    frames = json.loads(annotations(root, 1, "joint_3d").read_text())["2"]["1"]
    return np.array([frames[str(i)] for i in range(len(frames))], np.float64)


def by_hand(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints of all frames in the frame of camera 1 (N, 17, 3) m, from its position, and in its picture (N, 17, 2)."""
    one = camera(1)
    points = (world(root) - one["centre"]) @ np.array(one["R"]).T / 1000
    return points, points[..., :2] / points[..., 2:] * one["f"] + one["c"]


def test_splits_are_the_subjects_and_one_camera(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_subject(tmp_path, 2, [(2, 1, 1)], frames=2)  # of no split
    (tmp_path / "images" / "s_01_notes").mkdir()
    names = {split: [unit.name for unit in find_units(tmp_path, split)] for split in ("train", "test", "test_front")}
    assert names["train"] == ["s_01_act_02_subact_01_ca_01", "s_01_act_02_subact_01_ca_04"]
    assert names["test"] == [f"s_{tail}" for tail in ("09_act_02_subact_01_ca_01", "09_act_02_subact_01_ca_04",
                                                      "11_act_02_subact_01_ca_04")]  # fmt: skip
    assert names["test_front"] == names["test"][1:]
    unit = find_units(tmp_path, "train")[0]
    assert Unit.from_json(unit.to_json()) == unit and unit.frames == 44
    assert unit.annotation in [source["path"] for source in unit.sources]
    joints = annotations(tmp_path, 1, "joint_3d").stat()
    assert {"path": "annotations/Human36M_subject1_joint_3d.json", "bytes": joints.st_size,
            "modified": joints.st_mtime_ns} in unit.sources  # fmt: skip


def test_finding_opens_no_annotations_and_decoding_reads_one_sequence(tmp_path: Path, body: Body) -> None:
    write_subject(tmp_path, 1, [(2, 1, 1), (3, 1, 1)], frames=24)
    path = annotations(tmp_path, 1, "joint_3d")
    other = path.read_text().index('"3": {"1"')
    path.write_text(path.read_text()[:other] + '"3": {"1": {' + "not JSON at all " * 400_000 + "}}}")
    tracemalloc.start()
    units = find_units(tmp_path, "train")
    clips = decode(tmp_path, units[0], body, "corrected").clips
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(clips) == 1 and path.stat().st_size > 6_000_000 and peak < path.stat().st_size
    with pytest.raises(InputError, match="action 3, subaction 1 is not readable as JSON"):
        decode(tmp_path, units[1], body, "corrected")


def test_a_file_is_scanned_once_and_again_when_it_changes(root: Path, body: Body) -> None:
    human36m_files._places.cache_clear()
    decoded(root, body)
    before = decoded(root, body)[0]
    assert human36m_files._places.cache_info().misses == 2  # joints and fits
    edit(root, "joint_3d", lambda d: d["2"]["1"].pop("0") and None)
    assert decoded(root, body)[0].frame_index[0] == 1 and before.frame_index[0] == 0


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_sequences_are_found_wherever_a_block_ends(
    root: Path, body: Body, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    edit(root, "joint_3d", lambda d: {"2": {"2": {"0": [[0, 0, 0]] * 17}, **d["2"]}, "15": {"1": {"0": [[1.0]]}}})
    places = human36m_files._places.__wrapped__
    path = annotations(root, 1, "joint_3d")
    whole = places(path, 0, 0)
    monkeypatch.setattr(human36m_files, "BLOCK", block)
    assert places(path, 0, 0) == whole and sorted(whole) == [(2, 1), (2, 2), (15, 1)]
    content = path.read_bytes()
    for (action, subaction), (start, stop) in whole.items():
        assert json.loads(content[start:stop]) == json.loads(content)[str(action)][str(subaction)]


def test_pictures_count_from_one_and_labels_from_zero(root: Path, body: Body) -> None:
    clip, counts = decoded(root, body)
    assert clip.image[0] == f"images/{NAME}/{NAME}_000001.jpg" and clip.image[3].endswith("_000007.jpg")
    assert clip.frame_index[3] == 6
    pixels = by_hand(root)[1]
    assert np.allclose(clip.keypoints2d[3, SLOTS, :2], pixels[6])
    assert not np.allclose(clip.keypoints2d[3, SLOTS, :2], pixels[7], atol=1e-2)
    assert all((root / image).is_file() for image in clip.image)
    assert counts["pictures_without_joints"] == counts["joints_without_picture"] == 0


def test_every_second_frame_with_the_boxes_of_all_frames(root: Path, body: Body) -> None:
    clip, counts = decoded(root, body)
    assert clip.frame_index.tolist() == list(range(0, 24, 2)) and clip.fps == 50 and counts["rows"] == 12
    pixels = by_hand(root)[1]
    keypoints = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], -1)
    assert np.allclose(clip.bbox, keypoint_boxes(keypoints, enlarge=1.1).bbox[::2])
    assert not np.allclose(clip.bbox, keypoint_boxes(keypoints[::2], enlarge=1.1).bbox, atol=0.1)
    assert (clip.gender, clip.crop_scale, clip.track_id) == ("neutral", 1.2, NAME) and clip.valid.all()


def test_joints_are_in_metres_in_the_camera_frame_relative_to_the_hips(root: Path, body: Body) -> None:
    clip, _ = decoded(root, body)
    points = by_hand(root)[0][::2]
    order = list(RELEASE.values())
    pelvis = points[:, [order.index("rhip"), order.index("lhip")]].mean(1, keepdims=True)
    assert np.allclose(clip.joints3d[:, SLOTS], points - pelvis)
    assert np.allclose(clip.joints3d[:, HIPS].mean(1), 0, atol=1e-9)
    assert clip.has_3d.all() and clip.keypoints2d[..., 2].sum() == 17 * len(clip)


def test_joints_the_source_lacks_are_zero_and_not_minus_the_pelvis(root: Path, body: Body) -> None:
    ours, reference = decoded(root, body)[0], decoded(root, body, "reference")[0]
    missing = np.setdiff1d(np.arange(49), SLOTS)
    for clip in (ours, reference):
        assert clip.joints3d_valid[:, SLOTS].all() and not clip.joints3d_valid[:, missing].any()
    assert not ours.joints3d[:, missing].any() and not ours.keypoints2d[:, missing].any()
    points = by_hand(root)[0][::2]
    assert np.allclose(reference.joints3d[:, missing], -points[:, :1])
    assert np.allclose(reference.joints3d[:, SLOTS], points - points[:, :1])
    assert not reference.joints3d[:, HIP].any()


def test_the_right_leg_comes_first(root: Path, body: Body) -> None:
    """A body with the clip's pose has every joint where the clip has it, so left and right are not swapped."""
    clip, _ = decoded(root, body)
    assert np.allclose(clip.joints3d[clip.has_smpl][:, SLOTS], posed(clip, body)[:, SLOTS], atol=1e-4)
    knees = clip.joints3d[:, SPIN49.index("rknee")] - clip.joints3d[:, SPIN49.index("lknee")]
    assert np.linalg.norm(knees, axis=-1).min() > 0.05  # so that a swap would show


def posed(clip: Clip, body: Body) -> np.ndarray:
    """The 49 joints of bodies with the clip's poses and betas, relative to the mean of the hips."""
    rotmats = Rotation.from_rotvec(clip.pose[clip.has_smpl].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    with torch.no_grad():
        betas = torch.from_numpy(clip.betas[clip.has_smpl]).float()
        joints = body.joints(torch.from_numpy(rotmats).float(), betas).numpy()
    return joints - joints[:, HIPS].mean(1, keepdims=True)


def test_the_root_is_rotated_from_the_world_into_the_camera_frame(root: Path, body: Body) -> None:
    clip, counts = decoded(root, body)
    fits = json.loads(annotations(root, 1, "SMPL_NeuralAnnot").read_text())["2"]["1"]
    for row in (0, 5):
        fit = np.array(fits[str(clip.frame_index[row])]["pose"]).reshape(24, 3)
        turned = np.array(camera(1)["R"]) @ Rotation.from_rotvec(fit[0]).as_matrix()
        assert np.allclose(Rotation.from_rotvec(clip.pose[row, 0]).as_matrix(), turned)
        assert np.allclose(clip.pose[row, 1:], fit[1:])
        assert np.allclose(clip.betas[row], fits[str(clip.frame_index[row])]["shape"])
    assert counts["smpl_in_camera_frame"] == 0


def test_a_missing_fit_costs_only_its_frame(root: Path, body: Body) -> None:
    edit(root, "SMPL_NeuralAnnot", lambda d: d["2"]["1"].pop("10") and None)
    edit(root, "SMPL_NeuralAnnot", lambda d: d["2"]["1"]["14"]["pose"].__setitem__(5, float("nan")))
    edit(root, "SMPL_NeuralAnnot", lambda d: d["2"]["1"]["16"].pop("shape") and None)
    clip, counts = decoded(root, body)
    assert clip.frame_index[~clip.has_smpl].tolist() == [8, 10, 14, 16]  # 7, 8 and 11 have no fit in the fixture
    assert not clip.pose[~clip.has_smpl].any() and not clip.betas[~clip.has_smpl].any()
    assert clip.has_3d.all() and len(clip) == 12
    assert (counts["rows_without_smpl"], counts["smpl_unreadable"]) == (4, 2)


def test_no_fits_at_all_leave_the_motion_capture(root: Path, body: Body) -> None:
    annotations(root, 1, "SMPL_NeuralAnnot").unlink()
    clip, counts = decoded(root, body)
    assert not clip.has_smpl.any() and clip.has_3d.all() and counts["rows_without_smpl"] == 12


def in_camera(fits: dict[str, Any]) -> dict[str, Any]:
    """Fits with the root in camera 1's frame."""
    out = {}
    for frame, fit in fits.items():
        pose = np.array(fit["pose"])
        root = Rotation.from_matrix(camera(1)["R"]) * Rotation.from_rotvec(pose[:3])
        out[frame] = {**fit, "pose": [*root.as_rotvec().tolist(), *pose[3:].tolist()]}
    return out


@pytest.mark.parametrize("level", [True, False], ids=["below cameras", "without cameras"])
def test_fits_in_the_camera_frame_are_not_rotated_again(root: Path, body: Body, level: bool) -> None:
    public, _ = decoded(root, body)

    def older(d: dict) -> None:
        fits = in_camera(d["2"]["1"])
        d["2"]["1"] = {"1": fits, "4": {"0": {"pose": [0.0] * 72, "shape": [0.0] * 10}}} if level else fits

    edit(root, "SMPL_NeuralAnnot", older)
    clip, counts = decoded(root, body)
    matrices = [Rotation.from_rotvec(one.pose[:, 0]).as_matrix() for one in (clip, public)]
    assert np.allclose(*matrices) and np.array_equal(clip.has_smpl, public.has_smpl)
    assert counts["smpl_in_camera_frame"] == clip.has_smpl.sum() > 0


def test_fits_in_the_world_frame_below_cameras_are_rotated(root: Path, body: Body) -> None:
    public, _ = decoded(root, body)
    edit(root, "SMPL_NeuralAnnot", lambda d: d["2"].update({"1": {"1": d["2"]["1"]}}))
    assert np.array_equal(decoded(root, body)[0].pose, public.pose)
    edit(root, "SMPL_NeuralAnnot", lambda d: d["2"].update({"1": {"3": d["2"]["1"]["1"]}}))
    with pytest.raises(InputError, match="neither frames nor camera 1"):
        decoded(root, body)


def test_fits_of_another_person_are_not_used(root: Path, body: Body) -> None:
    def upside_down(d: dict) -> None:
        for fit in d["2"]["1"].values():
            turned = Rotation.from_euler("y", 180, degrees=True) * Rotation.from_rotvec(fit["pose"][:3])
            fit["pose"][:3] = turned.as_rotvec().tolist()

    edit(root, "SMPL_NeuralAnnot", upside_down)
    clip, counts = decoded(root, body)
    assert not clip.has_smpl.any() and not clip.pose.any() and clip.has_3d.all()
    assert counts["smpl_disagrees"] > 0


def test_cameras_of_the_older_script_subtract_before_they_rotate(root: Path, body: Body) -> None:
    public, counts = decoded(root, body)
    assert counts["cameras_subtract_first"] == 0
    edit(root, "camera", lambda d: d["1"].update(t=camera(1)["centre"]))
    clip, counts = decoded(root, body)
    assert counts["cameras_subtract_first"] == 1
    for name in ("keypoints2d", "joints3d", "pose", "bbox"):
        assert np.allclose(getattr(clip, name), getattr(public, name), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop("1") and None, "no camera 1 in it"),
        (lambda d: [1], "no camera 1 in it"),
        (lambda d: d["1"].pop("f") and None, "camera 1 has no f"),
        (lambda d: d["1"].update(R=[[1, 0, 0], [0, 1, 0]]), "R of camera 1 is not"),
        (lambda d: d["1"].update(R=[[2, 0, 0], [0, 1, 0], [0, 0, 1]]), "R of camera 1 is not a rotation"),
        (lambda d: d["1"].update(R=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]]), "R of camera 1 is not a rotation"),
        (lambda d: d["1"].update(t=[float("nan"), 0, 0]), "t of camera 1 is not"),
        (lambda d: d["1"].update(f=[0, 110]), "f of camera 1 is not positive"),
        (lambda d: d["1"].update(t=[0, 0, -9000]), "does not see the person"),
    ],
)
def test_broken_cameras_are_refused(root: Path, body: Body, change: Any, reason: str) -> None:
    edit(root, "camera", change)
    with pytest.raises(InputError, match=reason) as error:
        decoded(root, body)
    assert "Human36M_subject1_camera.json" in str(error.value)


@pytest.mark.parametrize("kind", ["joint_3d", "SMPL_NeuralAnnot", "camera"])
def test_truncated_and_empty_files_are_refused(root: Path, body: Body, kind: str) -> None:
    path = annotations(root, 1, kind)
    content = path.read_bytes()
    for short, reason in ((content[: len(content) // 2], "cut short|not readable"), (b"", "empty|not readable")):
        path.write_bytes(short)
        with pytest.raises(InputError, match=reason) as error:
            decoded(root, body)
        assert path.name in str(error.value)
    if kind != "SMPL_NeuralAnnot":
        path.unlink()
        with pytest.raises(InputError, match=rf"{path.name}: No such file"):
            decoded(root, body)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: {"3": d["2"]}, "no joints of action 2, subaction 1"),
        (lambda d: [1, 2], "no joints of action 2"),
        (lambda d: d["2"]["1"].update({"4": [[0.0] * 3] * 16}), r"joints of frame 4 .* are \(16, 3\)"),
        (lambda d: d["2"]["1"].update({"4": [[0.0], [1.0, 2.0]]}), "frame '4' .* holds no joints"),
        (lambda d: d["2"]["1"].update({"x": [[0.0] * 3] * 17}), "frame 'x' .* holds no joints"),
        (lambda d: {"2": {"1": {"90": [[0.0] * 3] * 17}}}, "for any of the 24 pictures"),
        (lambda d: {"2": {"1": {"3": [[None] * 3] * 17}}}, "for any of the 24 pictures"),
    ],
)
def test_broken_joints_are_refused(root: Path, body: Body, change: Any, reason: str) -> None:
    edit(root, "joint_3d", change)
    with pytest.raises(InputError, match=reason):
        decoded(root, body)


def test_a_joint_that_is_not_a_number_costs_only_that_joint(root: Path, body: Body) -> None:
    knee, hip = list(RELEASE).index("R_Knee"), list(RELEASE).index("L_Hip")
    edit(root, "joint_3d", lambda d: d["2"]["1"]["4"].__setitem__(knee, [float("nan"), 1.0, 2.0]))
    edit(root, "joint_3d", lambda d: d["2"]["1"]["6"].__setitem__(hip, [None] * 3))
    edit(root, "joint_3d", lambda d: d["2"]["1"]["8"].__setitem__(knee, [float("inf"), 1.0, 2.0]))
    clip, counts = decoded(root, body)
    slot = SPIN49.index("rknee")
    assert (
        counts["joints_not_finite"] == 3
        and not clip.joints3d_valid[4, slot]
        and clip.frame_index.tolist() == list(range(0, 24, 2))
    )
    assert not clip.joints3d_valid[2, slot] and not clip.joints3d[2, slot].any() and clip.has_3d.all()
    assert not clip.keypoints2d[2, slot].any() and clip.joints3d_valid[2].sum() == 16
    # Without one of the hips, the pelvis is the joint called hip, not the other hip.
    assert not clip.joints3d[3, HIP].any() and clip.joints3d[2, HIP].any()
    for name in ("bbox", "joints3d", "keypoints2d", "pose"):
        assert np.isfinite(getattr(clip, name)).all()


def test_a_frame_without_a_pelvis_has_no_3d(root: Path, body: Body) -> None:
    edit(root, "joint_3d", lambda d: d["2"]["1"].update({"4": [[None] * 3] * 7 + d["2"]["1"]["4"][7:]}))
    for preprocessing in ("corrected", "reference"):
        clip, _ = decoded(root, body, preprocessing)
        assert clip.has_3d.tolist() == [True, True, False] + [True] * 9 and not clip.joints3d[2].any()
        assert clip.keypoints2d[2, :, 2].sum() == 10


def test_labels_without_pictures_and_pictures_without_labels_are_counted(root: Path, body: Body) -> None:
    pixels = by_hand(root)[1]
    edit(root, "joint_3d", lambda d: d["2"]["1"].update({str(i): d["2"]["1"]["0"] for i in (24, 25, 26)}))
    edit(root, "joint_3d", lambda d: [d["2"]["1"].pop(str(i)) for i in (4, 5)] and None)
    (root / "images" / NAME / f"{NAME}_000011.jpg").unlink()  # frame 10
    clip, counts = decoded(root, body)
    assert clip.frame_index.tolist() == [0, 2, 6, 8, *range(12, 24, 2)]  # labels stay with their own pictures
    assert np.allclose(clip.keypoints2d[-1, SLOTS, :2], pixels[22])
    assert counts["pictures"] == 23 and counts["pictures_without_joints"] == 2
    assert counts["joints_without_picture"] == 4 and counts["rows"] == 10


def test_reference_boxes_have_the_zero_padded_median(root: Path, body: Body) -> None:
    pixels = by_hand(root)[1]
    keypoints = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], -1)
    reference = decoded(root, body, "reference")[0]
    assert np.allclose(reference.bbox, keypoint_boxes(keypoints, enlarge=1.1, zero_padded=True).bbox[::2])
    assert np.abs(reference.bbox - decoded(root, body)[0].bbox).max() > 0.5


def test_the_old_medians_infinite_boxes_are_counted(tmp_path: Path, body: Body) -> None:
    write_subject(tmp_path, 1, [(2, 1, 1)], frames=5)
    unit = find_units(tmp_path, "train")[0]
    found = decode(tmp_path, unit, body, "reference")
    clips, counts = found.clips, found.counts
    assert clips == [] and counts["rows_without_box"] == 3 and counts["rows"] == 0
    clip, counts = decoded(tmp_path, body)
    assert len(clip) == 3 and counts["rows_without_box"] == 0


def test_the_damaged_video_of_subject_11_is_named(tmp_path: Path, body: Body) -> None:
    write_subject(tmp_path, 11, [(2, 2, 1), (2, 2, 4)], frames=4)
    damaged, fine = find_units(tmp_path, "test")
    with pytest.raises(InputError, match="s_11_act_02_subact_02_ca_01: this video is damaged"):
        decode(tmp_path, damaged, body, "corrected")
    assert len(decode(tmp_path, fine, body, "corrected").clips) == 1


def test_folders_without_usable_pictures_are_refused(root: Path, body: Body) -> None:
    unit = find_units(root, "train")[0]
    folder = root / "images" / NAME
    (folder / f"{NAME}_000001.jpg").rename(folder / f"{NAME}_000000.jpg")
    with pytest.raises(InputError, match="numbered from 0"):
        decode(root, unit, body, "corrected")
    for path in folder.iterdir():
        path.rename(path.with_name("frame" + path.name))
    with pytest.raises(InputError, match=f"{NAME}: no pictures"):
        decode(root, unit, body, "corrected")
    folder.rename(root / "gone")
    with pytest.raises(InputError, match=f"{NAME}: No such file"):
        decode(root, unit, body, "corrected")


def test_missing_folders_and_an_empty_split_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_units(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="images: there is no such folder"):
        find_units(tmp_path, "train")
    write_subject(tmp_path, 1, [(2, 1, 1)], frames=2)
    with pytest.raises(InputError, match="of subjects 9, 11"):
        find_units(tmp_path, "test")
