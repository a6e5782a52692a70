"""TCMR, MPS-Net, VIBE and MEVA in training: they resume bitwise, and two workers take the steps of one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from glot.errors import InputError
from glot.human.body import load_body
from glot.models.checkpoint import DISCRIMINATOR, load_checkpoint
from glot.models.parts.motion_vae import MotionVAE
from glot.models.vae_files import save_vae
from glot.recipes import recipe_named
from glot.training.driver import fit
from glot.training.feature_sets import feature_lineage
from glot.training.loop import first_model, train
from glot.training.run_state import STATE, read_state, write_state
from glot.training.schedule import LearningRate, plateaus
from glot.training.spec import TrainSpec, WorkerSpec
from glot.training.workers import ThisProcess
from tests.fixtures.features import write_training_sets
from tests.fixtures.motion_sets import write_motion_set
from tests.fixtures.peer_models import PEERS, peer_settings
from tests.fixtures.worker_processes import in_workers

STEPS = ("model.feature_size=32", "steps_per_epoch=3", "epochs=1", "lr=0.001")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_training_sets(tmp_path_factory.mktemp("features"), load_body())
    write_motion_set(folder)
    return folder


def worker_of(features: Path, out: Path, kind: str, *settings: str) -> WorkerSpec:
    recipe = recipe_named("open_sample", [*peer_settings(kind), *STEPS, "data.batch_size=8", *settings])
    return WorkerSpec(recipe=recipe, features=features, lineage=feature_lineage(recipe, features), out=out)


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out / "last").model.state_dict()


@pytest.mark.parametrize("kind", PEERS)
def test_three_steps_change_the_model_and_resume_bitwise(features: Path, tmp_path: Path, kind: str) -> None:
    settings = ["model.regressor_dropout=0.5"]
    if kind in ("vibe", "mps_net"):
        settings += ["discriminator.motions=real", "discriminator.width=8", "schedule=plateau"]
    train(worker_of(features, tmp_path / "whole", kind, *settings))
    cut = worker_of(features, tmp_path / "cut", kind, *settings)
    train(replace(cut, stop_at=0.0))  # it stops after its first step
    assert not (tmp_path / "cut" / "last").exists()
    train(cut)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    first = weights_of_first(features, tmp_path / "whole", kind, settings)
    changed = {name for name, tensor in whole.items() if not torch.equal(tensor, first[name])}
    frozen = {name for name in whole if name.startswith(("vae_model.", "vae_init_mlp.")) or name == "mean"}
    assert changed == set(whole) - frozen
    assert (tmp_path / "cut" / "last" / DISCRIMINATOR).exists() == (kind in ("vibe", "mps_net"))


def weights_of_first(features: Path, out: Path, kind: str, settings: list[str]) -> dict[str, torch.Tensor]:
    """The weights that training starts from."""
    return first_model(load_checkpoint(out / "last").recipe, load_body()).state_dict()


def test_meva_is_trained_with_the_motion_vae_that_is_given_and_leaves_it_as_it_is(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vae", "other"):
        vae = MotionVAE("latent_only", latent=16, hidden=20)
        save_vae(tmp_path / name / "best", vae, {})
    settings = tuple([*peer_settings("meva"), *STEPS, "data.batch_size=8"])
    spec = TrainSpec(features=features, out=tmp_path / "run", mlflow="none", settings=settings, vae=tmp_path / "other")
    fit(spec, ThisProcess(lambda metrics: None))
    assert "without --vae" not in capsys.readouterr().err
    trained = weights_of(tmp_path / "run")
    for name, tensor in vae.state_dict().items():
        assert torch.equal(trained[f"vae_model.{name}"], tensor), name
    with pytest.raises(InputError, match="holds a run with vae = [0-9a-f]{16}, now [0-9a-f]{16}"):
        fit(replace(spec, vae=tmp_path / "vae"), ThisProcess(lambda metrics: None))
    fit(replace(spec, vae=None, out=tmp_path / "without"), ThisProcess(lambda metrics: None))
    assert capsys.readouterr().err.count("MEVA is trained without --vae") == 1
    state = read_state(tmp_path / "without")
    del state["vae"]  # as earlier code wrote it
    write_state(tmp_path / "without" / STATE, state)
    fit(replace(spec, vae=None, out=tmp_path / "without"), ThisProcess(lambda metrics: None))


def steps_of_a_worker(rank: int, world: int, features: Path, out: Path, kind: str, settings: list[str]) -> None:
    worker = worker_of(features, out, kind, *settings)
    train(worker, rank=rank, world=world, wrap=lambda model: DistributedDataParallel(model))


@pytest.mark.parametrize("kind", PEERS)
def test_two_workers_and_two_parts_take_the_steps_of_one(features: Path, tmp_path: Path, kind: str) -> None:
    """The batch of 7 windows cannot be shared evenly, nor can the 5 real motions."""
    settings = ["data.batch_size=7"]
    if kind in ("vibe", "mps_net"):
        settings += [
            "discriminator.motions=real", "discriminator.width=8", "discriminator.dropout=0",
            "discriminator.batch_size=5",
        ]  # fmt: skip
    train(worker_of(features, tmp_path / "one", kind, *settings))
    found = in_workers(2, tmp_path / "meeting", steps_of_a_worker, features, tmp_path / "two", kind, settings)
    assert found == [None, None]
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_rate_falls_as_torchs_scheduler_lets_it_fall() -> None:
    generator = torch.Generator().manual_seed(0)
    errors = (100 - torch.arange(60).sqrt() * 2 + 3 * torch.randn(60, generator=generator)).tolist()
    recipe = recipe_named("open_sample", ["schedule=plateau", "lr=0.5", "epochs=61"])
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    theirs = ReduceLROnPlateau(optimiser, factor=0.1, patience=5)
    ours = LearningRate(recipe)
    for epoch, error in enumerate(errors):
        assert ours(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        theirs.step(error)
        ours.validated({"val_pa_mpjpe": error})
    assert 2 <= plateaus(errors, patience=5) <= 6
    again = LearningRate(recipe, [{"val_pa_mpjpe": error} for error in errors])  # as a run that goes on has it
    assert [again(epoch) for epoch in range(61)] == [ours(epoch) for epoch in range(61)]


def test_epochs_that_are_not_validated_do_not_let_the_rate_fall() -> None:
    rate = LearningRate(recipe_named("open_sample", ["schedule=plateau", "lr=0.5"]))
    for _ in range(20):
        rate.validated({})
    assert rate(20) == 0.5


def test_a_motion_set_that_is_missing_is_named_with_the_command_and_another_one_is_another_run(
    features: Path, tmp_path: Path
) -> None:
    recipe = recipe_named("open_sample", ["model=vibe", "discriminator.motions=real,amass"])
    with pytest.raises(InputError, match=r"amass/motion/motions\.parquet: no such set .*\n.*make_motion_set\.py"):
        feature_lineage(recipe, features)
    shipped = recipe_named("open_sample", ["model=vibe", "discriminator.motions=open_motions"])
    with pytest.raises(InputError, match=r"python pipelines/make_motion_set\.py --out \S*/open_motions/motion$"):
        feature_lineage(shipped, features)
    keys = set()
    for number, lengths in enumerate(((70,), (80,))):
        shutil.copytree(features / "3dpw", tmp_path / str(number) / "3dpw")
        write_motion_set(tmp_path / str(number), lengths=lengths)
        lineage = feature_lineage(recipe_named("open_sample", ["model=vibe", "discriminator.motions=real"]),
                                  tmp_path / str(number))  # fmt: skip
        keys.add(lineage["sets"]["real/motion"])
    assert len(keys) == 2
