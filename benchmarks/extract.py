"""How near extraction comes to the bare network, and how far it leaves a plain PyTorch script behind, on 1080p JPEGs.

Prints a table and writes benchmarks/out/extract.json with ``over_bare_forward`` and ``over_plain_script``: medians of
interleaved repeats; the same of int8, with what it does to the MPJPE of the shipped model on a sample.
Steady state: how much longer a set of twice the size takes, so that Ray's start is not in it.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from torch.utils.data import DataLoader, Dataset

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.schema import read_table
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.human.crop import crop_image, normalise
from glot.models.inference import OPEN_MODEL, load_model
from glot.scoring.evaluation import evaluate_split
from pipelines.extract_features import main as extract_features
from pipelines.extraction.spec import ExtractSpec
from pipelines.scenes.sample_dataset import make_sample
from pipelines.scenes.spec import MakeSampleSpec

OUT = Path(__file__).parent / "out" / "extract.json"
SIZE = (1920, 1080)
BOX = (560.0, 140.0, 600.0, 800.0)  # left, top, width, height of the person, px
SCALED = (860.0, 540.0, 640.0, 640.0)  # the box that extraction makes of it: 0.8 of the larger side
CROP_SCALE = 1.3
BATCHES = (8, 32)  # of the plain script
SEQUENCES = 4
SAMPLE = 10  # sequences of the open sample, two of them in its test split
JOINTS = ("nose", "head_bottom", "head_top", "left_ear", "right_ear", *(
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
))  # fmt: skip


def write_set(root: Path, frames: int) -> Path:
    """``frames`` pictures of one person in PoseTrack's layout: sequences as JSON, pictures with detail to decode."""
    rng = np.random.default_rng(0)
    each = frames // SEQUENCES
    coarse = rng.integers(0, 255, (SIZE[1] // 12, SIZE[0] // 12, 3), np.uint8)
    scene = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    for sequence in range(SEQUENCES):
        name = f"{sequence:06d}_bench_train"
        folder = root / "images" / "train" / name
        folder.mkdir(parents=True)
        images, people = [], []
        for frame in range(each):
            noise = rng.integers(-12, 13, (*SIZE[::-1], 3), np.int16)
            picture = np.clip(np.roll(scene, 3 * frame, 1) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{frame:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
            path = f"images/train/{name}/{frame:06d}.jpg"
            images.append({"id": frame, "file_name": path, "is_labeled": True})
            points = [value for _ in JOINTS for value in (800, 500, 1)]
            people.append({"id": frame, "image_id": frame, "track_id": 0, "keypoints": points, "bbox": list(BOX)})
        annotations = root / "posetrack_data" / "annotations" / "train"
        annotations.mkdir(parents=True, exist_ok=True)
        categories = [{"name": "person", "keypoints": list(JOINTS)}]
        content = {"images": images, "annotations": people, "categories": categories}
        (annotations / f"{name}.json").write_text(json.dumps(content))
    return root


class Crops(Dataset):
    """The same crops as extraction's, for a DataLoader."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted((root / "images").rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        picture: Any = cv2.imread(str(self.paths[index]))
        return crop_image(picture, SCALED, CROP_SCALE)


def one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def plain_script(root: Path, batch: int, threads: int) -> tuple[float, np.ndarray]:
    """Frames/s of a DataLoader with two workers and the eager network, from the second batch on; and the features."""
    torch.set_num_threads(threads)
    module = load_backbone().module
    loader = DataLoader(Crops(root), batch, num_workers=2, worker_init_fn=one_thread)
    features, start, first = [], 0.0, 0
    with torch.no_grad():
        for crops in loader:
            features.append(module(normalise(crops)).numpy())
            if not start:  # the workers are up
                start, first = time.perf_counter(), len(crops)
    done = np.concatenate(features)
    return (len(done) - first) / (time.perf_counter() - start), done


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Its result, from a process of its own: a DataLoader forks, which hangs in one where Ray's threads are."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def bare_forward(seconds: float) -> float:
    """Crops/s of one worker's network, on one thread, with nothing to read or write."""
    one_thread(0)
    extractor = Extractor(load_backbone())
    crops = np.random.default_rng(0).integers(0, 255, (8, 224, 224, 3), np.uint8)
    extractor(crops)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        extractor(crops)
        count += len(crops)
    return count / (time.perf_counter() - start)


def whole(root: Path, out: Path, workers: int, precision: str) -> float:
    """Seconds of the extraction of a set, by a Ray that is up. The int8 network of an earlier round is kept."""
    shutil.rmtree(out / "posetrack", ignore_errors=True)
    start = time.perf_counter()
    spec = ExtractSpec(dataset="posetrack", root=root, out=out, split="train", workers=workers, precision=precision)
    if extract_features(spec):
        raise InputError("the extraction skipped something")
    return time.perf_counter() - start


def int8_costs(folder: Path, workers: int) -> dict[str, float]:
    """MPJPE of the shipped model on an open sample's test split, from features in float32 and in int8, mm."""
    body = load_body()
    make_sample(MakeSampleSpec(out=folder / "sample", sequences=SAMPLE, workers=workers))
    model, errors = load_model(OPEN_MODEL).model, {}
    for precision in ("float32", "int8"):
        out = folder / precision
        options: dict[str, Any] = {"dataset": "3dpw", "root": folder / "sample", "out": out, "workers": workers}
        if extract_features(ExtractSpec(split="test", precision=precision, **options)):
            raise InputError("the extraction skipped something")
        store = FeatureStore.open(out / "3dpw" / "test", cache=folder / "cache")
        errors[f"mpjpe_{precision}_mm"] = evaluate_split(model, store, body).metrics["mpjpe"]
    return errors


def main(
    frames: Annotated[
        int, typer.Option(min=64, help="Pictures of the smaller set; the larger one has twice as many.")
    ] = 240,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each measures everything once.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Extraction actors.")] = len(os.sched_getaffinity(0)),
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Extraction from JPEGs to Parquet, against the bare network and against a DataLoader with the eager network."""
    import ray

    rates: dict[str, list[float]] = {}
    starts: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="glot-bench-") as folder,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        small, large = (write_set(Path(folder) / str(n), n) for n in (frames, 2 * frames))
        began = time.perf_counter()
        ray.init(
            "local", num_cpus=workers, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False
        )
        ray_seconds = time.perf_counter() - began
        for _ in cli.progress(range(repeats), total=repeats, what="rounds"):
            bare = sum(pool.map(bare_forward, [8.0] * workers))
            rates.setdefault("bare forward", []).append(bare)
            for batch in BATCHES:
                rate, wanted = apart(plain_script, small, batch, workers)
                rates.setdefault(f"plain script, batch {batch}", []).append(rate)
            for precision, name in (("float32", "extraction"), ("int8", "extraction in int8")):
                out_folder = Path(folder) / precision
                long, short = (whole(pictures, out_folder, workers, precision) for pictures in (large, small))
                rates.setdefault(name, []).append(frames / (long - short))
                if precision == "float32":
                    starts.append(short - (long - short))  # actors, weights, the manifest
        errors = int8_costs(Path(folder) / "open", workers)
        table = read_table(Path(folder) / "float32" / "posetrack" / "train")
        found = np.array(table["feature"].to_pylist(), np.float32)
        ray.shutdown()
    off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if off > 1e-5:
        raise InputError(f"not the same features: {off:.1e} apart, relative to the largest")
    median = {name: statistics.median(values) for name, values in rates.items()}
    plain = max(median[f"plain script, batch {batch}"] for batch in BATCHES)
    figures = {
        "over_bare_forward": median["extraction"] / median["bare forward"],
        "over_plain_script": median["extraction"] / plain,
        "int8_over_plain_script": median["extraction in int8"] / plain,
        **{name: round(value, 2) for name, value in errors.items()},
        **{f"{name.replace(', ', '_').replace(' ', '_')}_per_s": round(value, 2) for name, value in median.items()},
        "start_s": round(statistics.median(starts), 2),
        "ray_start_s": round(ray_seconds, 2),
        "feature_relative_difference": off,
        "frames": frames,
        "workers": workers,
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"frames/s, {workers} workers: " + "  ".join(f"{name} {value:.1f}" for name, value in median.items()))
    changed = errors["mpjpe_int8_mm"] - errors["mpjpe_float32_mm"]
    print(f"int8 changes the MPJPE of the shipped model by {changed:+.1f} mm, from {errors['mpjpe_float32_mm']:.1f}")
    print(out.read_text(), end="")


if __name__ == "__main__":
    cli.run(main)
