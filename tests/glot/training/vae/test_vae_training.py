"""Training of the motion VAE on windows of a few frames: it learns, and goes on where it was stopped."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glot.errors import InputError, NotNowError
from glot.features.motion_sets import FOLDER
from glot.models.vae_files import read_vae
from glot.training.run_state import held
from glot.training.step_checkpoints import steps_folder
from glot.training.vae import motion_windows, vae_training
from glot.training.vae.spec import TrainVAESpec
from glot.training.vae.vae_training import rate_factor, train_vae
from pipelines.motions.set_spec import MakeMotionSetSpec
from pipelines.motions.set_writing import make_motion_set

SHORT = 6  # frames of a window


class Stopped(Exception):
    """Stands for the end of a process."""


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(motion_windows, "FRAMES", SHORT)
    yield


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve motions that swing all joints, each in its own way."""
    folder, rng, arrays = tmp_path_factory.mktemp("features"), np.random.default_rng(0), {}
    sides = rng.normal(scale=0.4, size=(2, 72))
    for number in range(12):
        phase = rng.uniform(0, 6) + np.arange(80) / 5
        poses = (np.stack((np.sin(phase), np.cos(phase)), 1) @ sides).astype(np.float32)
        arrays |= {f"swing{number}/poses": poses, f"swing{number}/trans": np.zeros((80, 3))}
    np.savez(folder / "swings.npz", **arrays)
    make_motion_set(MakeMotionSetSpec(motions=folder / "swings.npz", out=folder / "swings" / FOLDER))
    return folder


def spec_of(features: Path, out: Path, **options: object) -> TrainVAESpec:
    given = {"steps": 6, "batch": 4, "latent": 8, "hidden": 12, "gpus": 0} | options
    return TrainVAESpec(features=features, motions=("swings",), out=out, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["latent_only", "with_first_pose"])
def test_it_comes_nearer_to_held_out_motions_than_the_mean_pose(features: Path, tmp_path: Path, variant: str) -> None:
    spec = spec_of(features, tmp_path / "run", variant=variant, steps=120, batch=16, latent=32, hidden=64, lr=5e-3)
    metrics = train_vae(spec)
    assert metrics["val_joints"] < 0.9 * metrics["mean_pose_joints"]
    assert metrics["val_root"] < 0.8 * metrics["mean_pose_root"]
    assert (tmp_path / "run" / "epochs.png").stat().st_size > 10_000
    table = (tmp_path / "run" / "epochs.csv").read_text().splitlines()
    assert len(table) == 21 and "val_error" in table[0]
    assert len((tmp_path / "run" / "joints.csv").read_text().splitlines()) == 25
    assert train_vae(spec) == metrics  # nothing is left to do
    assert not steps_folder(tmp_path / "run").exists()


def test_a_run_that_was_stopped_goes_on_bitwise(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the fourth step, in a round of two, and once more between the best checkpoint and the progress."""
    whole = spec_of(features, tmp_path / "whole", steps=40)
    cut = replace(whole, out=tmp_path / "cut", resume=True)
    assert whole.round_steps == 2
    metrics = train_vae(whole)
    take_step, save_progress = vae_training.take_step, vae_training.save_progress

    def stopping(run: vae_training.VAERun, step: int) -> dict[str, float]:
        if step == 5:
            raise Stopped
        return take_step(run, step)

    def not_saving(out: Path, vae: object, optimiser: object, progress: dict[str, object], *, step: int) -> None:
        if step == 12:
            raise Stopped
        save_progress(out, vae, optimiser, progress, step=step)  # type: ignore[arg-type]

    for name, replacement in (("take_step", stopping), ("save_progress", not_saving)):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(vae_training, name, replacement)
            train_vae(cut)
    assert train_vae(cut) == metrics
    for name in ("best/model.safetensors", "best/config.json", "epochs.csv", "joints.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_damaged_checkpoint_is_skipped(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(features, tmp_path / "run", resume=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vae_training, "write_curves", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train_vae(spec)
    newest, earlier = sorted(steps_folder(spec.run_folder).iterdir(), reverse=True)
    (newest / "training.pt").write_bytes(b"cut short")
    train_vae(spec)
    assert "trying the checkpoint before it" in capsys.readouterr().err
    assert int(earlier.name) == int(newest.name) - 1


def test_the_result_is_a_motion_vae_and_the_rate_is_the_releases(features: Path, tmp_path: Path) -> None:
    train_vae(spec_of(features, tmp_path / "run"))
    tensors = read_vae(tmp_path / "run" / "best")
    assert tensors["d_out.weight"].shape == (144, 8) and "init_pose_out.weight" in tensors
    assert tensors.keys() == load_file(tmp_path / "run" / "best" / "model.safetensors").keys()
    released = [1 - max(0, epoch - 500) / 501 for epoch in range(1000)]
    assert [rate_factor(epoch, 1000) for epoch in range(1000)] == pytest.approx(released)


def test_what_a_folder_holds_is_respected(features: Path, tmp_path: Path) -> None:
    spec = spec_of(features, tmp_path / "run", steps=2)
    train_vae(spec)
    with pytest.raises(InputError, match=r"holds a run with vae\.batch = 4, now 5; choose another --out"):
        train_vae(replace(spec, batch=5))
    first = read_vae(tmp_path / "run" / "best")["d_out.bias"]
    train_vae(replace(spec, batch=5, fresh=True))
    assert not torch.equal(read_vae(tmp_path / "run" / "best")["d_out.bias"], first)
    with held(tmp_path / "run", what="run"), pytest.raises(NotNowError, match="this run is running already"):
        train_vae(replace(spec, batch=5))


def test_a_loss_that_is_not_finite_ends_the_run(features: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss is .* start over with a lower --lr"):
        train_vae(spec_of(features, tmp_path / "run", lr=1e30))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": "both"}, "--variant both: choose one of latent_only, with_first_pose"),
        ({"steps": 0}, "--steps 0: must be 1 or more"),
        ({"lr": 0.0}, "--lr 0.0: must be more than 0"),
        ({"latent": 7}, "--latent 7: must be even"),
        ({"gpus": 2}, "--gpus 2: the motion VAE is trained on one GPU"),
        ({"motions": ("a", "a")}, "--motions a a: give each set once"),
        ({"resume": True, "fresh": True}, "--resume --fresh: give one of them"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        TrainVAESpec(**options)  # type: ignore[arg-type]


def test_missing_motions_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"open_motions/motion/motions\.parquet: no such.*\n *python pipelines/make_motion_set\.py$"
    ):
        TrainVAESpec().check_places()
    with pytest.raises(InputError, match=r"2 things are missing(.|\n)*--motions /path/to/amass"):
        TrainVAESpec(motions=("open_motions", "amass")).check_places()
