"""Trains GLoT with Ray Train: feature sets and a recipe in, best and last checkpoint and an MLflow run out.

``fit`` is the whole run: check everything that can be checked before a worker starts, launch a TorchTrainer whose
workers run ``train_loop`` under DDP, publish its checkpoints. ``tuning/`` calls it once per trial.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

# Before ray is imported: report() waits for the controller's poll (2 s by default), and prints need no decoration.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.train
import torch
import torch.distributed as dist
import typer
from ray.train.torch import TorchTrainer, prepare_model

from glot import cli, config, ray_session, tracking
from glot.body import Body, load_body, require_body
from glot.checkpoint import load_training_state, save_checkpoint, save_training_state
from glot.config import Recipe
from glot.errors import InputError
from glot.evaluate import evaluate_split
from glot.location import location
from glot.losses import glot_loss
from glot.model import GLoT
from glot.official import load_spin_regressor
from glot.run_state import feature_lineage, open_state, training_folders, validation_folder, write_state
from glot.sampler import Sampler
from glot.store import FeatureStore

BEST_BY = "val_pa_mpjpe"
LOG_EVERY = 10  # steps between two points of the loss curve


@dataclass(frozen=True)
class Job:
    """All that ``train_loop`` needs; absolute paths, because workers start in a folder of their own."""

    recipe: Recipe
    features: Path
    lineage: dict[str, Any]  # what the features are (glot.run_state)
    out: Path
    body: Path | None
    spin_regressor: Path | None
    mlflow_uri: str
    run_id: str
    threads: int


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Rate of an epoch (0-based): linear from a tenth to the maximum over the warm-up, then a cosine back."""
    low, span, warmup = recipe.lr / 10, recipe.lr * 9 / 10, recipe.warmup_epochs
    if epoch < warmup:
        return low + span * epoch / warmup
    return low + span * (1 + math.cos(math.pi * (epoch - warmup) / (recipe.epochs - warmup))) / 2


def first_model(recipe: Recipe, body: Body, spin_regressor: Path | None) -> GLoT:
    """The model that training starts from: the same everywhere, with one worker or many."""
    torch.manual_seed(recipe.seed)
    mean = (body.mean_pose.cpu(), body.mean_shape.cpu(), body.mean_cam.cpu())
    model = GLoT(recipe.model, mean_pose=mean[0], mean_shape=mean[1], mean_cam=mean[2])
    if spin_regressor is not None:
        load_spin_regressor(model, spin_regressor)
    return model


