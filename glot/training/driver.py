"""Trains GLoT with Ray Train: feature sets and a recipe in, best and last checkpoint and an MLflow run out.

``fit`` is the whole run: check everything that can be checked before a worker starts, launch a TorchTrainer whose
workers run glot.training.loop under DDP, start them again if they die. ``tuning/`` calls it once per trial.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from glot import config
from glot.training import (
    curves,
    mlflow_runs,  # ray_session sets what ray reads when it is imported
    ray_session,
)

import ray  # isort: skip
import ray.train
import torch
import typer
from ray.train.torch import TorchTrainer, prepare_model
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from glot.config import Recipe
from glot.errors import InputError
from glot.features.schema import read_manifest
from glot.human.body import load_body, require_body
from glot.location import is_remote, location, temporary_of
from glot.models.checkpoint import WEIGHTS, read_config
from glot.models.inference import checkpoint_path, load_model_for
from glot.training.loop import Job, first_model, train
from glot.training.run_state import EPOCHS, SPOOL, feature_lineage, open_state, training_folders, write_state
from glot.training.step_checkpoints import newest_step, steps_folder

TRIES = 3  # in a row without a new checkpoint, before a run whose workers die is given up
NODE_SECONDS = 60.0  # that a lost node is waited for
ANSWER_SECONDS = 15.0  # a node that has not answered by then is lost
CONTINUE = 75  # exit code: not done, start me again (EX_TEMPFAIL)
RAY_FILES = "ray"


class Unfinished(Exception):
    """The time given to a run is over; what it did is saved."""


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


def check_nodes(features: Path, out: Path) -> None:
    """InputError unless every node of the cluster sees the features and what this process writes to ``out``."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    token = temporary_of(out / "seen-by-all")
    token.write_text("")
    places = [str(token)] + ([] if is_remote(features) else [str(features)])

    @ray.remote(num_cpus=0, max_retries=0)
    def missing() -> list[str]:
        return [place for place in places if not os.path.exists(place)]

    try:
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            unseen = ray.get(missing.options(scheduling_strategy=there).remote(), timeout=60)
            if unseen:
                what = f"--out {out}" if str(token) in unseen else f"--features {features}"
                raise InputError(
                    f"{what}: the node {node['NodeManagerAddress']} does not see it; put it on a file system that all "
                    "nodes share"
                )
    finally:
        token.unlink(missing_ok=True)


def room_for(asked: int, *, gpus: bool, cpus_per_worker: float) -> int:
    """How many of the ``asked`` workers the cluster holds now; waits a while for a lost node to come back."""
    deadline = time.monotonic() + NODE_SECONDS
    while True:
        have = answering_resources()
        room = int(have.get("GPU", 0)) if gpus else int(have.get("CPU", 0) / cpus_per_worker + 1e-6)
        if room >= asked or time.monotonic() > deadline:
            return min(room, asked)
        time.sleep(1)


def answering_resources() -> dict[str, float]:
    """Resources of the nodes that answer now. Ray goes on counting a dead node for a while, and would wait for it."""

    @ray.remote(num_cpus=0, max_retries=0)
    def here() -> bool:
        return True

    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        here.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    have: dict[str, float] = {}
    for reference in ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)[0]:
        try:
            ray.get(reference)
        except ray.exceptions.RayError:
            continue
        for kind, amount in asked[reference]["Resources"].items():
            have[kind] = have.get(kind, 0) + amount
    return have


def run_here(job: Job, *, gpus: float, report: Callable[[dict[str, float]], None]) -> None:
    """The one worker of a run in this process, which holds the core or the GPU for it already: starts at once."""
    if gpus and not torch.cuda.is_available():
        raise InputError("this node's torch sees no GPU; install its CUDA build there, or train on CPUs")
    train(job, device=torch.device("cuda" if gpus else "cpu"), report=report)


