"""The windows per second that the feeder delivers, against what training uses; and the cost of Ray Train for a step.

Prints a table and writes benchmarks/out/feeder.json with ``over_training_demand`` (the smaller of cold and warm),
``resident_over_ram`` and ``ray_overhead``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from figures import OUT, write_figures

from glot import cli
from glot.config import DataConfig, Recipe
from glot.features.schema import KEYPOINTS, Manifest, column, schema, write_manifest
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.training.feature_sets import feature_lineage
from glot.training.loop import first_model, train
from glot.training.sampler import Sampler
from glot.training.spec import TrainSpec, WorkerSpec
from glot.training.stepper import make_stepper

FEATURES, TRACK = 2048, 500  # values of a feature vector, frames of a track
BATCH, STRIDE = 64, 1
SHAPES: dict[str, tuple[int, ...]] = {
    "bbox": (4,), "feature": (FEATURES,), "keypoints2d": (KEYPOINTS, 3), "joints3d": (KEYPOINTS, 3), "pose": (24, 3),
    "betas": (10,),
}  # fmt: skip


def write_set(folder: Path, rows: int) -> None:
    """A feature set of random numbers in the real format, with ten tracks in each part."""
    rng, entries = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for number in range(0, rows // TRACK, 10):
        path = folder / f"part-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema(FEATURES), use_dictionary=False, compression="none") as writer:
            for track in range(number, min(number + 10, rows // TRACK)):
                writer.write_table(_track(f"track{track:05d}", rng))
        tracks = min(number + 10, rows // TRACK) - number
        entries.append({"name": path.name, "rows": tracks * TRACK, "tracks": tracks, "bytes": path.stat().st_size})
    body = load_body()
    backbone = {"name": "random numbers", "weights": "none", "hash": "none", "feature_size": FEATURES}
    kind = {"name": "open", "hash": body.file_hash, "open": True}
    total, tracks = sum(entry["rows"] for entry in entries), sum(entry["tracks"] for entry in entries)
    crop = {"scale": 1.2, "size": 224}
    write_manifest(folder, Manifest("3dpw", folder.name, total, tracks, backbone, crop, kind, entries))


def _track(name: str, rng: np.random.Generator) -> pa.Table:
    values: dict[str, Any] = {
        "dataset": ["3dpw"] * TRACK,
        "split": ["train"] * TRACK,
        "track_id": [name] * TRACK,
        "image": [""] * TRACK,
        "gender": ["neutral"] * TRACK,
        "frame_index": np.arange(TRACK, dtype=np.int32),
        "fps": np.full(TRACK, 30, np.float32),
        "crop_scale": np.full(TRACK, 1.2, np.float32),
        "joints3d_valid": np.ones((TRACK, KEYPOINTS), bool),
        **{flag: np.ones(TRACK, bool) for flag in ("has_3d", "has_smpl", "valid")},
        **{name: rng.random((TRACK, *shape), np.float32) for name, shape in SHAPES.items()},
    }

    fields = schema(FEATURES)
    return pa.table([column(values[field.name], field.type) for field in fields], schema=fields)


def resident() -> int:
    """Bytes of this process that are in memory now, including pages of files."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget(copy: Path) -> None:
    """Drops the files of the local copy from the page cache of the machine."""
    for path in copy.glob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def deliver(store: FeatureStore, seconds: float, *, seed: int) -> tuple[float, int]:
    """Windows/s of random batches as training gets them, on one thread, and the largest memory for them, bytes."""
    before, most = resident(), 0
    sampler = Sampler({"3dpw": store}, DataConfig(batch_size=BATCH, stride=STRIDE), frames=16, seed=seed)
    sampler.batch(0)  # the first batch draws the order of all windows
    step, start = 1, time.perf_counter()
    while time.perf_counter() - start < seconds:
        sampler.batch(step)
        most = max(most, resident() - before)
        step += 1
    return (step - 1) * BATCH / (time.perf_counter() - start), most


