"""A step whose loss or gradient is not finite is not taken, on any worker; what DDP is told about the model."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glot.config import Recipe
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.objectives import objective_of
from glot.recipes import recipe_named
from glot.training.feature_sets import feature_lineage
from glot.training.loop import first_model, train, wrapped
from glot.training.sampler import Sampler
from glot.training.spec import WorkerSpec
from glot.training.step_checkpoints import saved_steps
from glot.training.stepper import NotFinite, Stepper, make_stepper
from tests.fixtures.features import write_training_sets
from tests.fixtures.worker_processes import in_workers

SMALL = (
    "model.feature_size=32", "model.width=32", "model.decoder_width=16", "model.local_width=16", "model.hidden=32",
    "model.heads=2", "data.batch_size=16", "steps_per_epoch=4", "epochs=1",
)  # fmt: skip
WRONG = (5, 17)  # a number of a weight's gradient


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


def stepper_of(
    features: Path, recipe: Recipe, wrap: Callable[[nn.Module], nn.Module] | None = None, rank: int = 0, world: int = 1
) -> tuple[Stepper, Sampler]:
    body = load_body()
    model = first_model(recipe, body)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
    trained = wrapped(model, recipe, wrap)
    stores = {"3dpw": FeatureStore.open(features / "3dpw" / "train")}
    shares = {"rank": rank, "world": world, "parts": recipe.accumulate}
    sampler = Sampler(stores, recipe.data, frames=recipe.model.frames, seed=recipe.seed, **shares)
    return make_stepper(recipe, model, optimiser, body, torch.device("cpu"), trained=trained, rank=rank), sampler


@pytest.mark.parametrize("clip", ["clip_norm=0", "clip_norm=1"])
@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan, 1e30])  # Adam cannot square the last one
def test_one_number_of_the_gradient_that_is_not_finite_changes_nothing(
    features: Path, clip: str, number: float
) -> None:
    stepper, sampler = stepper_of(features, recipe_named("open_sample", [*SMALL, clip]))
    for step in range(2):
        stepper(step, sampler.batches(step))
    before = copy.deepcopy((stepper.model.state_dict(), stepper.optimiser.state_dict()))

    def spoil(gradient: Tensor) -> Tensor:
        spoiled = gradient.clone()
        spoiled[WRONG] = number
        return spoiled

    hook = stepper.model.motion.project.weight.register_hook(spoil)
    with pytest.raises(NotFinite) as found:
        stepper(2, sampler.batches(2))
    assert 0 < found.value.values["loss"] < 1e6 and not math.isfinite(found.value.values["gradient_norm"])
    assert same(before, (stepper.model.state_dict(), stepper.optimiser.state_dict()))
    hook.remove()
    stepper(2, sampler.batches(2))
    assert not same(before, (stepper.model.state_dict(), stepper.optimiser.state_dict()))


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_the_norm_that_is_reported_is_that_of_the_whole_gradient(features: Path) -> None:
    """Before it is clipped; without a limit, the gradient stays as it is."""
    for clip in (0, 1):
        stepper, sampler = stepper_of(features, recipe_named("open_sample", [*SMALL, f"clip_norm={clip}"]))
        values, _ = stepper(0, sampler.batches(0))
        gradient = torch.cat([p.grad.flatten() for p in stepper.model.parameters() if p.grad is not None])
        assert values["gradient_norm"] > 10
        assert float(gradient.norm()) == pytest.approx(1 if clip else values["gradient_norm"], rel=1e-4)


def spoiled_run(rank: int, world: int, worker: WorkerSpec, spoiled: float, name: str) -> None:
    """Trains with a number of one frame's features spoiled."""
    store = FeatureStore.open(worker.features / "3dpw" / "train")
    store.batch = lambda starts, frames: spoil(FeatureStore.batch(store, starts, frames), starts)  # type: ignore
    row = 100

    def spoil(batch: dict[str, np.ndarray], starts: np.ndarray) -> dict[str, np.ndarray]:
        for window, start in enumerate(starts):
            if start <= row < start + batch[name].shape[1]:
                batch[name][window, row - start].flat[3] = spoiled
        return batch

    opened = FeatureStore.open
    FeatureStore.open = classmethod(lambda cls, folder: store if folder == store.folder else opened(folder))  # type: ignore
    try:
        train(worker, rank=rank, world=world, wrap=DistributedDataParallel)
    finally:
        FeatureStore.open = opened  # type: ignore