def run_workers(job: Job, *, workers: int, gpus: int, cpus_per_worker: float, callbacks: Sequence[Any] = ()) -> None:
    """Ray Train's workers until they have ended; those that die are started again at the last checkpoint.

    How many there are changes nothing about the optimisation (a step's windows are shared by whoever is there), so a
    run goes on with fewer where a node does not come back.
    """
    asked = now = gpus or workers
    tries = TRIES
    while True:
        before = newest_step(job.out)
        trainer = TorchTrainer(
            train_loop,
            train_loop_config={"job": job},
            scaling_config=ray.train.ScalingConfig(
                num_workers=now, use_gpu=bool(gpus), resources_per_worker=None if gpus else {"CPU": cpus_per_worker}
            ),
            run_config=ray.train.RunConfig(
                name=f"ray-{uuid.uuid4().hex[:8]}",  # a name it has seen would make Ray resume something
                storage_path=str(job.out / RAY_FILES),
                callbacks=list(callbacks),
                # Else every report is printed twice, whole. (Type checkers see the signature of an older Ray Train.)
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            ),
        )
        try:
            trainer.fit()
            return
        except (ray.train.WorkerGroupError, ray.train.ControllerError, ray.exceptions.RayError) as error:
            reason = cause_of(error)
            tries = TRIES if newest_step(job.out) != before else tries - 1
            if not tries:
                raise
            now = room_for(asked, gpus=bool(gpus), cpus_per_worker=cpus_per_worker)
            if not now:
                raise InputError(
                    f"{job.out}: no node is left to train on; --resume goes on when there is one"
                ) from None
            at = newest_step(job.out)
            print(f"warning: a worker was lost ({reason}); {now} of {asked} go on behind step {at}", flush=True)
        finally:
            shutil.rmtree(job.out / RAY_FILES, ignore_errors=True)


def cause_of(error: Exception) -> str:
    """Why workers ended, in a line. An InputError that one of them raised is raised here."""
    reasons = []
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)  # Ray wraps what a worker raised
        if isinstance(cause, InputError):
            raise cause from None
        reasons.append((str(cause).strip().splitlines() or [type(cause).__name__])[0][:160])
    return reasons[0] if reasons else type(error).__name__


