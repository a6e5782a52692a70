"""Videos through the whole command: bodies are where the people are, and results are whole or not there."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torchvision

from glot.capture.capture_options import FITS
from glot.capture.spec import PredictSpec, PredictVideosSpec
from glot.errors import InputError
from glot.features.backbones.blazepose import FEATURES, features_hash
from glot.human.body import load_body
from glot.human.joints import SMPL_JOINTS
from glot.human.rotation import rot6d_to_rotmat, rotmat_to_rot6d
from glot.model_configs import GLoTConfig
from glot.models.architectures import build
from glot.models.checkpoint import save_checkpoint
from glot.models.released.official_files import to_official
from glot.motion.motion_files import read_motion
from glot.motion.person_motion import Motion
from glot.people.video import read_timeline
from glot.predict import main
from glot.recipes import open_sample
from pipelines import predict_videos
from tests.fixtures import synthetic_body
from tests.fixtures.peer_models import PEERS, small_peer
from tests.fixtures.people import RATE, SIZE, pictures, write_pictures
from tests.fixtures.places import ROOT
from tests.fixtures.video import write_video

FRAMES = 8
SMALL = GLoTConfig(
    feature_size=FEATURES, frames=8, nearby_frames=2, width=16, heads=2, decoder_width=8, local_width=8, hidden=16,
    depth=1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def always(networks: None) -> None:
    """All tests of this module need BlazePose's networks."""


