"""Feature sets and a recipe in, checkpoints and a log out: what each worker of a training run does, Ray or no Ray.

A step is determined by its number: its windows and what is hidden of them (glot.training.sampler), its dropout, its learning
rate. So a run taken up at a step goes on as if it had not stopped, and a step done again comes out the same.
"""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glot.config import Recipe
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.location import write_whole
from glot.models.checkpoint import assign, save_checkpoint
from glot.models.glot import GLoT
from glot.models.inference import load_model
from glot.models.losses import frame_counts, glot_loss
from glot.models.official_files import load_spin_regressor
from glot.models.whitening import whiten
from glot.scoring.evaluation import evaluate_split
from glot.training import mlflow_runs
from glot.training.run_state import EPOCHS, SPOOL, training_folders, validation_folders
from glot.training.sampler import Batch, Sampler
from glot.training.step_checkpoints import newest_step, resume, save_step

BEST_BY = "val_pa_mpjpe"
LOG_EVERY = 10  # steps between two points of the loss curve
SAY_EVERY = 20.0  # seconds between two lines within an epoch
WINDOWS_NAMED = 4


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; absolute paths, because workers start in a folder of their own."""

    recipe: Recipe
    features: Path
    lineage: dict[str, Any]  # what the features are (glot.training.run_state)
    out: Path
    body: Path | None
    spin_regressor: Path | None
    start: Path | None  # a checkpoint whose weights training starts from
    mlflow_uri: str
    run_id: str
    threads: int
    save_every: int  # steps; 0: after every epoch
    stop_at: float  # seconds since 1970, by the clock of rank 0; math.inf: never


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Rate of an epoch (0-based): linear from a tenth to the maximum over the warm-up, then a cosine back.

    It belongs to the global batch (``data.batch_size``), however many workers share that, and is never scaled.
    """
    low, span, warmup = recipe.lr / 10, recipe.lr * 9 / 10, recipe.warmup_epochs
    if epoch < warmup:
        return low + span * epoch / warmup
    return low + span * (1 + math.cos(math.pi * (epoch - warmup) / (recipe.epochs - warmup))) / 2


def first_model(recipe: Recipe, body: Body, *, spin_regressor: Path | None = None, start: Path | None = None) -> GLoT:
    """The model that training starts from: the same everywhere, with one worker or many.

    ``start``: a checkpoint whose weights it takes over whole; InputError if they are not of the recipe's architecture.
    """
    torch.manual_seed(recipe.seed)
    mean = (body.mean_pose.cpu(), body.mean_shape.cpu(), body.mean_cam.cpu())
    model = GLoT(recipe.model, mean_pose=mean[0], mean_shape=mean[1], mean_cam=mean[2])
    if spin_regressor is not None:
        load_spin_regressor(model, spin_regressor)
    if start is not None:
        assign(model, load_model(start).model.state_dict(), start)
    return model


