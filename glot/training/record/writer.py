"""Values of steps in; printed lines, points of curves, epochs.json and checkpoints out. Only rank 0 has a writer."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from glot.human.body import Body
from glot.location import write_json
from glot.models.checkpoint import DISCRIMINATOR, save_checkpoint
from glot.models.temporal_model import TemporalModel
from glot.training.adversary import Adversary
from glot.training.record.curve_points import PointWriter
from glot.training.record.progress import ProgressLines
from glot.training.run_state import BEST_BY, EPOCHS, POINTS
from glot.training.schedule import LearningRate
from glot.training.spec import WorkerSpec
from glot.training.step_checkpoints import save_step, saving

LOG_EVERY = 10  # steps between two points of the loss curve


class Writer:
    """Rank 0's record of a run. ``progress``: the values that an earlier start saved with its last checkpoint."""

    def __init__(
        self,
        worker: WorkerSpec,
        model: TemporalModel,
        optimiser: torch.optim.Optimizer,
        body: Body,
        progress: dict[str, Any],
        rate: LearningRate,
        adversary: Adversary | None = None,
    ) -> None:
        self.worker, self.recipe, self.rate = worker, worker.recipe, rate
        self.model, self.optimiser, self.body, self.adversary = model, optimiser, body, adversary
        self.points = PointWriter(worker.out / POINTS)
        self.sums: dict[str, float] = dict(progress.get("sums", {}))
        self.best = float(progress.get("best", math.inf))
        self.history: list[dict[str, float]] = [dict(row) for row in progress.get("history", [])]
        self.done = int(progress.get("step", 0))
        self.lines = ProgressLines(worker.recipe, self.done)

    def step(self, step: int, values: dict[str, float], *, waited: float, seconds: float) -> None:
        """Records the values of a step (0-based). ``waited``: the part of ``seconds`` spent waiting for its data."""
        self.done = step + 1
        for name, value in (values | {"waited": waited, "seconds": seconds}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        steps_of_epoch = step % self.recipe.steps_per_epoch + 1
        if self.done % LOG_EVERY == 0:
            self.points.write({f"step_{name}": value for name, value in values.items()}, step=self.done)
        if self.lines.due and steps_of_epoch < self.recipe.steps_per_epoch:
            rate = self.recipe.data.batch_size * steps_of_epoch / self.sums["seconds"]
            self.lines.report(self.done, loss=values["loss"], rate=rate, best=self.best)

    def epoch(self, done: int, errors: dict[str, float]) -> dict[str, float]:
        """Saves and returns the metrics of the epoch that ends after ``done`` steps: means over steps, and ``errors``,
        those on the validation sets (glot.training.validation)."""
        metrics = self._means(done) | errors
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.history.append(finite | {"step": done})
        if metrics[BEST_BY] < self.best or not (self.worker.out / "best").exists():
            self.best = metrics[BEST_BY]
            self._checkpoint("best", finite, done)
        write_json(self.worker.out / EPOCHS, self.history)
        self.lines.report(
            self.done,
            loss=metrics["train_loss"],
            rate=metrics["windows_per_s"],
            best=self.best,
            error=metrics[BEST_BY],
        )
        self.points.write(finite, step=done)
        self.sums = {}
        return metrics

    def save(self, done: int) -> None:
        """Writes the checkpoint that a restarted run continues from."""
        save_step(
            self.worker.out,
            model=self.model,
            optimiser=self.optimiser,
            adversary=self.adversary,
            recipe=self.recipe,
            body=self._body_entry(),
            features=self.worker.lineage,
            step=done,
            progress={"best": self.best, "sums": self.sums, "history": self.history},
        )

    def end(self) -> None:
        """Writes the checkpoint ``last`` if all steps are done."""
        if self.done == self.lines.total and self.history:
            self._checkpoint("last", self.history[-1], self.done)
        self.points.close()

    def _means(self, done: int) -> dict[str, float]:
        """Means over the steps of the epoch that ends after ``done`` steps; its learning rate and its speed."""
        count, epoch = self.recipe.steps_per_epoch, done // self.recipe.steps_per_epoch
        waited, seconds = self.sums.pop("waited"), self.sums.pop("seconds")
        metrics = {f"train_{name}": value / count for name, value in self.sums.items()}
        metrics |= {"lr": self.rate(epoch - 1), "epoch": epoch, BEST_BY: math.inf}
        return metrics | {
            "windows_per_s": count * self.recipe.data.batch_size / seconds,
            "data_wait": waited / seconds,
        }

    def _checkpoint(self, name: str, metrics: dict[str, float], step: int) -> None:
        with saving(self.worker.out / name) as folder:
            save_checkpoint(
                folder,
                model=self.model,
                recipe=self.recipe,
                body=self._body_entry(),
                features=self.worker.lineage,
                metrics=metrics,
                step=step,
                beside=self._discriminator,
            )

    def _discriminator(self, folder: Path) -> None:
        """Adds the weights of the motion discriminator to a checkpoint, as the releases do."""
        if self.adversary:
            weights = self.adversary.discriminator.state_dict()
            save_file({name: tensor.detach().cpu() for name, tensor in weights.items()}, folder / DISCRIMINATOR)

    def _body_entry(self) -> dict[str, Any]:
        """The entry ``body`` of a checkpoint."""
        body = self.body
        return {
            "name": "open" if body.is_open else str(self.worker.body),
            "hash": body.file_hash,
            "open": body.is_open,
        }