def mean_estimate() -> torch.Tensor:
    """(157,): a body that stands upright in front of the camera, with its arms down."""
    rotmats = torch.eye(3).repeat(24, 1, 1)
    rotmats[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    for side, sign in (("left", -1), ("right", 1)):
        angle = torch.tensor(sign * 1.2)
        rotmats[SMPL_JOINTS.index(f"{side}_shoulder"), :2, :2] = torch.tensor(
            [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
        )
    return torch.cat((rotmat_to_rot6d(rotmats).flatten(), torch.zeros(10), torch.tensor([0.9, 0.0, 0.0])))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that always answers with the mean body."""
    return save_untrained(tmp_path_factory.mktemp("model") / "best", SMALL)


def save_untrained(folder: Path, config: Any) -> Path:
    torch.manual_seed(0)
    model, body = build(config, mean_estimate()), load_body()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    save_checkpoint(
        folder,
        model=model,
        recipe=replace(open_sample(), model=config),
        body={"name": body.name, "hash": body.file_hash, "open": True},
        features={"backbone": {"name": "blazepose", "hash": features_hash(), "feature_size": FEATURES}},
        metrics={},
        step=1,
    )
    return folder


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("film") / "walk.mp4", pictures(FRAMES))


def predict(video: Path | None = None, **options: Any) -> int:
    return main(PredictSpec(video=video, **options))


def predict_many(**options: Any) -> int:
    return predict_videos.main(PredictVideosSpec(**options))


def summary_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_a_person_who_walks_gets_a_body_that_walks_along(tmp_path: Path, walk: Path, checkpoint: Path) -> None:
    assert predict(walk, out=tmp_path, checkpoint=checkpoint, bvh=True, gltf=True, pkl=True) == 0
    folder = tmp_path / "walk"
    summary = summary_of(folder)
    assert summary["outcome"] == "bodies" and not summary["damage"] and len(summary["people"]) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted([*summary["files"], "summary.json"])
    assert {"person-1.npz", "person-1.parquet", "person-1.png", "person-1.bvh", "people.glb", "people.pkl"} < set(
        summary["files"]
    )
    motion = read_motion(folder / "person-1.npz")
    assert motion.frames.tolist() == list(range(FRAMES)) and motion.fps == RATE and motion.seen.all()
    pelvis = motion.keypoints2d[:, 0]
    # 0.05 m a frame, 2.9 m from a camera of focal length SIZE[1].
    step = 0.05 * SIZE[1] / 2.9
    assert np.polyfit(motion.frames, pelvis[:, 0], 1)[0] == pytest.approx(step, rel=0.25)
    # Hips, knees and shoulders lie where they were drawn, within a tenth of the box.
    middle = FRAMES // 2
    assert np.linalg.norm(pelvis[middle] - [SIZE[0] / 2, 176]) < 0.1 * motion.bbox[middle, 2]
    with av.open(str(folder / "overlay.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (SIZE[0] + SIZE[1], SIZE[1])
        assert sum(1 for _ in film.decode(video=0)) == FRAMES


@pytest.fixture(scope="module")
def glots_motion(tmp_path_factory: pytest.TempPathFactory, walk: Path, checkpoint: Path) -> Motion:
    out = tmp_path_factory.mktemp("glot")
    assert predict(walk, out=out, checkpoint=checkpoint, film=False, fit="none") == 0
    return read_motion(out / "walk" / "person-1.npz")


@pytest.mark.parametrize("kind", PEERS)
def test_any_model_gives_the_person_a_body(tmp_path: Path, walk: Path, glots_motion: Motion, kind: str) -> None:
    """Its windows are longer than the video. Such small weights change next to nothing of the mean body."""
    other = save_untrained(tmp_path / kind, small_peer(kind, feature_size=FEATURES).config)
    assert predict(walk, out=tmp_path, checkpoint=other, film=False, fit="none") == 0
    found = read_motion(tmp_path / "walk" / "person-1.npz")
    assert found.frames.tolist() == list(range(FRAMES)) and found.seen.all()
    if kind == "meva":  # its pose comes from its decoder, here of nearly no weights
        assert np.isfinite(found.keypoints2d).all()
    else:
        np.testing.assert_allclose(found.keypoints2d, glots_motion.keypoints2d, atol=0.01 * SIZE[1])


def test_a_video_filmed_sideways_gives_the_same_upright_body(tmp_path: Path, walk: Path, checkpoint: Path) -> None:
    turned = write_pictures(tmp_path / "phone.mp4", pictures(FRAMES), turned=90)
    with av.open(str(turned)) as container:
        assert container.streams.video[0].width == SIZE[1]  # stored sideways
    for video in (walk, turned):
        assert predict(video, out=tmp_path / "out", checkpoint=checkpoint, film=False) == 0
    upright, phone = (read_motion(tmp_path / "out" / name / "person-1.npz") for name in ("walk", "phone"))
    assert (phone.width, phone.height) == SIZE
    assert np.abs(phone.keypoints2d - upright.keypoints2d).max() < 6


def test_a_video_of_one_picture_is_one_body(tmp_path: Path, checkpoint: Path) -> None:
    video = write_pictures(tmp_path / "one.mp4", pictures(1))
    assert predict(video, out=tmp_path / "out", checkpoint=checkpoint) == 0
    assert read_motion(tmp_path / "out" / "one" / "person-1.npz").frames.tolist() == [0]
    assert read_timeline(tmp_path / "out" / "one" / "overlay.mp4").frames == 1


def test_a_video_without_people_is_reported(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "empty.mp4")
    assert predict(tmp_path / "empty.mp4", out=tmp_path / "out", checkpoint=checkpoint) == 1
    assert "nobody found in 12 frames" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out" / "empty").iterdir()] == ["summary.json"]
    assert summary_of(tmp_path / "out" / "empty")["outcome"] == "nobody"
    assert predict(tmp_path / "empty.mp4", out=tmp_path / "out", checkpoint=checkpoint) == 1  # from the stored summary


def test_an_unreadable_video_is_an_error_and_a_cut_one_is_used_up_to_the_cut(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(InputError, match="bad.mp4: not a readable video"):
        predict(tmp_path / "bad.mp4", out=tmp_path / "out", checkpoint=checkpoint)
    assert not (tmp_path / "out").exists()
    whole = write_pictures(tmp_path / "cut.mkv", pictures(24)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    assert predict(tmp_path / "cut.mkv", out=tmp_path / "out", checkpoint=checkpoint, film=False) == 0
    summary = summary_of(tmp_path / "out" / "cut")
    assert 1 <= summary["frames"] < 24 and "frames" in summary["damage"]
    assert summary["damage"] in capsys.readouterr().out
    (person,) = summary["people"]
    assert person["last"] < summary["frames"]


def test_given_boxes_replace_the_detector(
    tmp_path: Path, walk: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = [SIZE[0] / 2 - 90, 75, 180, 200]
    (tmp_path / "boxes.json").write_text(json.dumps({"Ada": {"frames": [1, 2, 5], "bbox": [box] * 3}}))
    assert predict(walk, out=tmp_path, checkpoint=checkpoint, tracks=tmp_path / "boxes.json", film=False) == 0
    motion = read_motion(tmp_path / "walk" / "person-Ada.npz")
    assert motion.person == "Ada" and motion.frames.tolist() == [1, 2, 3, 4, 5]
    assert "left out" not in capsys.readouterr().out
    left, top, width, height = box
    lines = [
        f"{frame},{person},{left},{top},{width},{height},1,{kind},1\n"
        for person, kind in ((4, 1), (5, 3), (6, 12))  # a pedestrian, a car, a reflection
        for frame in (2, 3)
    ]
    (tmp_path / "gt.txt").write_text("".join(lines))
    assert predict(walk, out=tmp_path / "mot", checkpoint=checkpoint, tracks=tmp_path / "gt.txt", film=False) == 0
    assert capsys.readouterr().out.count("4 boxes are no pedestrians by MOT's flag and class, left out") == 1
    assert sorted(path.name for path in (tmp_path / "mot" / "walk").glob("*.npz")) == ["person-4.npz"]


def test_smpl_spins_weights_and_a_published_checkpoint(tmp_path: Path, walk: Path) -> None:
    """Files of the right formats with invented numbers: every answer is close to SPIN's mean body, upright."""
    file = synthetic_body.write(tmp_path / "smpl")
    arrays = synthetic_body.model()
    # The triangles join vertices of all body parts, which takes minutes to draw. These stay within a body part.
    by_part = np.argsort(arrays["weights"].argmax(axis=1), kind="stable")
    arrays["f"] = by_part[np.arange(synthetic_body.FACES)[:, None] % (len(by_part) - 2) + np.arange(3)].astype(
        np.uint32
    )
    np.savez(file, **arrays)
    body = load_body(tmp_path / "smpl")
    torch.manual_seed(0)
    config = GLoTConfig(hscr_global_pose="official")
    model = build(config, torch.cat([x.flatten() for x in (body.mean_pose, body.mean_shape, body.mean_cam)]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    torch.save({"gen_state_dict": to_official(model, body)}, tmp_path / "model_best.pth.tar")
    trunk = torchvision.models.resnet50(weights=None).state_dict()
    spin = {name: values for name, values in trunk.items() if not name.startswith("fc.")}
    torch.save({"model": spin | {"decpose.bias": torch.zeros(144)}}, tmp_path / "spin.pth.tar")
    files = {"checkpoint": tmp_path / "model_best.pth.tar", "weights": tmp_path / "spin.pth.tar"}
    for fit in FITS:
        out, first = tmp_path / fit, fit == "limbs"
        options = {"body": tmp_path / "smpl", "backbone": "resnet50", "fit": fit, "gltf": first, "film": first}
        assert predict(walk, out=out, **files, **options) == 0
        summary = summary_of(out / "walk")
        assert summary["settings"]["body"]["name"] != "open"
        motion = read_motion(out / "walk" / "person-1.npz")
        mean = rot6d_to_rotmat(body.mean_pose.view(24, 6)).numpy()
        if fit != "limbs":  # the fitted arms hang down, and the mean body spreads its arms
            np.testing.assert_allclose(motion.rotmats, np.tile(mean, (FRAMES, 1, 1, 1)), atol=0.05)
        crops = motion.crop_boxes
        assert (np.abs(motion.keypoints2d[:, 0] - crops[:, :2]) < 0.25 * crops[:, 2:]).all()
    with pytest.raises(InputError, match="give SMPL's files with --body"):
        predict(walk, out=tmp_path / "open", **files, backbone="resnet50")


def test_results_of_other_settings_are_not_mixed(tmp_path: Path, walk: Path, checkpoint: Path) -> None:
    assert predict(walk, out=tmp_path, checkpoint=checkpoint, film=False) == 0
    before = (tmp_path / "walk" / "summary.json").stat().st_mtime_ns
    assert predict(walk, out=tmp_path, checkpoint=checkpoint, film=False) == 0
    assert (tmp_path / "walk" / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="made with another smooth"):
        predict(walk, out=tmp_path, checkpoint=checkpoint, film=False, smooth=True)
    (tmp_path / "walk" / "summary.json").unlink()
    with pytest.raises(InputError, match="is no result of this command"):
        predict(walk, out=tmp_path, checkpoint=checkpoint, film=False)


def test_a_video_or_features_and_not_both(tmp_path: Path, walk: Path) -> None:
    with pytest.raises(InputError, match="either a video"):
        predict(out=tmp_path)
    with pytest.raises(InputError, match="not both"):
        predict(walk, out=tmp_path, features=tmp_path)
    with pytest.raises(InputError, match="no such video"):
        predict(tmp_path / "none.mp4", out=tmp_path)
    with pytest.raises(InputError, match="no videos in it"):
        predict(tmp_path, out=tmp_path)


@pytest.mark.slow
def test_after_a_kill_a_folder_continues_with_whole_results_only(tmp_path: Path, checkpoint: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    write_pictures(films / "a.mp4", pictures(4))
    write_pictures(films / "b" / "walk.mp4", pictures(40))
    command = [sys.executable, "-m", "glot.predict", str(films), "--out", str(out), "--checkpoint", str(checkpoint)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not (list(out.glob("b/.walk.*")) or time.monotonic() > deadline):
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    first = (out / "a" / "summary.json").stat().st_mtime_ns
    assert not (out / "b" / "walk").exists() and list(out.glob("b/.walk.*"))
    assert predict(films, out=out, checkpoint=checkpoint) == 0
    assert (out / "a" / "summary.json").stat().st_mtime_ns == first
    assert summary_of(out / "b" / "walk")["people"][0]["frames"] == 40
    assert not list(out.glob("b/.walk.*"))  # left by the killed process


@pytest.mark.slow
def test_many_videos_at_once_give_the_same_as_one_after_the_other(
    tmp_path: Path, walk: Path, checkpoint: Path, local_ray: None
) -> None:
    films = tmp_path / "films"
    for name in ("a.mp4", "deep/a.mp4"):
        (films / name).parent.mkdir(parents=True, exist_ok=True)
        (films / name).write_bytes(walk.read_bytes())
    (films / "bad.avi").write_text("no video")
    write_video(films / "empty.mp4")
    options: dict[str, Any] = {"checkpoint": checkpoint, "film": False}
    assert predict_many(root=films, out=tmp_path / "out", workers=2, **options) == 1
    assert predict(walk, out=tmp_path / "alone", **options) == 0
    alone = read_motion(tmp_path / "alone" / "walk" / "person-1.npz")
    for name in ("a", "deep/a"):
        motion = read_motion(tmp_path / "out" / name / "person-1.npz")
        np.testing.assert_allclose(motion.joints3d, alone.joints3d, atol=1e-4)
    assert summary_of(tmp_path / "out" / "empty")["outcome"] == "nobody"
    assert not (tmp_path / "out" / "bad").exists()
    assert not list((tmp_path / "out").glob(".*"))
    (films / "bad.avi").unlink()
    (films / "empty.mp4").unlink()
    before = (tmp_path / "out" / "a" / "summary.json").stat().st_mtime_ns
    assert predict_many(root=films, out=tmp_path / "out", workers=2, **options) == 0
    assert (tmp_path / "out" / "a" / "summary.json").stat().st_mtime_ns == before