def over_workers(values: Tensor) -> Tensor:
    """The mean of the workers' values; every worker must ask."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


@dataclass
class Stepper:
    """One optimiser step at a time of one worker of a run."""

    recipe: Recipe
    model: GLoT
    trained: nn.Module  # the model as DDP and torch.compile made it
    optimiser: torch.optim.Optimizer
    body: Body
    device: torch.device
    rank: int = 0

    def __call__(self, step: int, parts: list[Batch], *, stop: bool = False) -> tuple[dict[str, float], bool]:
        """Takes step number ``step`` on this worker's share of its batch; loss, terms and gradient norm over all
        workers come back, and whether any of them wants to stop."""
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + self.rank)  # dropout
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step // self.recipe.steps_per_epoch)
        self.trained.train()
        moved = [(p.features.to(self.device), p.targets.to(self.device), p.noise.to(self.device)) for p in parts]
        counts = over_workers(torch.stack([self._counts(targets, noise) for _, targets, noise in moved]).mean(0))
        self.optimiser.zero_grad(set_to_none=True)
        said: list[Tensor] = []
        names: list[str] = []
        for number, (features, targets, noise) in enumerate(moved, 1):
            last = number == len(moved)
            # Workers' gradients are averaged once a step.
            no_sync: Any = nullcontext if last else getattr(self.trained, "no_sync", nullcontext)
            with no_sync():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                    output = self.trained(features, noise)
                loss, terms = glot_loss(output, targets, body=self.body, config=self.recipe.loss, counts=counts)
                (loss / len(moved)).backward()
            said.append(torch.stack([loss.detach(), *terms.values()]))
            names = ["loss", *terms]
        # Once DDP has averaged the gradients, so that all workers do the same.
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm or math.inf)
        self.optimiser.step()
        flag = torch.full((1,), float(stop), device=self.device)
        *values, stopping = over_workers(torch.cat([torch.stack(said).mean(0), flag])).tolist()
        return dict(zip(names, values, strict=True)) | {"gradient_norm": float(norm)}, stopping > 0

    def _counts(self, targets: Any, noise: Tensor) -> Tensor:
        motion = self.model.motion
        mask = motion.choose(noise)[1] if motion.kept < self.recipe.model.frames else torch.zeros_like(noise).bool()
        local = self.recipe.model.local_supervised_frames if self.model.correction is not None else 0
        return frame_counts(targets, mask, local_frames=local)


def train(
    job: Job,
    *,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
    wrap: Callable[..., nn.Module] | None = None,
    report: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> None:
    """Trains until the recipe's last step or until ``job.stop_at``, from wherever an earlier start came to.

    Writes ``out``/steps, best, and at the end last. ``wrap(model, **options)`` makes it a DDP model; ``report`` is told
    the metrics of every epoch, on every rank. InputError where the loss is no longer a number, naming the batch.
    """
    recipe = job.recipe
    torch.set_num_threads(job.threads)
    device = device or torch.device("cpu")
    body = load_body(job.body).to(device)
    model = first_model(recipe, body, spin_regressor=job.spin_regressor, start=job.start).to(device)
    stores = {name: FeatureStore.open(folder) for name, folder in training_folders(recipe, job.features).items()}
    if recipe.whiten and job.start is None and not newest_step(job.out):  # a checkpoint's weights replace it all
        whiten(model, list(stores.values()), shrinkage=recipe.whiten, seed=recipe.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    progress = resume(job.out, model=model, optimiser=optimiser, quiet=rank > 0)
    first, total = int(progress.get("step", 0)), recipe.epochs * recipe.steps_per_epoch
    if float(over_workers(torch.tensor([float(first)], device=device))) != first:
        raise InputError(
            f"{job.out}: the workers do not see the same checkpoints there; is it one file system for all?"
        )
    trained: nn.Module = model
    if world > 1 and wrap is not None:
        # When nothing is masked the mask token gets no gradient, and DDP would wait for it.
        trained = wrap(model, find_unused_parameters=recipe.model.mask_ratio == 0)
    if recipe.compile:
        trained = torch.compile(trained)  # type: ignore[assignment]
    stepper = Stepper(recipe, model, trained, optimiser, body, device, rank)

    sampler = Sampler(
        stores,
        recipe.data,
        frames=recipe.model.frames,
        seed=recipe.seed,
        rank=rank,
        world=world,
        parts=recipe.accumulate,
    )
    writer = Writer(job, model, optimiser, body, progress) if rank == 0 else None
    save_every = job.save_every or recipe.steps_per_epoch

    with ThreadPoolExecutor(1) as loader:  # reads the next batch while this one is trained on
        coming = loader.submit(sampler.batches, first)
        for step in range(first, total):
            asked = time.monotonic()
            parts = coming.result()
            waited = time.monotonic() - asked
            if step + 1 < total:
                coming = loader.submit(sampler.batches, step + 1)
            late = rank == 0 and time.time() >= job.stop_at
            values, stopping = stepper(step, parts, stop=late)
            if not math.isfinite(values["loss"]):  # the same on every rank
                raise InputError(diverged(values, sampler, step, job.out))
            if writer:
                writer.step(step, values, waited=waited, seconds=time.monotonic() - asked)
            done = step + 1
            if done % recipe.steps_per_epoch == 0:
                report(writer.epoch(done) if writer else {})
            if writer and (done % save_every == 0 or done == total or stopping):
                writer.save(done)
            if stopping:
                break
        if writer:
            writer.end()


def diverged(values: dict[str, float], sampler: Sampler, step: int, out: Path) -> str:
    """What went wrong at a step, in which windows, and what can be done."""
    terms = ", ".join(name for name, value in values.items() if not math.isfinite(value) and name != "loss")
    windows = sampler.describe(step)
    odd = [what for what, finite in windows if not finite]
    if odd:
        return (
            f"the loss is {values['loss']} at step {step + 1}: numbers that are NaN or infinite in "
            f"{'; '.join(odd[:WINDOWS_NAMED])}; make these features again, or leave the set out"
        )
    named = "; ".join(what for what, _ in windows[:WINDOWS_NAMED])
    return (
        f"the loss is {values['loss']} at step {step + 1} ({terms}), its data is all finite: {named} and "
        f"{max(len(windows) - WINDOWS_NAMED, 0)} more windows; the run diverged. Start it anew in another folder with "
        f"a lower lr or a clip_norm; {out} keeps its last checkpoint"
    )


class Writer:
    """Rank 0's record of a run: lines, MLflow, checkpoints. It goes on where ``progress`` says it was."""

    def __init__(
        self, job: Job, model: GLoT, optimiser: torch.optim.Optimizer, body: Body, progress: dict[str, Any]
    ) -> None:
        self.job, self.model, self.optimiser, self.body = job, model, optimiser, body
        recipe = job.recipe
        self.validation = {n: FeatureStore.open(f) for n, f in validation_folders(recipe, job.features).items()}
        self.run = None
        if job.run_id:
            self.run = mlflow_runs.Run(job.mlflow_uri, job.run_id, spool=job.out / SPOOL, resumed=True)
        self.sums: dict[str, float] = dict(progress.get("sums", {}))
        self.best = float(progress.get("best", math.inf))
        self.history: list[dict[str, float]] = [dict(row) for row in progress.get("history", [])]
        self.first, self.done = int(progress.get("step", 0)), int(progress.get("step", 0))
        self.total = recipe.epochs * recipe.steps_per_epoch
        self.begun = self.said = time.monotonic()
        if self.first:
            print(f"goes on behind step {self.first} of {self.total}", flush=True)

    def step(self, step: int, values: dict[str, float], *, waited: float, seconds: float) -> None:
        """Notes a step's values."""
        self.done = step + 1
        for name, value in (values | {"waited": waited, "seconds": seconds}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        inner = step % self.job.recipe.steps_per_epoch + 1
        if self.run and self.done % LOG_EVERY == 0:
            self.run.metrics({f"step_{name}": value for name, value in values.items()}, step=self.done)
        if time.monotonic() - self.said >= SAY_EVERY and inner < self.job.recipe.steps_per_epoch:
            self._say(values["loss"], self.job.recipe.data.batch_size * inner / self.sums["seconds"])

    def epoch(self, done: int) -> dict[str, float]:
        """Metrics of the epoch that ends behind ``done`` steps: means of its steps, and validation."""
        recipe = self.job.recipe
        count, epoch = recipe.steps_per_epoch, done // recipe.steps_per_epoch
        waited, seconds = self.sums.pop("waited"), self.sums.pop("seconds")
        metrics = {f"train_{name}": value / count for name, value in self.sums.items()}
        metrics |= {"lr": learning_rate(recipe, epoch - 1), "epoch": epoch, BEST_BY: math.inf}
        metrics |= {"windows_per_s": count * recipe.data.batch_size / seconds, "data_wait": waited / seconds}
        if epoch > min(recipe.first_eval_epoch, recipe.epochs - 1):
            for number, (name, store) in enumerate(self.validation.items()):
                result = evaluate_split(self.model, store, self.body, vertices=True)
                prefix = f"val_{name}_" if number else "val_"
                metrics |= {f"{prefix}{metric}": value for metric, value in result.metrics.items()}
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.history.append(finite | {"step": done})
        if metrics[BEST_BY] < self.best or not (self.job.out / "best").exists():
            self.best = metrics[BEST_BY]
            self._checkpoint("best", finite, done)
        write_whole(self.job.out / EPOCHS, (json.dumps(self.history, indent=1) + "\n").encode())
        self._say(metrics["train_loss"], metrics["windows_per_s"], metrics[BEST_BY])
        if self.run:
            self.run.metrics(finite, step=done)
        self.sums = {}
        return metrics

    def save(self, done: int) -> None:
        """A checkpoint to go on from."""
        progress = {"best": self.best, "sums": self.sums, "history": self.history}
        save_step(
            self.job.out,
            model=self.model,
            optimiser=self.optimiser,
            recipe=self.job.recipe,
            body=self._body(),
            features=self.job.lineage,
            step=done,
            progress=progress,
        )

    def end(self) -> None:
        """The last checkpoint, when all steps are done."""
        if self.done == self.total and self.history:
            self._checkpoint("last", self.history[-1], self.total)
        if self.run:
            self.run.flush()

    def _checkpoint(self, name: str, metrics: dict[str, float], step: int) -> None:
        save_checkpoint(
            self.job.out / name,
            model=self.model,
            recipe=self.job.recipe,
            body=self._body(),
            features=self.job.lineage,
            metrics=metrics,
            step=step,
        )

    def _body(self) -> dict[str, Any]:
        body = self.body
        return {"name": "open" if body.is_open else str(self.job.body), "hash": body.file_hash, "open": body.is_open}

    def _say(self, loss: float, rate: float, error: float | None = None) -> None:
        """The line a person reads."""
        recipe, now = self.job.recipe, time.monotonic()
        self.said = now
        left = (now - self.begun) / max(self.done - self.first, 1) * (self.total - self.done)
        epoch = -(-self.done // recipe.steps_per_epoch)
        parts = [f"epoch {epoch}/{recipe.epochs}", f"step {self.done}/{self.total}", f"loss {loss:.2f}"]
        parts.append(f"{rate:.0f} windows/s")
        if error is not None and math.isfinite(error):
            parts.append(f"val PA-MPJPE {error:.1f} mm")
        if math.isfinite(self.best):
            parts.append(f"best {self.best:.1f}")
        print("  ".join([*parts, f"about {duration(left)} left"]), flush=True)


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