def over_workers(values: torch.Tensor) -> torch.Tensor:
    """The mean of the workers' values; every worker must ask."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def train_loop(settings: dict[str, Any]) -> None:
    """What every worker runs."""
    job: Job = settings["job"]
    recipe, context = job.recipe, ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(job.threads)
    device = ray.train.torch.get_device()

    body = load_body(job.body).to(device)
    model = first_model(recipe, body, job.spin_regressor).to(device)
    # When nothing is masked the mask token gets no gradient, and DDP would wait for it.
    unused = {"find_unused_parameters": recipe.model.mask_ratio == 0}
    ddp = prepare_model(model, parallel_strategy_kwargs=unused) if world > 1 else model
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    first_epoch = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            first_epoch = load_training_state(Path(folder), model=model, optimiser=optimiser)

    stores = {name: FeatureStore.open(folder) for name, folder in training_folders(recipe, job.features).items()}
    sampler = Sampler(stores, recipe.data, frames=recipe.model.frames, seed=recipe.seed, rank=rank, world=world)
    validation = FeatureStore.open(validation_folder(recipe, job.features)) if rank == 0 else None
    run = tracking.Run(job.mlflow_uri, job.run_id) if rank == 0 and job.run_id else None
    best = math.inf
    begun, total_steps = time.monotonic(), (recipe.epochs - first_epoch) * recipe.steps_per_epoch

    with ThreadPoolExecutor(1) as loader:  # reads the next batch while this one is trained on
        coming = loader.submit(sampler.batch, first_epoch * recipe.steps_per_epoch)
        for epoch in range(first_epoch, recipe.epochs):
            # Dropout differs by rank and epoch, and is the same again after a restart. Masking comes with the windows.
            torch.manual_seed((recipe.seed * 1_000_003 + epoch) * 1_009 + rank)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, epoch)
            ddp.train()
            sums: dict[str, float] = {}
            waited, started = 0.0, time.monotonic()
            for inner in range(recipe.steps_per_epoch):
                step = epoch * recipe.steps_per_epoch + inner
                asked = time.monotonic()
                batch = coming.result()
                waited += time.monotonic() - asked
                coming = loader.submit(sampler.batch, step + 1)

                output = ddp(batch.features.to(device), batch.noise.to(device))
                targets = batch.targets.to(device)
                loss, terms = glot_loss(output, targets, body=body, config=recipe.loss, average=over_workers)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                # Once DDP has averaged the gradients, so that all workers do the same.
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm or math.inf)
                optimiser.step()

                said = over_workers(torch.stack([loss.detach(), *terms.values()]))
                values = dict(zip(("loss", *terms), said.tolist(), strict=True)) | {"gradient_norm": float(norm)}
                if not math.isfinite(values["loss"]):
                    raise FloatingPointError(f"the loss is {values['loss']} at step {step}: {values}")
                sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
                if run and (inner + 1) % LOG_EVERY == 0:
                    run.metrics({"train_loss": values["loss"]}, step=step + 1)

            seconds = time.monotonic() - started
            metrics = {f"train_{name}": value / recipe.steps_per_epoch for name, value in sums.items()}
            metrics |= {"lr": learning_rate(recipe, epoch), "epoch": epoch + 1, BEST_BY: math.inf}
            metrics["windows_per_s"] = recipe.steps_per_epoch * recipe.data.batch_size / seconds
            metrics["data_wait"] = waited / seconds
            if validation is not None and epoch >= min(recipe.first_eval_epoch, recipe.epochs - 1):
                result = evaluate_split(model, validation, body, vertices=True)
                metrics |= {f"val_{name}": value for name, value in result.metrics.items()}
            if rank == 0:
                best = min(best, metrics[BEST_BY])
                done = (epoch + 1 - first_epoch) * recipe.steps_per_epoch
                left = (time.monotonic() - begun) / done * (total_steps - done)
                print(
                    f"epoch {epoch + 1}/{recipe.epochs}  loss {metrics['train_loss']:.2f}  "
                    f"{metrics['windows_per_s']:.0f} windows/s  "
                    f"val PA-MPJPE {metrics[BEST_BY]:.1f} mm (best {best:.1f})  "
                    f"about {left:.0f} s left",
                    flush=True,
                )
                if run:
                    run.metrics(
                        {k: v for k, v in metrics.items() if math.isfinite(v)},
                        step=(epoch + 1) * recipe.steps_per_epoch,
                    )
            report_epoch(job, model, optimiser, metrics, epoch=epoch, rank=rank, body=body)


def report_epoch(
    job: Job, model: GLoT, optimiser: torch.optim.Optimizer, metrics: dict, *, epoch: int, rank: int, body: Any
) -> None:
    """Hands an epoch to Ray Train: every rank reports, rank 0 brings the checkpoint."""
    with tempfile.TemporaryDirectory() if rank == 0 else nullcontext() as folder:
        checkpoint = None
        if folder:
            target = Path(folder) / "checkpoint"
            save_checkpoint(
                target,
                model=model,
                recipe=job.recipe,
                body={"name": "open" if body.is_open else str(job.body), "hash": body.file_hash, "open": body.is_open},
                features=job.lineage,
                metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
                step=(epoch + 1) * job.recipe.steps_per_epoch,
            )
            save_training_state(target, model=model, optimiser=optimiser, epoch=epoch + 1)
            checkpoint = ray.train.Checkpoint.from_directory(target)
        ray.train.report(metrics, checkpoint=checkpoint)
    if ray.is_initialized():
        # The last report can get lost when the process ends right after it; this waits until it is on disk.
        ray.train.get_all_reported_checkpoints(consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED)


def preflight(*, workers: int, gpus: int, cpus_per_worker: float) -> None:
    """InputError when the cluster can never hold the workers: Ray would wait for them without an end, and silently."""
    have = ray.cluster_resources()
    if gpus > have.get("GPU", 0):
        raise InputError(
            f"--gpus {gpus}: this cluster has {have.get('GPU', 0):.0f}; ask for fewer, or use --workers N on CPUs"
        )
    if not gpus and workers * cpus_per_worker > have.get("CPU", 0):
        raise InputError(
            f"--workers {workers}: this cluster has {have.get('CPU', 0):.0f} CPU cores; ask for fewer workers"
        )


def publish(source: ray.train.Checkpoint, target: Path) -> None:
    """Copies a checkpoint out of Ray's storage; ``target`` is replaced only by a whole one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    source.to_directory(temporary)
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)


