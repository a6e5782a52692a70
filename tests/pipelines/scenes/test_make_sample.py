"""pipelines/scenes: the layout of 3DPW, labels that fit the pictures, and no unfinished file that looks whole."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import SMPL_MIRROR, SPIN49, THREEDPW_2D
from glot.human.safe_pickle import load_pickle
from pipelines.decoders.threedpw import THREEDPW
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.motions.random_motion import random_chain
from pipelines.scenes import filming
from pipelines.scenes.camera_paths import look_at, random_camera
from pipelines.scenes.posed_person import floor_lift, pose_person
from pipelines.scenes.render_processes import RenderSource
from pipelines.scenes.sample_dataset import build_sample
from pipelines.scenes.sequence import cast_people, render_sequence
from pipelines.scenes.sequence_plan import hash_of_clips, plan_sequences, split_clips
from pipelines.scenes.spec import MakeSampleSpec, SampleSettings
from pipelines.scenes.threedpw_annotations import misalign
from tests.fixtures.places import ROOT

KEYS = {
    "sequence", "betas", "betas_clothed", "poses", "trans", "poses_60Hz", "trans_60Hz", "genders", "texture_maps",
    "v_template_clothed", "poses2d", "jointPositions", "img_frame_ids", "cam_poses", "campose_valid", "cam_intrinsics",
}  # fmt: skip
SIZE = 160
TO_49 = [SPIN49.index(name) for name in THREEDPW_2D]


@pytest.fixture(scope="module")
def motions() -> dict[str, MotionClip]:
    return load_motions()


@pytest.fixture(scope="module")
def body() -> Body:
    torch.set_num_threads(1)
    return load_body()


def settings(motions: dict[str, MotionClip], **changes: int) -> SampleSettings:
    values = {"seed": 3, "sequences": 2, "image_size": SIZE} | changes
    return SampleSettings(**values, motions=hash_of_clips(motions), body=load_body().file_hash)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, motions: dict[str, MotionClip]) -> Path:
    """Two sequences; the seed is one that draws two people, an occlusion and a lost camera among them."""
    out = tmp_path_factory.mktemp("data") / "sample"
    build_sample(out, settings(motions), RenderSource(None, motions))
    return out


def records(sample: Path) -> list[dict]:
    files = sorted((sample / "sequenceFiles").rglob("*.pkl"))
    return [pickle.loads(file.read_bytes(), encoding="latin1") for file in files]  # made by this very test


def project(points: np.ndarray, record: dict, frame: int) -> tuple[np.ndarray, np.ndarray]:
    pose = record["cam_poses"][frame]
    local = points @ pose[:3, :3].T + pose[:3, 3]
    return (local / local[:, 2:] @ record["cam_intrinsics"].T)[:, :2], local[:, 2]


def posed(body: Body, record: dict, person: int) -> tuple[np.ndarray, np.ndarray]:
    """49 joints and 24 SMPL joints in the world frame, computed from the file alone: SMPL(pose, betas) + trans."""
    poses = record["poses"][person].reshape(-1, 3)
    rotmats = torch.tensor(Rotation.from_rotvec(poses).as_matrix().reshape(-1, 24, 3, 3), dtype=torch.float32)
    betas = torch.tensor(record["betas"][person], dtype=torch.float32).expand(len(rotmats), 10)
    out = body(rotmats, betas)
    move = record["trans"][person][:, None]
    return out.joints.numpy() + move, out.smpl_joints.numpy() + move


def test_layout_and_keys(sample: Path) -> None:
    assert {p.name for p in sample.iterdir()} == {
        "imageFiles", "sequenceFiles", "README.txt", "sample.json", "summary.json", "contact_sheet.jpg",
    }  # fmt: skip
    assert {p.name for p in (sample / "sequenceFiles").iterdir()} == {"train", "validation", "test"}
    assert len(records(sample)) == 2
    for record in records(sample):
        assert set(record) == KEYS and all(isinstance(key, str) for key in record)
        people, frames = len(record["poses"]), len(record["img_frame_ids"])
        images = sorted((sample / "imageFiles" / record["sequence"]).iterdir())
        assert [p.name for p in images] == [f"image_{i:05d}.jpg" for i in range(frames)]
        assert cv2.imread(str(images[0])).shape == (SIZE, SIZE, 3)
        for key in (
            "betas",
            "trans",
            "poses_60Hz",
            "genders",
            "poses2d",
            "jointPositions",
            "campose_valid",
            "texture_maps",
        ):
            assert len(record[key]) == people, key
        for p in range(people):
            assert record["poses"][p].shape == record["jointPositions"][p].shape == (frames, 72)
            assert record["poses"][p].dtype == np.float64
            assert record["poses2d"][p].shape == (frames, 3, 18) and record["trans"][p].shape == (frames, 3)
            assert record["campose_valid"][p].shape == (frames,) and record["betas"][p].shape == (10,)
            at_30 = record["poses_60Hz"][p][record["img_frame_ids"]]
            np.testing.assert_allclose(at_30[:, 3:], record["poses"][p][:, 3:], atol=1e-4)
            assert record["genders"][p] in ("m", "f")
        assert record["cam_poses"].shape == (frames, 4, 4) and record["cam_intrinsics"].shape == (3, 3)
        np.testing.assert_allclose(np.linalg.det(record["cam_poses"][:, :3, :3]), 1, atol=1e-6)


def test_the_pickles_are_python_2s_and_the_safe_reader_reads_them(sample: Path) -> None:
    for file in (sample / "sequenceFiles").rglob("*.pkl"):
        with pytest.raises(UnicodeDecodeError):
            pickle.loads(file.read_bytes())
        safe, plain = load_pickle(file), pickle.loads(file.read_bytes(), encoding="latin1")
        np.testing.assert_array_equal(safe["poses"][0], plain["poses"][0])


def test_2d_joints_are_the_projected_body_within_noise(sample: Path, body: Body) -> None:
    errors = []
    for record in records(sample):
        for p in range(len(record["poses"])):
            joints, smpl = posed(body, record, p)
            np.testing.assert_allclose(smpl.reshape(len(smpl), 72), record["jointPositions"][p], atol=1e-4)
            for frame in np.flatnonzero(record["campose_valid"][p]):
                x, y, confidence = record["poses2d"][p][frame]
                pixels, depth = project(joints[frame][TO_49], record, frame)
                sure = confidence > 0.5
                assert (depth[sure] > 0).all()
                errors += list(np.hypot(x - pixels[:, 0], y - pixels[:, 1])[sure])
                assert ((confidence > 0).sum() >= 6) or not record["poses2d"][p][frame].any()
                assert not record["poses2d"][p][frame][:, confidence == 0].any()
    assert len(errors) > 500
    assert 0.7 < np.mean(errors) < 2.5 and np.percentile(errors, 99) < 8


def test_where_the_camera_is_invalid_its_matrix_is_wrong(body: Body) -> None:
    pose = np.repeat(np.eye(4)[None], 80, axis=0)
    lost = 0
    for seed in range(30):
        wrong, valid = misalign(np.random.default_rng(seed), pose)
        np.testing.assert_array_equal(wrong[valid == 1], pose[valid == 1])
        assert (np.abs(wrong[valid == 0] - np.eye(4)).max(axis=(1, 2)) > 0.05).all()
        np.testing.assert_allclose(np.linalg.det(wrong[:, :3, :3]), 1)
        lost += valid.min() == 0
    assert 5 <= lost <= 18


def test_joints_fall_on_the_rendered_person(motions: dict[str, MotionClip], body: Body) -> None:
    """Limb joints that are reported as visible lie within the pixels of their person, or right at its edge."""
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(12):
        motion = random_chain(rng, motions, first="dance_b", frames=1)
        person = pose_person(body, motion, betas=np.zeros(10, np.float32), colours=np.ones((len(body.template), 3)))
        camera = random_camera(rng, [person], size=SIZE, fill=(0.7, 0.8), move="follow")
        scene, _ = filming.set_up_scene(rng, [person], camera, size=SIZE, body=body)
        scene.set_camera(camera.intrinsics, camera.world_to_camera[0])
        snapshot = scene.snapshot()
        pixels, visibility = filming.joint_visibility(person.joints[0], 0, snapshot, scene)
        near = cv2.dilate((snapshot.labels == 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        at = np.round(pixels[visibility == filming.VISIBLE]).astype(int)
        hits += list(near[at[:, 1], at[:, 0]])
        assert (visibility[[SPIN49.index("nose"), SPIN49.index("lhip")]] >= 0).all()
    assert len(hits) > 200 and np.mean(hits) > 0.97


def test_hidden_and_outside_joints_are_distinguished(motions: dict[str, MotionClip], body: Body) -> None:
    motion = MotionClip(np.zeros((1, 24, 3), np.float32), np.zeros((1, 3), np.float32))
    person = pose_person(body, motion, betas=np.zeros(10, np.float32), colours=np.ones((len(body.template), 3)))
    scene = filming.Scene(SIZE, SIZE)
    scene.set_mesh("person0", person.vertices[0], body.faces, colours=np.ones(3))
    middle = person.smpl_joints[0, 0]
    scene.set_camera(np.array([[150.0, 0, 80], [0, 150, 80], [0, 0, 1]]), look_at(middle + [0, 0, 3], middle))
    _, visibility = filming.joint_visibility(person.joints[0], 0, scene.snapshot(), scene)
    body14 = [SPIN49.index(n) for n in ("rankle", "rknee", "rhip", "rwrist", "relbow", "nose", "leye", "reye")]
    assert (visibility[body14] == 2).all()  # a T-pose seen from the front
    front = np.array([[-3, -3, 1.0], [3, -3, 1.0], [3, 3, 1.0], [-3, 3, 1.0]]) + middle
    scene.set_mesh("wall", front, np.array([[0, 1, 2], [0, 2, 3]]), colours=np.ones(3))
    assert (filming.joint_visibility(person.joints[0], 0, scene.snapshot(), scene)[1] == 1).all()
    scene.remove_mesh("wall")
    scene.set_camera(scene.intrinsics, look_at(middle - [0, 0, 3], middle))
    _, visibility = filming.joint_visibility(person.joints[0], 0, scene.snapshot(), scene)
    assert (visibility[[SPIN49.index(n) for n in ("nose", "leye", "reye")]] == 1).all()  # from behind, no face
    scene.set_camera(scene.intrinsics, look_at(middle + [0, 0, 3], middle + [9, 0, 0]))
    assert (filming.joint_visibility(person.joints[0], 0, scene.snapshot(), scene)[1] == 0).all()
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, SIZE, (49, 2))
    assert not filming.imitate_detector(pixels, np.zeros(49, int), rng).any()
    assert (filming.imitate_detector(pixels, np.full(49, 2), rng)[2] > 0.3).all()


def test_people_stand_on_the_floor(motions: dict[str, MotionClip], body: Body) -> None:
    rng = np.random.default_rng(1)
    for name in ("walk", "dance_a", "crawl", "getup_faceup"):
        motion = random_chain(rng, motions, first=name, frames=48)
        betas = rng.standard_normal(10).clip(-2, 2).astype(np.float32)
        person = pose_person(body, motion, betas=betas, colours=np.ones((len(body.template), 3)))
        lowest = person.vertices[..., 1].min(1)
        assert lowest.min() > -0.02, (name, lowest.min())
        assert np.median(lowest) < 0.04, (name, np.median(lowest))
    hop = np.concatenate([np.zeros(30), 0.5 * np.sin(np.linspace(0, np.pi, 15)), np.zeros(30)]) - 0.07
    lifted = hop + floor_lift(hop)
    assert lifted.max() > 0.35 and abs(lifted[:20]).max() < 0.02  # a jump stays a jump


def test_same_seed_same_bytes_and_another_seed_others(
    sample: Path, tmp_path: Path, motions: dict[str, MotionClip], body: Body
) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        files = [p for p in folder.rglob("*") if p.suffix in (".jpg", ".pkl") and p.name != "contact_sheet.jpg"]
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    for folder in ("imageFiles", "sequenceFiles/train", "sequenceFiles/validation", "sequenceFiles/test"):
        (tmp_path / folder).mkdir(parents=True)
    same, other = settings(motions), settings(motions, seed=4)
    cv2.setNumThreads(1)
    planned = plan_sequences(same, sorted(motions))
    render_sequence(tmp_path, same, planned[0], body=body, clips=motions)
    again, first = hashes(tmp_path), hashes(sample)
    assert again and all(first[name] == value for name, value in again.items())
    assert sum(planned[0].name in name for name in first) == len(again)
    render_sequence(tmp_path, other, planned[0], body=body, clips=motions)
    assert hashes(tmp_path) != again


def test_a_finished_sample_is_left_alone_and_other_settings_are_refused(
    sample: Path, motions: dict[str, MotionClip]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in sample.rglob("*")}
    start = time.monotonic()
    build_sample(sample, settings(motions), RenderSource(None, motions))
    assert time.monotonic() - start < 30 and before == {p: p.stat().st_mtime_ns for p in sample.rglob("*")}
    with pytest.raises(InputError, match="seed=3, not 4"):
        build_sample(sample, settings(motions, seed=4), RenderSource(None, motions))


def test_samples_made_before_some_settings_existed_are_recognised(
    sample: Path, tmp_path: Path, motions: dict[str, MotionClip]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    made = json.loads((sample / "sample.json").read_text())
    for name in ("as_recorded", "highest_camera", "largest", "every", "look", "people"):
        del made[name]
    (old / "sample.json").write_text(json.dumps(made))
    assert len(build_sample(old, settings(motions), RenderSource(None, motions))) == 2 and len(list(old.iterdir())) == 1
    with pytest.raises(InputError, match=r"every=\[1\], not \[1, 3\]"):
        build_sample(old, replace(settings(motions), every=(1, 3)), RenderSource(None, motions))


def test_lower_frame_rates_and_higher_cameras(motions: dict[str, MotionClip], body: Body) -> None:
    planned = plan_sequences(settings(motions, sequences=10), sorted(motions))
    train = [sequence for sequence in planned if sequence.split == "train"][:6]

    def filmed(**changes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Distance of the pelvis from frame to frame, and height of the camera, for each sequence."""
        speeds, heights = [], []
        for sequence in train:
            rng = np.random.default_rng([9, sequence.index])
            people = cast_people(rng, replace(settings(motions), **changes), sequence, body=body, clips=motions)
            pelvis = people[0].smpl_joints[:, 0, [0, 2]]
            assert 72 <= len(pelvis) < 97
            speeds.append(np.linalg.norm(np.diff(pelvis, axis=0), axis=1).mean())
            highest = changes.get("highest_camera", 2.6)
            camera = random_camera(rng, people, size=SIZE, fill=(0.4, 0.8), highest=highest)
            heights.append(camera.eyes[:, 1].mean())
        return np.array(speeds), np.array(heights)

    usual, slow = filmed(), filmed(every=(1, 3), highest_camera=6.0)
    ratio = slow[0] / usual[0]
    rates = np.array([(1, 3)[sequence.index % 2] for sequence in train])
    assert np.median(ratio[rates == 1]) < 1.5 and np.median(ratio[rates == 3]) > 2
    assert slow[1].max() > 3.2 > usual[1].max()