def feed(root: Path, seconds: float) -> dict[str, float]:
    """Cold and warm rates, and memory. This runs in a separate process, so that nothing else is measured."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    store = FeatureStore.open(root / "3dpw" / "train")
    figures = {"build_s": time.perf_counter() - start}
    forget(store.copy)
    figures["cold"], cold_bytes = deliver(store, seconds, seed=1)
    deliver(store, seconds, seed=1)  # after this, everything is in memory
    figures["warm"], warm_bytes = deliver(store, seconds, seed=2)
    figures["resident_over_ram"] = max(cold_bytes, warm_bytes) / (len(store) * FEATURES * 4)
    return figures


def demand(root: Path, steps: int, threads: int) -> float:
    """Windows/s of the paper's training step on this machine, with its batches in memory."""
    torch.set_num_threads(threads)
    recipe = Recipe("benchmark", data=DataConfig(batch_size=BATCH))
    body = load_body()
    model = first_model(recipe, body)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)
    stepper = make_stepper(recipe, model, optimiser, body, torch.device("cpu"))
    batches = Sampler({"3dpw": FeatureStore.open(root / "3dpw" / "train")}, recipe.data, frames=16, seed=0).batches(0)
    seconds = []
    for step in range(steps + 1):
        start = time.perf_counter()
        stepper(step, batches)
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds[1:])


def overhead(root: Path, epochs: int) -> float:
    """How much longer a step takes under Ray Train than in a plain loop, both with one worker, as a share.

    The two take turns. Only the second epoch of each counts, since a new process is slow at first.
    """
    from glot.training.cluster.preflight import connect
    from glot.training.driver import fit

    settings = [f"{name}={getattr(Recipe('plain'), name)}" for name in ("lr", "weight_decay", "warmup_epochs")]
    settings += ["epochs=2", "steps_per_epoch=12", "first_eval_epoch=1", f"data.batch_size={BATCH}", "data.stride=16"]
    features = root.resolve()
    connect(workers=1, gpus=0)
    rates: dict[str, list[float]] = {"plain": [], "ray": []}
    for number in range(epochs):
        for name, found in rates.items():
            out = root / f"{name}{number}"
            spec = TrainSpec(features=features, out=out, settings=tuple(settings), mlflow="none")
            if name == "ray":
                fit(spec)
            else:
                recipe = spec.chosen_recipe
                sized = replace(recipe, model=replace(recipe.model, feature_size=FEATURES))
                train(WorkerSpec(recipe=sized, features=features, lineage=feature_lineage(recipe, features), out=out))
            found.append(json.loads((out / "epochs.json").read_text())[1]["windows_per_s"])
    return statistics.median(rates["plain"]) / statistics.median(rates["ray"]) - 1


def measure(part: str, root: Path, *, seconds: float, repeats: int) -> dict[str, float]:
    """The figures of a part of this benchmark, measured in a new process."""
    options = {"--part": part, "--root": root, "--seconds": seconds, "--repeats": repeats}
    line = [sys.executable, __file__, *(str(word) for option in options.items() for word in option)]
    environment = {**os.environ, "GLOT_CACHE": f"{root}/cache", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(
    rows: Annotated[int, typer.Option(min=2000, help="Frames of the set, with 8 KB of features each.")] = 120_000,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds for which each rate is measured.")] = 8.0,
    repeats: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 3,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "feeder.json",
    part: Annotated[str, typer.Option(hidden=True)] = "",
    root: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Measure how many random windows a second the local copy delivers, and how many training uses on this machine."""
    if part:
        parts = {"feed": lambda: feed(root, seconds), "overhead": lambda: {"ray_overhead": overhead(root, repeats)}}
        parts["demand"] = lambda: {"demand": demand(root, 4, len(os.sched_getaffinity(0)))}
        print(json.dumps(parts[part]()))
        return
    with tempfile.TemporaryDirectory(prefix="glot-bench-") as folder:
        write_set(Path(folder) / "3dpw" / "train", rows)
        write_set(Path(folder) / "3dpw" / "validation", 2 * TRACK)
        measured = partial(measure, root=Path(folder), seconds=seconds, repeats=repeats)
        rounds = [measured("feed") | measured("demand") for _ in range(repeats)]
        figures = {name: statistics.median(each[name] for each in rounds) for name in ("cold", "warm", "demand")}
        figures |= {"resident_over_ram": max(each["resident_over_ram"] for each in rounds)}
        figures |= {"build_s": rounds[0]["build_s"], **measured("overhead")}
    figures["over_training_demand"] = min(figures["cold"], figures["warm"]) / figures["demand"]
    print(
        f"windows/s: cold {figures['cold']:.0f}, warm {figures['warm']:.0f}, training uses {figures['demand']:.0f}; "
        f"memory {figures['resident_over_ram']:.2f} of the features, local copy built in {figures['build_s']:.1f} s; "
        f"a step under Ray Train {100 * figures['ray_overhead']:+.1f} %"
    )
    write_figures(out, {name: round(value, 4) for name, value in figures.items()})


if __name__ == "__main__":
    cli.run(main)