def fit(
    recipe: Recipe,
    *,
    features: Path,
    out: Path,
    workers: int = 1,
    gpus: int = 0,
    cpus_per_worker: float = 1.0,
    body: Path | None = None,
    spin_regressor: Path | None = None,
    mlflow: str = "",
    experiment: str = "glot",
    parent: str = "",
    fresh: bool = False,
) -> dict[str, float]:
    """Trains a recipe and returns the metrics of its best epoch; ``out`` gets best/, last/, run.json and Ray's files.

    Started again with the same ``out`` it goes on after the last finished epoch, or returns at once when it is done.
    ``mlflow`` is a tracking URI, "" for none; ``parent`` the MLflow run to nest under. Ray must be running.
    """
    features, out = features.resolve(), out.resolve()
    lineage = feature_lineage(recipe, features)
    recipe = replace(recipe, model=replace(recipe.model, feature_size=lineage["backbone"]["feature_size"]))
    the_body = load_body(body)
    require_body(the_body, lineage["body"], "features")  # here, not in a worker
    start = ""
    if spin_regressor is not None:
        first_model(recipe, the_body, spin_regressor)
        start = hashlib.sha256(spin_regressor.read_bytes()).hexdigest()[:16]
    preflight(workers=workers, gpus=gpus, cpus_per_worker=cpus_per_worker)
    stored = json.loads(json.dumps(config.to_dict(recipe)))
    state = {"recipe": stored, "features": lineage, "spin_regressor": start, "status": "running"}
    state = open_state(out, state, fresh=fresh)
    if state["status"] == "finished":
        print(f"{out}: already trained, nothing to do (--fresh trains it anew)")
        return state["metrics"]

    run_id = ""
    if mlflow:
        key = hashlib.sha256(str(out).encode()).hexdigest()[:16]
        tags = {f"features.{name}": value for name, value in lineage["sets"].items()} | {"out": str(out)}
        run_id = tracking.open_run(
            mlflow,
            tracking.prepare(mlflow, experiment),
            name=out.name,
            key=key,
            params=config.flat(recipe),
            tags=tags,
            parent=parent,
        )
    total = gpus or workers
    threads = max(1, int(cpus_per_worker))
    job = Job(
        recipe,
        features,
        lineage,
        out,
        body=body.resolve() if body else None,
        spin_regressor=spin_regressor.resolve() if spin_regressor else None,
        mlflow_uri=mlflow,
        run_id=run_id,
        threads=threads,
    )
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=total, use_gpu=bool(gpus), resources_per_worker=None if gpus else {"CPU": cpus_per_worker}
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(out),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=BEST_BY, checkpoint_score_order="min"
            ),
            # Else every report is printed twice, whole. (Type checkers are shown the signature of an older Ray Train.)
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
    )
    status = "FAILED"
    try:
        result = trainer.fit()
        if result.checkpoint is None or not result.best_checkpoints:
            raise InputError(f"{out}/ray: no checkpoint came back from the run; start over with --fresh")
        best, metrics = min(result.best_checkpoints, key=lambda pair: pair[1][BEST_BY])
        publish(best, out / "best")
        publish(result.checkpoint, out / "last")
        metrics = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and math.isfinite(v)}
        write_state(out, {**state, "status": "finished", "metrics": metrics})
        status = "FINISHED"
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)  # Ray wraps what a worker raised
            if isinstance(cause, InputError):
                raise cause from None
        raise
    finally:
        if run_id:
            run = tracking.Run(mlflow, run_id)
            if status == "FINISHED":
                run.artifact(out / "best", "best")
                run.metrics({f"best_{k}": v for k, v in metrics.items() if k.startswith("val_")}, step=0)
            run.close(status)
    return metrics