def train_loop(settings: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    context = ray.train.get_context()
    logging.disable(logging.INFO)  # this process's; else Ray Train prints the metrics of every report, whole

    def wrap(model: torch.nn.Module, **options: Any) -> torch.nn.Module:
        return prepare_model(model, parallel_strategy_kwargs=options)

    train(
        settings["job"],
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        wrap=wrap,
        report=ray.train.report,
    )


def fit(
    recipe: Recipe,
    *,
    features: Path,
    out: Path,
    workers: int = 1,
    gpus: float = 0,
    cpus_per_worker: float = 1.0,
    body: Path | None = None,
    spin_regressor: Path | None = None,
    start: Path | None = None,
    mlflow: str = "",
    experiment: str = "glot",
    name: str = "",
    parent: str = "",
    upload: bool = True,
    resume: bool = True,
    fresh: bool = False,
    save_every: int = 0,
    max_seconds: float = 0.0,
    here: Callable[[dict[str, float]], None] | None = None,
    callbacks: Sequence[Any] = (),
) -> dict[str, float]:
    """Trains a recipe and returns the metrics of its best epoch; ``out`` gets best/, last/, run.json, epochs.json.

    Started again with the same ``out`` it goes on behind its last checkpoint (``save_every`` steps apart, 0: an epoch),
    or returns at once when it is done. ``mlflow`` is a tracking URI, "" for none; ``name`` the run's name there (that
    of the folder), ``parent`` the run to nest under, and without ``upload`` the checkpoint stays where it is. Ray must
    be running; it tells ``callbacks`` the metrics of every epoch. With ``here`` it is left out: the single worker is
    this process, and ``here`` is told the metrics. Raises Unfinished once ``max_seconds`` are over (0: never).
    """
    stop_at = time.time() + max_seconds if max_seconds else math.inf
    features, out = features.resolve(), out.resolve()
    lineage = feature_lineage(recipe, features)
    recipe = replace(recipe, model=replace(recipe.model, feature_size=lineage["backbone"]["feature_size"]))
    the_body = load_body(body)
    require_body(the_body, lineage["body"], "features")  # here, not in a worker
    if start is not None:
        start = checkpoint_path(start, lineage["backbone"]["name"])
        load_model_for(start, read_manifest(next(iter(training_folders(recipe, features).values()))))
    first_model(recipe, the_body, spin_regressor=spin_regressor, start=start)
    if here is None:
        preflight(workers=workers, gpus=int(gpus), cpus_per_worker=cpus_per_worker)
    state: dict[str, Any] = {
        "recipe": json.loads(json.dumps(config.to_dict(recipe))),
        "features": lineage,
        "spin_regressor": file_hash(spin_regressor),
        "start": file_hash(start / WEIGHTS if start and start.is_dir() else start),
        "status": "running",
    }
    state = open_state(out, state, resume=resume, fresh=fresh)
    if state["status"] == "finished":
        print(f"{out}: already trained, nothing to do (--fresh trains it anew)")
        return state["metrics"]
    if here is None:
        check_nodes(features, out)
        share = recipe.data.batch_size / (gpus or workers)
        print(
            f"{recipe.data.batch_size} windows a step, {share:g} a worker; lr up to {recipe.lr:g}, for the whole batch "
            "and not scaled by workers",
            flush=True,
        )

    run_id = ""
    if mlflow:
        run_id = open_mlflow_run(
            recipe, state, mlflow, out=out, experiment=experiment, name=name or out.name, parent=parent
        )
    job = Job(
        recipe,
        features,
        lineage,
        out,
        body=body.resolve() if body else None,
        spin_regressor=spin_regressor.resolve() if spin_regressor else None,
        start=start.resolve() if start else None,
        mlflow_uri=mlflow,
        run_id=run_id,
        threads=max(1, int(cpus_per_worker)),
        save_every=save_every,
        stop_at=stop_at,
    )
    status, metrics = "FAILED", {}
    try:
        if here is not None:
            run_here(job, gpus=gpus, report=here)
        else:
            run_workers(job, workers=workers, gpus=int(gpus), cpus_per_worker=cpus_per_worker, callbacks=callbacks)
        at, total = newest_step(out), recipe.epochs * recipe.steps_per_epoch
        if at < total:
            status = "KILLED"
            raise Unfinished(f"{out}: {max_seconds:.0f} s are over, stopped behind step {at} of {total}")
        metrics = {name: float(value) for name, value in read_config(out / "best")["metrics"].items()}
        write_state(out, {**state, "status": "finished", "metrics": metrics})
        shutil.rmtree(steps_folder(out))
        status = "FINISHED"
    finally:
        epochs = json.loads((out / EPOCHS).read_text()) if (out / EPOCHS).is_file() else []
        if epochs:
            curves.write_table(epochs, out / "epochs.csv")
            curves.plot(epochs, out / "epochs.png")
        if run_id:
            run = mlflow_runs.Run(mlflow, run_id, spool=out / SPOOL, resumed=True)
            for name in ("epochs.csv", "epochs.png") if epochs else ():
                run.artifact(out / name)
            if status == "FINISHED":
                if upload:
                    run.artifact(out / "best", "best")
                kept = {k: v for k, v in metrics.items() if k.startswith("val_") or k == "epoch"}
                run.metrics({f"best_{k}": v for k, v in kept.items()}, step=0)
            run.close(status)
    return metrics


def open_mlflow_run(
    recipe: Recipe, state: dict[str, Any], mlflow: str, *, out: Path, experiment: str, name: str, parent: str
) -> str:
    """The id of this folder's run in MLflow. An outage costs a new run its log; one that exists goes on regardless."""
    known = state.get("mlflow", {})
    if known.get("uri") == mlflow:
        mlflow_runs.Run(mlflow, known["run_id"]).running()
        return known["run_id"]
    if "key" not in state:  # of its own: a run started over in the same folder is another run
        state["key"] = uuid.uuid4().hex[:16]
        write_state(out, state)
    tags = {f"features.{name}": value for name, value in state["features"]["sets"].items()}
    run_id = mlflow_runs.open_run(
        mlflow,
        mlflow_runs.prepare(mlflow, experiment),
        name=name,
        key=state["key"],
        params=config.flat(recipe),
        tags=tags | mlflow_runs.lineage() | {"out": str(out)},
        parent=parent,
    )
    state["mlflow"] = {"uri": mlflow, "run_id": run_id}
    write_state(out, state)
    return run_id


def file_hash(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path else ""


def connect(*, workers: int, gpus: int) -> None:
    """Ray with room for the workers; InputError at once where this machine lacks the GPUs."""
    if not os.environ.get("RAY_ADDRESS") and gpus > torch.cuda.device_count():  # before the seconds Ray takes to start
        raise InputError(
            f"--gpus {gpus}: this machine has {torch.cuda.device_count()}; ask for fewer, use --workers N on CPUs, "
            "or set RAY_ADDRESS to a cluster"
        )
    ray_session.connect(cpus=max(workers, os.cpu_count() or 1), training=True)


def main(
    features: Annotated[Path, typer.Option(parser=location, help="Folder or URI of feature sets: DIR/DATASET/SPLIT.")],
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
    start: Annotated[
        Path | None,
        typer.Option(
            help="Start from this checkpoint's weights: a folder, a published .pth.tar, or 'open', the shipped model."
        ),
    ] = None,
    mlflow: Annotated[str, typer.Option(help="MLflow tracking URI, or 'none'; OUT/../mlflow.db when left out.")] = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "glot",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in OUT; begin if there is none.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left in OUT.")] = False,
    save_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints to go on from; 0: after every epoch.")
    ] = 0,
    max_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help=f"Stop with a checkpoint and exit code {CONTINUE} at the first step that ends later; 0: never. Leave "
            "some minutes to the end of a job.",
        ),
    ] = 0.0,
) -> int:
    """Train GLoT on extracted features with Ray Train (DDP).

    Interrupted? The same command with `--resume` goes on behind its last checkpoint, with the same or another number of
    workers. Every field of a recipe can be set, for example `--set model.mask_ratio=0.25 --set epochs=3`, `--set
    precision=bfloat16`, `--set compile=true`, `--set accumulate=2`; the resolved recipe is stored with every checkpoint
    and MLflow run. A step has data.batch_size windows, however many workers share them.

    Example: `python -m glot.train_ray --recipe open_sample --features runs/demo/features --out runs/first --workers 2`
    """
    if resume and fresh:
        raise InputError("--resume --fresh: give one of them")
    if gpus and workers:
        raise InputError(
            f"--gpus {gpus} --workers {workers}: give one of them, a worker holds either a GPU or a CPU core"
        )
    chosen = config.recipe_named(recipe, setting or [])
    feature_lineage(chosen, features)  # says what is missing before Ray starts
    total = workers or gpus or 1
    connect(workers=total, gpus=gpus)
    uri = "" if mlflow == "none" else mlflow or mlflow_runs.default_uri(out.resolve().parent)
    cores = os.cpu_count() or 1
    try:
        metrics = fit(
            chosen,
            features=features,
            out=out,
            workers=total,
            gpus=gpus,
            cpus_per_worker=1 if gpus else max(1, cores // total),
            body=body,
            spin_regressor=spin_regressor,
            start=start,
            mlflow=uri,
            experiment=experiment,
            resume=resume,
            fresh=fresh,
            save_every=save_every,
            max_seconds=max_seconds,
        )
    except Unfinished as stopped:
        print(f"{stopped}; the same command with --resume goes on")
        return CONTINUE
    shown = "  ".join(
        f"{name.removeprefix('val_')} {value:.1f}" for name, value in metrics.items() if name.startswith("val_")
    )
    print(f"best epoch {metrics.get('epoch', 0):.0f}: {shown} (mm)\ncheckpoint: {out / 'best'}")
    if uri:
        print(f"MLflow: {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {uri}")
    return 0
