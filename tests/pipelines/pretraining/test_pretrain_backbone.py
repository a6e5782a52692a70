"""Pretraining: cache and mirror keep the labels, runs and renders continue after kill -9, export keeps the features."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.human.body import Body, load_body
from glot.human.joints import SPIN49
from glot.human.rotation import axis_angle_to_rotmat
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.pretraining import renders, training_crops
from pipelines.pretraining.backbone_export import (
    SPREAD,
    equalise_features,
    feature_spread,
    scale_features,
    write_weights,
)
from pipelines.pretraining.pose_loss import heatmap_cross_entropy, pose_loss
from pipelines.pretraining.pose_net import PoseNet
from pipelines.pretraining.pretraining_run import PretrainingRun
from pipelines.pretraining.recipe import CropStage, PretrainingRecipe, continued
from pipelines.pretraining.renders import (
    Renders,
    RenderSettings,
    fill_cache,
    render_shard,
    shard_file,
    start_or_continue,
    write_shard,
)
from pipelines.pretraining.spec import PretrainSpec
from pipelines.pretraining.training import best_precision, train
from pipelines.pretraining.training_crops import MID_HIP, MIRROR49, CropLoader, collate, take_crop
from pipelines.scenes.render_processes import RenderSource
from pipelines.scenes.sequence_plan import hash_of_clips
from tests.fixtures.places import ROOT

SHARD = 4
TINY = PretrainingRecipe(
    megapixels=5.5 * 2 * 32 * 32 / 1e6, stages=(CropStage(0.5, 32, 2), CropStage(1.0, 32, 2)), seed=3
)  # six steps

# The recipe in checkpoints that were made before its class was called PretrainingRecipe.
OLD_RECIPE = (
    '{"megapixels": 0.6, "stages": [[0.2, 64, 64], [0.65, 112, 32], [0.82, 160, 32], [1.0, 224, 32]], "start": "", '
    '"frozen": [], "precision": "float32", "learning_rate": 0.001, "warmup": 0.02, "decay_from": 0.35, '
    '"weight_decay": 0.02, "seed": 1}'
)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def clips() -> dict[str, MotionClip]:
    motions = load_motions()
    return {name: motions[name] for name in ("walk", "kick", "cartwheel")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, MotionClip], body: Body) -> Path:
    """Two shards of four, made in this process."""
    folder = tmp_path_factory.mktemp("renders")
    settings = RenderSettings(5, hash_of_clips(clips), body.file_hash, True, SHARD)
    start_or_continue(folder / "train", settings)
    for number in range(2):
        write_shard(shard_file(folder / "train", number), render_shard(number, settings, clips=clips, body=body))
    return folder / "train"


def test_cached_records_are_those_rendered(cache: Path, clips: dict[str, MotionClip], body: Body) -> None:
    found = Renders(cache, images=7)
    settings = RenderSettings(5, hash_of_clips(clips), body.file_hash, True, SHARD)
    pictures = [p for number in range(2) for p in render_shard(number, settings, clips=clips, body=body)][:7]
    assert len(found) == 7
    for index, picture in enumerate(pictures):
        for name, values in found.labels.items():
            np.testing.assert_array_equal(values[index], getattr(picture, name).astype(np.float32))
        difference = np.abs(found.image(index)[..., ::-1].astype(int) - picture.image)
        assert difference.mean() < 6, "the same picture, apart from JPEG compression"
        other = np.abs(found.image(index)[..., ::-1].astype(int) - pictures[index - 1].image)
        assert other.mean() > 2 * difference.mean()


def test_mirroring_names_is_an_involution_that_moves_both_sides() -> None:
    assert [MIRROR49[i] for i in MIRROR49] == list(range(49))
    assert SPIN49[MIRROR49[SPIN49.index("OP RBigToe")]] == "OP LBigToe"
    assert SPIN49[MIRROR49[SPIN49.index("rwrist")]] == "lwrist"
    still = {SPIN49[i] for i in range(49) if MIRROR49[i] == i}
    middle = {"OP Nose", "OP Neck", "OP MidHip", "neck", "headtop", "hip", "thorax", "nose"}
    assert still == middle | {"Spine (H36M)", "Jaw (H36M)", "Head (H36M)"}


def test_crops_keep_labels_right_mirrored_or_not(cache: Path, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Renders(cache, images=8)
    monkeypatch.setattr(training_crops, "disturb", lambda image, rng: image)
    wrist = SPIN49.index("rwrist")
    flips = 0
    for number in range(24):
        index, size = number % 8, (64, 112, 224)[number % 3]
        x, y, _ = found.labels["keypoints2d"][index, wrist]
        if not (20 < x < 300 and 20 < y < 300):
            continue
        dot = np.zeros((320, 320, 3), np.uint8)
        vv, uu = np.mgrid[:320, :320]
        dot[np.hypot(uu - x, vv - y) < 8] = 255
        halved = (dot.reshape(160, 2, 160, 2, 3).mean((1, 3))).astype(np.uint8)
        monkeypatch.setattr(found, "image", lambda i, half=False, a=dot, b=halved: b if half else a)
        crop = take_crop(found, index, size=size, rng=np.random.default_rng(number))
        label = found.labels["joints3d"][index]
        flipped = not np.allclose(crop.joints3d, label - label[MID_HIP], atol=1e-6)
        flips += flipped
        weight = crop.image[..., 0].astype(float)
        if weight.sum() < 255 * 4:  # the wrist is outside this crop
            continue
        v, u = np.mgrid[:size, :size]
        centre = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
        label2d = crop.keypoints2d[MIRROR49[wrist] if flipped else wrist, :2]
        if (np.abs(label2d) < 0.8).all():
            np.testing.assert_allclose((label2d + 1) * size / 2, centre, atol=0.012 * size)
        rotmats = axis_angle_to_rotmat(torch.from_numpy(crop.pose))[None]
        joints = body.joints(rotmats, torch.from_numpy(crop.betas)[None])[0].numpy()
        np.testing.assert_allclose(
            joints - joints[MID_HIP], crop.joints3d, atol=0.012
        )  # bodies are slightly asymmetric
    assert 3 < flips < 21


def test_loss_is_zero_for_the_truth_and_grows_with_every_error(cache: Path) -> None:
    found = Renders(cache, images=8)
    crops = [take_crop(found, i, size=32) for i in range(4)]
    _, target = collate(crops, torch.device("cpu"))
    visible = torch.where(target["keypoints2d"][..., 2] > 0, 30.0, -30.0)
    truth = {
        "keypoints2d": torch.cat([target["keypoints2d"][..., :2], visible[..., None]], -1),
        "joints3d": target["joints3d"],
        "rot6d": target["rotmats"][..., :2].flatten(-2),
        "betas": target["betas"],
    }
    assert all(float(term) < 1e-6 for term in pose_loss(truth, target).values())
    torch.manual_seed(0)
    for name in truth:
        worse = truth | {name: truth[name] + 0.1 * torch.randn_like(truth[name])}
        assert sum(float(term) for term in pose_loss(worse, target).values()) > 1e-5, name


def test_heatmap_loss_is_zero_at_the_joint_and_that_of_chance_for_a_flat_map() -> None:
    sharp = torch.full((1, 1, 4, 6), -40.0)
    sharp[0, 0, 1, 2] = 40.0
    centre = torch.tensor([[[2.5 / 6 * 2 - 1, 1.5 / 4 * 2 - 1]]])
    assert float(heatmap_cross_entropy(sharp, centre)) < 1e-6
    assert float(heatmap_cross_entropy(sharp, -centre)) > 50
    points = 2 * torch.rand(1, 30, 2) - 1  # up to the edges
    np.testing.assert_allclose(heatmap_cross_entropy(torch.zeros(1, 30, 4, 6), points), np.log(24), rtol=1e-5)
    between = torch.full((1, 1, 4, 6), -40.0)
    between[0, 0, 1, 2:4] = 0.0  # one half each is the best prediction for a joint on the border
    assert float(heatmap_cross_entropy(between, torch.tensor([[[0.0, 1.5 / 4 * 2 - 1]]]))) == pytest.approx(
        np.log(2), abs=1e-4
    )


def test_crop_sizes_grow_to_224_and_the_rate_falls_to_a_hundredth() -> None:
    recipe = PretrainingRecipe()
    progress = np.linspace(0, 1, 201)
    sizes = [recipe.stage(p).size for p in progress]
    assert sizes[0] == 64 and sizes[-1] == 224 and sizes == sorted(sizes)
    rates = np.array([recipe.rate(p) for p in progress])
    assert rates.max() == recipe.learning_rate and rates[-1] == pytest.approx(0.01 * recipe.learning_rate)
    assert (np.diff(rates[progress > recipe.decay_from]) < 0).all()


def test_checkpoints_of_the_old_name_of_the_recipe_can_be_resumed(tmp_path: Path) -> None:
    run = PretrainingRun(tmp_path, PretrainingRecipe(megapixels=0.6, seed=1), device=torch.device("cpu"))
    run.step = 2
    run.save()
    state = torch.load(run.checkpoint, weights_only=True)
    assert list(state) == ["recipe", "net", "optimizer", "step", "crops", "megapixels", "seconds"]
    state["recipe"] = OLD_RECIPE
    torch.save(state, run.checkpoint)
    resumed = PretrainingRun(tmp_path, PretrainingRecipe(megapixels=1.2, seed=1), device=torch.device("cpu"))
    assert resumed.resume() and resumed.step == 2


def test_everybody_is_visible_enough_for_extraction(cache: Path) -> None:
    labels = Renders(cache, images=8).labels["keypoints2d"]
    assert ((labels[:, renders.LIMBS_IN_SPIN49, 2] > 0).sum(1) >= renders.FEWEST_VISIBLE).all()


@pytest.mark.skipif(best_precision("cpu") == "float32", reason="no bfloat16 instructions here")
def test_bfloat16_takes_nearly_the_same_step(cache: Path, tmp_path: Path) -> None:
    found = Renders(cache, images=8)
    crops = [take_crop(found, i, size=64) for i in range(8)]
    losses = {}
    for precision in ("float32", "bfloat16"):
        (tmp_path / precision).mkdir()
        run = PretrainingRun(tmp_path / precision, replace(TINY, precision=precision), device=torch.device("cpu"))
        losses[precision] = [run.train_step(crops, rate=1e-4)["loss"] for _ in range(2)]
        assert all(p.dtype == torch.float32 for p in run.net.parameters())
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)
    assert losses["bfloat16"] != losses["float32"]


def _finish(out: Path, cache: Path, *, save_every: float = 1e9) -> list[float]:
    """Starts or continues the tiny recipe in this process; returns the loss of every step in the log, in order."""
    out.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Renders(cache, images=8)
    run = PretrainingRun(out, TINY, device=torch.device("cpu"))
    run.resume()
    for _ in train(run, CropLoader(found, TINY, threads=1), found, hours=None, save_every=save_every):
        pass
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    return [losses[step] for step in sorted(losses)]


TRAIN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.pipelines.pretraining.test_pretrain_backbone import _finish
_finish(Path({out!r}), Path({cache!r}), save_every=0)
"""


