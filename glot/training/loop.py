"""Feature sets and a recipe in, checkpoints and metrics out: what each worker of a training run does. No Ray here.

A run that is continued takes the same steps as a run that was never stopped (glot.training.stepper says why).
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glot.config import Recipe
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.models.architectures import build
from glot.models.checkpoint import assign
from glot.models.glot import GLoT
from glot.models.inference import load_model
from glot.models.released.spin_files import load_spin_regressor
from glot.models.temporal_model import TemporalModel
from glot.models.vae_files import give_vae
from glot.models.whitening import whiten
from glot.scoring.validation import Validation
from glot.training.adversary import Adversary
from glot.training.feature_sets import motion_files, training_folders, validation_folders
from glot.training.motion_stream import MotionStream
from glot.training.record.writer import Writer
from glot.training.sampler import Batch, Sampler
from glot.training.schedule import LearningRate
from glot.training.spec import WorkerSpec
from glot.training.step_checkpoints import newest_step, resume
from glot.training.stepper import NotFinite, make_stepper
from glot.training.worker_means import mean_over_workers

WINDOWS_NAMED = 4  # an error message names at most this many windows of a batch


def first_model(
    recipe: Recipe,
    body: Body,
    *,
    spin_regressor: Path | None = None,
    start: Path | None = None,
    vae: Path | None = None,
) -> TemporalModel:
    """The model that training starts from; every worker builds the same model.

    ``start``: a checkpoint whose weights the model gets. ``vae``: the motion VAE that MEVA gets. InputError if they do
    not fit the recipe's architecture.
    """
    torch.manual_seed(recipe.seed)
    mean = [values.flatten().cpu() for values in (body.mean_pose, body.mean_shape, body.mean_cam)]
    model = build(recipe.model, torch.cat(mean))
    if spin_regressor is not None:
        load_spin_regressor(model, spin_regressor)
    if vae is not None:
        give_vae(model, vae)
    if start is not None:
        assign(model, load_model(start).model.state_dict(), start)
    return model


def train(
    worker: WorkerSpec,
    *,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    report: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> None:
    """Trains until the recipe's last step or until ``worker.stop_at``, from the last checkpoint of an earlier start.

    Writes ``out``/steps and ``out``/best, and ``out``/last at the end. ``wrap(model)`` makes a DDP model of the model.
    ``report`` is called after every epoch, with its metrics on rank 0 and with {} on other ranks. Raises
    InputError naming windows of the batch where the loss or its gradient is not finite; that step is not taken.
    """
    recipe = worker.recipe
    torch.set_num_threads(worker.threads)
    device = device or torch.device("cpu")
    body = load_body(worker.body).to(device)
    stores = {name: FeatureStore.open(folder) for name, folder in training_folders(recipe, worker.features).items()}
    adversary = adversary_of(worker, device, rank=rank, world=world)
    model, optimiser, progress = start_or_resume(worker, body, stores, device, adversary, quiet=rank > 0)
    first, total = int(progress.get("step", 0)), recipe.epochs * recipe.steps_per_epoch
    if float(mean_over_workers(torch.tensor([float(first)], device=device))) != first:
        raise InputError(
            f"{worker.out}: the workers do not see the same checkpoints there; is it one file system for all?"
        )
    trained = wrapped(model, recipe, wrap if world > 1 else None)
    rate = LearningRate(recipe, progress.get("history", ()))
    stepper = make_stepper(
        recipe, model, optimiser, body, device, trained=trained, rate=rate, rank=rank, adversary=adversary
    )
    sampler = Sampler(
        stores, recipe.data, frames=recipe.model.frames, seed=recipe.seed, rank=rank, world=world,
        parts=recipe.accumulate,
    )  # fmt: skip
    validation = Validation(recipe, validation_folders(recipe, worker.features), body, rank=rank, world=world)
    writer = Writer(worker, model, optimiser, body, progress, rate, adversary) if rank == 0 else None

    for step, parts, waited in batches_ahead(sampler, first, total):
        begun = time.monotonic()
        late = rank == 0 and time.time() >= worker.stop_at
        try:
            values, stopping = stepper(step, parts, stop=late)
        except NotFinite as found:  # on every rank, with the same values
            raise InputError(divergence_message(found.values, sampler, step, worker.out)) from None
        done = step + 1
        if writer:
            writer.step(step, values, waited=waited, seconds=waited + time.monotonic() - begun)
        if done % recipe.steps_per_epoch == 0:
            errors = validation(model, done // recipe.steps_per_epoch)
            report(writer.epoch(done, errors) if writer else {})
            rate.validated(errors)
        if writer and (done % (worker.save_every or recipe.steps_per_epoch) == 0 or done == total or stopping):
            writer.save(done)
        if stopping:
            break
    if writer:
        writer.end()


def start_or_resume(
    worker: WorkerSpec,
    body: Body,
    stores: dict[str, FeatureStore],
    device: torch.device,
    adversary: Adversary | None,
    *,
    quiet: bool,
) -> tuple[TemporalModel, torch.optim.Optimizer, dict[str, Any]]:
    """Model, optimiser and progress: those of the last checkpoint, or new ones with progress {} if there is none.

    The adversary goes on from that checkpoint, too.
    """
    recipe = worker.recipe
    model = first_model(recipe, body, spin_regressor=worker.spin_regressor, start=worker.start, vae=worker.vae).to(
        device
    )
    new = worker.start is None and not newest_step(worker.out)  # else a checkpoint's weights replace these
    if recipe.whiten and new and isinstance(model, GLoT):
        whiten(model, list(stores.values()), shrinkage=recipe.whiten, seed=recipe.seed)
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(learnable, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return model, optimiser, resume(worker.out, model=model, optimiser=optimiser, adversary=adversary, quiet=quiet)


def adversary_of(worker: WorkerSpec, device: torch.device, *, rank: int, world: int) -> Adversary | None:
    """The motion discriminator of the run on this worker; None if its recipe has none."""
    recipe = worker.recipe
    if not recipe.discriminator.motions:
        return None
    motions = MotionStream(
        list(motion_files(recipe, worker.features).values()),
        frames=recipe.model.frames,
        batch_size=recipe.discriminator.batch_size,
        seed=recipe.seed,
        rank=rank,
        world=world,
    )
    return Adversary(recipe, motions, device)


def wrapped(model: TemporalModel, recipe: Recipe, wrap: Callable[[nn.Module], nn.Module] | None) -> nn.Module:
    """The model that is called in training: a DDP model if ``wrap`` is given, and compiled if the recipe says so."""
    trained: nn.Module = model
    if wrap is not None:
        trained = wrap(model)  # every parameter gets a gradient in every step, with any recipe, as DDP expects
    if recipe.compile:
        trained = torch.compile(trained)  # type: ignore[assignment]
    return trained


def batches_ahead(sampler: Sampler, first: int, total: int) -> Iterator[tuple[int, list[Batch], float]]:
    """(step, this rank's share of its batch, seconds waited for it) of the steps first ... total - 1.

    A thread reads the next batch while the caller trains on this one.
    """
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(sampler.batches, first)
        for step in range(first, total):
            asked = time.monotonic()
            parts = coming.result()
            waited = time.monotonic() - asked
            if step + 1 < total:
                coming = reader.submit(sampler.batches, step + 1)
            yield step, parts, waited


def divergence_message(values: dict[str, float], sampler: Sampler, step: int, out: Path) -> str:
    """The message for a loss or a gradient that is not finite: its terms, the windows of the step, and the remedy."""
    terms = ", ".join(name for name, value in values.items() if "/" in name and not math.isfinite(value))
    what = f"the loss is {values['loss']:g}" + (f" ({terms})" if terms else "")
    if math.isfinite(values["loss"]):
        what += f" and its gradient {values['gradient_norm']:g}"
    windows = sampler.describe(step)
    broken = [window for window, finite in windows if not finite]
    if broken:
        return (
            f"{what} at step {step + 1}: numbers that are NaN or infinite in {'; '.join(broken[:WINDOWS_NAMED])}; "
            "make these features again, or leave the set out"
        )
    named = "; ".join(window for window, _ in windows[:WINDOWS_NAMED])
    return (
        f"{what} at step {step + 1}, its data is all finite: {named} and {max(len(windows) - WINDOWS_NAMED, 0)} more "
        "windows; the run diverged. Start a new run in another folder with a lower lr or a clip_norm; the last "
        f"checkpoint stays in {out}"
    )