@pytest.mark.parametrize(
    ("name", "number", "what"),
    [
        ("keypoints2d", torch.nan, r"the loss is nan \(.*/keypoints2d.*\)"),
        # The frame is hidden from the encoder, so that the loss is finite. Its gradient is zero times infinity.
        ("features", torch.inf, r"the loss is \d+\.\d+ and its gradient nan"),
    ],
)
def test_all_workers_stop_with_the_windows_of_the_one_that_met_bad_numbers(
    features: Path, tmp_path: Path, name: str, number: float, what: str
) -> None:
    recipe = recipe_named("open_sample", [*SMALL, "data.stride=16", "data.batch_size=18"])  # 18 windows in all
    lineage = feature_lineage(recipe, features)
    worker = WorkerSpec(recipe=recipe, features=features, lineage=lineage, out=tmp_path / "run", save_every=1)
    ends = in_workers(2, tmp_path / "meeting", spoiled_run, worker, number, name)
    message = rf"^{what} at step 1: numbers that are NaN or infinite in 3dpw clip01_0 frames 32 to 47; make these"
    for end in ends:
        with pytest.raises(InputError, match=message):
            raise end
    assert not saved_steps(worker.out) and not (worker.out / "best").exists()


def unmasked_steps(rank: int, world: int, features: Path, recipe: Recipe) -> tuple[bool, dict[str, float]]:
    """Whether DDP looks for unused parameters, and the values of the third step."""
    stepper, sampler = stepper_of(features, recipe, DistributedDataParallel, rank, world)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            values, _ = stepper(step, sampler.batches(step))
    assert isinstance(stepper.trained, DistributedDataParallel)
    return stepper.trained.find_unused_parameters, values


@pytest.mark.parametrize("modules", ["gmm", "gmm+lpc"])
def test_a_model_that_hides_no_frame_uses_all_its_parameters(features: Path, tmp_path: Path, modules: str) -> None:
    exact = [f"model.{name}=0" for name in ("mask_ratio", "dropout", "drop_path", "regressor_dropout", "hscr_dropout")]
    recipe = recipe_named("open_sample", [*SMALL, *exact, f"model.modules={modules}"])
    searches, values = zip(*in_workers(2, tmp_path / "meeting", unmasked_steps, features, recipe), strict=True)
    assert searches == (False, False)
    stepper, sampler = stepper_of(features, replace(recipe))
    alone = [stepper(step, sampler.batches(step))[0] for step in range(3)][2]
    assert values[0] == values[1] and values[0] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("setting", ["seed=1", "loss.use_accel=true", "loss.velocity3d_mask=official"])
@pytest.mark.parametrize("split", ["accumulate=1", "accumulate=2"])
def test_leaving_out_frames_that_no_term_needs_changes_no_step(features: Path, setting: str, split: str) -> None:
    exact = [f"model.{name}=0" for name in ("dropout", "drop_path", "regressor_dropout", "hscr_dropout")]
    recipe = recipe_named("open_sample", [*SMALL, *exact, "clip_norm=1", setting, split])
    taken = []
    for selects in (True, False):
        stepper, sampler = stepper_of(features, recipe)
        stepper.objective = objective_of(stepper.model, load_body(), recipe.loss, selects=selects)
        taken.append([stepper(step, sampler.batches(step))[0] for step in range(3)])
    for mine, whole in zip(*taken, strict=True):
        assert mine == pytest.approx(whole, rel=1e-4)