def connect(*, workers: int, gpus: int) -> None:
    """Ray with room for the workers; InputError at once where this machine lacks the GPUs."""
    if not os.environ.get("RAY_ADDRESS") and gpus > torch.cuda.device_count():  # before the seconds Ray takes to start
        raise InputError(
            f"--gpus {gpus}: this machine has {torch.cuda.device_count()}; ask for fewer, use --workers N on CPUs, "
            "or set RAY_ADDRESS to a cluster"
        )
    ray_session.connect(cpus=max(workers, os.cpu_count() or 1), training=True)


def main(
    features: Annotated[
        Path, typer.Option(parser=location, help="Folder or URI of feature sets: DIR/<dataset>/<split>.")
    ],
    out: Annotated[Path, typer.Option(help="Where checkpoints and the state of this run go. One folder, one run.")],
    recipe: Annotated[str, typer.Option(help=f"What to train: {', '.join(config.RECIPES)}.")] = "open_sample",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs, one DDP worker each (nccl).")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="DDP workers on CPUs (gloo), when there is no GPU.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")
    ] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    spin_regressor: Annotated[
        Path | None, typer.Option(help="Start the iterative regressor from SPIN's (spin_model_checkpoint.pth.tar).")
    ] = None,
    mlflow: Annotated[str, typer.Option(help="MLflow tracking URI, or 'none'; OUT/../mlflow.db when left out.")] = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "glot",
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left in OUT.")] = False,
) -> None:
    """Train GLoT on extracted features with Ray Train (DDP).

    Interrupted? The same command goes on after the last finished epoch. Every field of a recipe can be set, for example
    `--set model.mask_ratio=0.25 --set epochs=3`; the resolved recipe is stored with every checkpoint and MLflow run.

    Example: `python -m glot.train_ray --recipe open_sample --features runs/demo/features --out runs/first --workers 2`
    """
    if gpus and workers:
        raise InputError(
            f"--gpus {gpus} --workers {workers}: give one of them, a worker holds either a GPU or a CPU core"
        )
    chosen = config.recipe_named(recipe, setting or [])
    feature_lineage(chosen, features)  # says what is missing before Ray starts
    total = workers or gpus or 1
    connect(workers=total, gpus=gpus)
    uri = "" if mlflow == "none" else mlflow or tracking.default_uri(out.resolve().parent)
    cores = os.cpu_count() or 1
    metrics = fit(
        chosen,
        features=features,
        out=out,
        workers=total,
        gpus=gpus,
        cpus_per_worker=1 if gpus else max(1, cores // total),
        body=body,
        spin_regressor=spin_regressor,
        mlflow=uri,
        experiment=experiment,
        fresh=fresh,
    )
    shown = "  ".join(
        f"{name.removeprefix('val_')} {value:.1f}" for name, value in metrics.items() if name.startswith("val_")
    )
    print(f"best epoch {metrics.get('epoch', 0):.0f}: {shown} (mm)\ncheckpoint: {out / 'best'}")
    if uri:
        print(f"MLflow: {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {uri}")


def command() -> None:
    """Entry point of ``glot-train``."""
    cli.run(main)


if __name__ == "__main__":
    command()