def test_a_killed_training_continues_with_the_same_losses(cache: Path, tmp_path: Path) -> None:
    whole = _finish(tmp_path / "whole", cache)
    assert len(whole) == 6
    out = tmp_path / "killed"
    code = TRAIN.format(root=str(ROOT), out=str(out), cache=str(cache))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while '"step": 3' not in _text(out / "log.jsonl") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = [json.loads(line) for line in _text(out / "log.jsonl").splitlines() if line.endswith("}")]
    assert 3 <= max(row["step"] for row in done) < 6
    np.testing.assert_allclose(_finish(out, cache), whole, rtol=1e-4)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


RENDER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pipelines.motions.mocap import load_motions
from pipelines.pretraining.renders import fill_cache
from pipelines.scenes.render_processes import RenderSource
clips = load_motions()
source = RenderSource(None, {{n: clips[n] for n in ("walk", "kick", "cartwheel")}})
fill_cache(Path({out!r}), 400, source, seed=5, shard=4)
"""


def test_killed_rendering_leaves_whole_shards_and_continues(
    cache: Path, clips: dict[str, MotionClip], tmp_path: Path
) -> None:
    out = tmp_path / "renders"
    script = tmp_path / "render.py"
    body = "\n".join("    " + line for line in RENDER.format(root=str(ROOT), out=str(out)).splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "00000.npz").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = sorted(out.glob("0*.npz"))
    assert 1 <= len(made) < 100
    before = {path: path.stat().st_mtime_ns for path in made}
    found = fill_cache(out, 4 * (len(made) + 1), RenderSource(None, clips), seed=5, shard=SHARD, workers=1)
    assert {path: path.stat().st_mtime_ns for path in made} == before, "whole shards are not made again"
    reference = Renders(cache, images=8)
    for name, values in reference.labels.items():
        np.testing.assert_array_equal(found.labels[name][:8], values)


def test_a_cache_of_other_renders_or_a_cut_shard_is_one_clear_line(
    cache: Path, clips: dict[str, MotionClip], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"holds renders with seed=5, not 6.*--out"):
        fill_cache(cache, 8, RenderSource(None, clips), seed=6, shard=SHARD)
    with pytest.raises(InputError, match="holds renders with motions="):
        fill_cache(cache, 8, RenderSource(None, {"walk": clips["walk"]}), seed=5, shard=SHARD)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "settings.json").write_text((cache / "settings.json").read_text())
    (copy / "00000.npz").write_bytes((cache / "00000.npz").read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"00000\.npz.*remove it and run again"):
        fill_cache(copy, 4, RenderSource(None, clips), seed=5, shard=SHARD)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="exists and does not hold renders"):
        fill_cache(foreign, 4, RenderSource(None, clips), seed=5, shard=SHARD)


def test_a_checkpoint_of_another_recipe_or_a_cut_one_is_one_clear_line(cache: Path, tmp_path: Path) -> None:
    run = PretrainingRun(tmp_path, TINY, device=torch.device("cpu"))
    run.save()
    with pytest.raises(InputError, match="another recipe or seed"):
        PretrainingRun(tmp_path, replace(TINY, seed=4), device=torch.device("cpu")).resume()
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not readable.*delete this file to start over"):
        run.resume()


def test_exported_weights_fit_in_50_mb_and_keep_the_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = PoseNet().trunk
    images = torch.randn(8, 3, 96, 96)
    trunk.train()
    with torch.no_grad():
        for _ in range(3):  # batch statistics other than the initial ones
            trunk(images)
    write_weights(trunk, tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size < 50_000_000
    trunk.eval()
    loaded = load_backbone(weights=tmp_path / "weights.safetensors").module
    with torch.no_grad():
        expected, found = trunk(images), loaded(images)
    assert float((found - expected).norm() / expected.norm()) < 2e-3


def test_a_deadline_ends_the_run_and_leaves_weights(cache: Path, tmp_path: Path) -> None:
    found = Renders(cache, images=8)
    run = PretrainingRun(tmp_path, replace(TINY, megapixels=1e6), device=torch.device("cpu"))
    for _ in train(run, CropLoader(found, TINY, threads=1), found, hours=1.5 / 3600, save_every=1e9):
        pass
    assert run.step >= 1 and (tmp_path / "latest.safetensors").is_file()


def test_an_unknown_device_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--device tpu"):
        PretrainSpec(out=tmp_path / "out", device="tpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("images", 10),
        ("hours", 0.0),
        ("seed", -1),
        ("megapixels", 0.0),
        ("precision", "float16"),
        ("start", Path("nowhere.safetensors")),
        ("save_minutes", -1.0),
        ("motions", Path("nowhere.bvh")),
        ("body", Path("nowhere.pkl")),
        ("workers", 0),
        ("out", Path(__file__)),
    ],
)
def test_options_that_cannot_be_used_are_named(option: str, value: Any) -> None:
    with pytest.raises(InputError, match="--" + option.replace("_", "-")):
        PretrainSpec(**{option: value})


def test_every_worker_count_gives_the_same_renders_and_keeps_the_threads(
    cache: Path, clips: dict[str, MotionClip], tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = fill_cache(tmp_path / "one", SHARD, RenderSource(None, clips), seed=5, shard=SHARD, workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for name, values in Renders(cache, images=SHARD).labels.items():
        np.testing.assert_array_equal(found.labels[name], values)
    assert (tmp_path / "one" / "00000.npz").read_bytes() == (cache / "00000.npz").read_bytes()


def test_a_run_from_other_weights_keeps_the_first_layers_and_trains_the_others(cache: Path, tmp_path: Path) -> None:
    recipe = replace(continued(TINY, start="abc"), stages=TINY.stages)
    run = PretrainingRun(tmp_path, recipe, device=torch.device("cpu"))
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    found = Renders(cache, images=8)
    run.train_step([take_crop(found, i, size=32) for i in range(4)], rate=1e-3)
    kept = {f"trunk.{part}." for part in recipe.frozen}
    for name, value in run.net.state_dict().items():
        if name.startswith("trunk.") and not name.endswith("num_batches_tracked"):
            is_kept = any(name.startswith(part) for part in kept)
            assert torch.equal(value, before[name]) == is_kept, name


def test_features_are_scaled_exactly_to_one_standard_deviation(cache: Path) -> None:
    torch.manual_seed(0)
    trunk = PoseNet().trunk
    found = Renders(cache, images=8)
    images, _ = collate([take_crop(found, i, size=96) for i in range(8)], torch.device("cpu"))
    trunk.train()
    with torch.no_grad():
        trunk(images)  # batch statistics other than the initial ones
        trunk.eval()
        before = trunk(images)
        factors = torch.rand(2048) * 20 + 0.1
        scale_features(trunk, factors)
        torch.testing.assert_close(trunk(images), before * factors, rtol=2e-4, atol=1e-5)
    equalise_features(trunk, found, device=torch.device("cpu"))
    spread = feature_spread(trunk, found, device=torch.device("cpu"))
    assert float(spread.median()) == pytest.approx(SPREAD, rel=1e-3) and float(spread.max()) < 1.001 * SPREAD
