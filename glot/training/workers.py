"""Two ways to launch the workers of a prepared run: with Ray Train, or with this process as the only worker.

``glot.training.driver.fit`` takes one of the two. Both run glot.training.loop, which saves its progress in the run's
folder, so a launch can be repeated and continues from the last checkpoint.
"""

import logging
import shutil
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

# Before ray: this module sets the environment variables that ray reads when it is imported.
from glot.training.cluster.preflight import (
    available_slots,
    check_nodes,
    check_room,
    claim_of,
    free_cores_each,
    say_what_waits,
)

# isort: split
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_model

from glot.errors import InputError, NotNowError
from glot.training.batch_split import describe_split
from glot.training.cluster.placement import Resources
from glot.training.failures import Tries
from glot.training.loop import train
from glot.training.spec import TrainSpec, WorkerSpec
from glot.training.step_checkpoints import newest_step

RAY_FILES = "ray"  # Ray Train's own files in a run's folder


class Launcher(Protocol):
    """How the workers of a run are started."""

    def check_resources(self, spec: TrainSpec) -> None:
        """InputError when the resources can never be enough for the run's workers."""

    def check_nodes(self, spec: TrainSpec, features: Path, out: Path) -> None:
        """InputError when a worker would not see the features or the run's folder (absolute paths)."""

    def run(self, spec: TrainSpec, worker: WorkerSpec) -> None:
        """Runs the workers, and returns when all have ended. Each gets ``worker``, with a number of CPU threads.

        What may pass is tried again, from the last checkpoint; if it stays, it is a NotNowError. Everything else that
        a worker raises is raised at once.
        """


@dataclass(frozen=True)
class ThisProcess:
    """This process is the only worker. It already holds the core or the GPU that it needs, and starts without Ray."""

    report: Callable[[dict[str, float]], None]  # called with the metrics of every epoch
    gpu: bool = False
    threads: int = 1

    def check_resources(self, spec: TrainSpec) -> None:
        """Nothing to check: the process holds its resources."""

    def check_nodes(self, spec: TrainSpec, features: Path, out: Path) -> None:
        """Nothing to check: the worker is this process."""

    def run(self, spec: TrainSpec, worker: WorkerSpec) -> None:
        """Trains until the recipe's last step, or until the run's time is over."""
        if self.gpu and not torch.cuda.is_available():
            raise InputError("this node's torch sees no GPU; install its CUDA build there, or train on CPUs")
        tries, worker = Tries(worker.out), replace(worker, threads=self.threads)
        while True:
            try:
                return train(worker, device=torch.device("cuda" if self.gpu else "cpu"), report=self.report)
            except Exception as error:
                reason = tries.failed(error)
            print(f"warning: {reason}; continues after step {newest_step(worker.out)}", flush=True)


@dataclass(frozen=True)
class RayWorkers:
    """Ray Train's workers, as many as the spec asks for. Ray must be running."""

    # Held by a worker without a GPU. None: as many whole cores as all workers can have at the start.
    cpus_per_worker: float | None = 1.0
    callbacks: Sequence[Any] = ()  # Ray Train's; they receive the metrics of every epoch
    train: Callable[..., None] = train  # what each worker does, with the arguments of glot.training.loop.train

    def check_resources(self, spec: TrainSpec) -> None:
        """InputError when the cluster can never hold the workers."""
        check_room(spec.worker_count, claim_of(gpus=bool(spec.gpus), cores=self.cpus_per_worker or 1))

    def check_nodes(self, spec: TrainSpec, features: Path, out: Path) -> None:
        """InputError when a node does not see the files. Prints how many windows of a step each worker takes."""
        check_nodes(features, out)
        print(describe_split(spec.chosen_recipe, spec.worker_count, gpus=bool(spec.gpus)), flush=True)

    def run(self, spec: TrainSpec, worker: WorkerSpec) -> None:
        """Runs the workers until they have ended. Workers that die are started again from the last checkpoint.

        Where a node does not come back, the run continues with fewer workers. This does not change the optimisation,
        because the remaining workers share the same windows of a step.
        """
        wanted = slots = spec.worker_count
        cores = 1 if spec.gpus else self.cpus_per_worker or free_cores_each(wanted)
        claim = claim_of(gpus=bool(spec.gpus), cores=cores)
        tries, worker = Tries(worker.out), replace(worker, threads=max(1, int(cores)))
        say_what_waits(wanted, claim)
        while True:
            try:
                self._trainer(worker, slots, claim).fit()
                return
            except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
                reason = tries.failed(error)
            finally:
                shutil.rmtree(worker.out / RAY_FILES, ignore_errors=True)
            slots = available_slots(wanted, claim)
            if not slots:
                raise NotNowError(
                    f"{worker.out}: no node is left to train on; continue with --resume when there is one"
                )
            print(
                f"warning: {reason}; {slots} of {wanted} continue after step {newest_step(worker.out)}",
                flush=True,
            )

    def _trainer(self, worker: WorkerSpec, slots: int, claim: Resources) -> TorchTrainer:
        return TorchTrainer(
            ray_worker,
            train_loop_config={"worker": worker, "train": self.train},
            scaling_config=ray.train.ScalingConfig(
                num_workers=slots,
                use_gpu="GPU" in claim,
                resources_per_worker=dict(claim),
            ),
            run_config=ray.train.RunConfig(
                name=f"ray-{uuid.uuid4().hex[:8]}",  # a new name, because Ray resumes a run whose name it knows
                storage_path=str(worker.out / RAY_FILES),
                callbacks=list(self.callbacks),
                # Otherwise every report is printed twice in full, and on a busy machine there are traces that say of
                # themselves that they do not matter; Ray's own files have all. (Type checkers see an older signature.)
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
            ),
        )


def ray_worker(settings: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker. ``settings``: {"worker": WorkerSpec, "train": what to do}."""
    context = ray.train.get_context()
    logging.disable(logging.INFO)  # in this process; otherwise Ray Train prints the metrics of every report

    try:
        settings["train"](
            settings["worker"],
            rank=context.get_world_rank(),
            world=context.get_world_size(),
            device=ray.train.torch.get_device(),
            wrap=prepare_model,
            report=ray.train.report,
        )
    except Exception as error:
        logging.disable(logging.CRITICAL)  # otherwise Ray Train prints the trace, for each worker and in each try
        error.add_note(f"In a worker:\n{traceback.format_exc()}")  # the driver gets the error without its trace
        raise