def test_frame_rates_reach_the_clips_of_the_decoder(tmp_path: Path, motions: dict[str, MotionClip], body: Body) -> None:
    chosen = replace(settings(motions, image_size=64), every=(1, 2))
    planned = build_sample(tmp_path / "sample", chosen, RenderSource(None, motions))
    fps = {
        unit.name: {clip.fps for clip in THREEDPW.decode(tmp_path / "sample", unit, body, "corrected").clips}
        for split in ("train", "test")
        for unit in THREEDPW.find(tmp_path / "sample", split)
    }
    assert fps == {sequence.name: {30.0 / (1, 2)[sequence.index % 2]} for sequence in planned}


def test_a_folder_of_something_else_is_refused(tmp_path: Path, motions: dict[str, MotionClip]) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="does not hold a sample"):
        build_sample(tmp_path, settings(motions), RenderSource(None, motions))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_killed_command_leaves_no_unfinished_file_that_looks_whole_and_continues(
    sample: Path, tmp_path: Path, motions: dict[str, MotionClip]
) -> None:
    out = tmp_path / "sample"
    command = [sys.executable, "-m", "pipelines.make_sample", "--out", str(out), "--sequences", "2", "--seed", "3",
               "--image-size", str(SIZE), "--workers", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while len(list(out.glob(".building/*/*.jpg"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "sample.json").exists() and not (out / "README.txt").exists()
    done = {p.stem for p in (out / "sequenceFiles").rglob("*.pkl")}
    assert len(done) < 2
    for file in (out / "sequenceFiles").rglob("*.pkl"):
        frames = len(load_pickle(file)["img_frame_ids"])
        assert len(list((out / "imageFiles" / file.stem).iterdir())) == frames
    # Rendered in several processes; the sample was rendered in one.
    build_sample(out, settings(motions), RenderSource(None, motions), workers=2)
    for file in sample.rglob("*.pkl"):
        assert (out / file.relative_to(sample)).read_bytes() == file.read_bytes()
    for file in list(sample.glob("imageFiles/*/*.jpg"))[::7]:
        assert (out / file.relative_to(sample)).read_bytes() == file.read_bytes()
    assert json.loads((out / "sample.json").read_text()) == json.loads((sample / "sample.json").read_text())


def test_splits_share_no_clip(motions: dict[str, MotionClip]) -> None:
    for names in (sorted(motions), [f"take_{i}" for i in range(9)], ["a", "b", "c"]):
        splits = split_clips(names, seed=1)
        everything = [name for clips in splits.values() for name in clips]
        assert sorted(everything) == sorted(names) and all(splits.values())
    for sequence in plan_sequences(settings(motions, sequences=40), sorted(motions)):
        assert sequence.first in sequence.clips == split_clips(sorted(motions), seed=3)[sequence.split]
    with pytest.raises(InputError, match="at least 3"):
        split_clips(["a", "b"], seed=0)


def test_single_renders_for_pretraining(motions: dict[str, MotionClip], body: Body) -> None:
    first, again = (
        filming.random_render(np.random.default_rng(7), body=body, clips=motions, size=96) for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert first.image.shape == (96, 96, 3) and first.keypoints2d.shape == (49, 3) and first.pose.shape == (24, 3)
    projected = first.joints3d @ first.intrinsics.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], first.keypoints2d[:, :2], atol=0.01)
    # The pose in the camera frame gives the joints in the camera frame, up to where the person stands.
    rotmats = torch.tensor(Rotation.from_rotvec(first.pose).as_matrix()[None], dtype=torch.float32)
    joints = body.joints(rotmats, torch.as_tensor(first.betas)[None])[0].numpy()
    np.testing.assert_allclose(joints - joints[8], first.joints3d - first.joints3d[8], atol=1e-4)
    assert len(set(SMPL_MIRROR)) == 24


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sequences", 1),
        ("seed", -1),
        ("image_size", 32),
        ("as_recorded", 1.5),
        ("highest_camera", float("nan")),
        ("largest", 0.1),
        ("every", (1, 0)),
        ("look", "cubist"),
        ("bench", True),
        ("motions", Path("nowhere.bvh")),
        ("body", Path("nowhere.pkl")),
        ("workers", 0),
        ("out", Path(__file__)),
    ],
)
def test_options_that_cannot_be_used_are_named(option: str, value: Any) -> None:
    with pytest.raises(InputError, match="--" + option.replace("_", "-")):
        MakeSampleSpec(**{option: value})


def test_the_sample_goes_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    assert MakeSampleSpec().out == tmp_path / "data" / "sample"
