"""The speed of extraction against the bare network's and against a plain PyTorch script's, on JPEGs of 1080p.

Prints a table and writes benchmarks/out/extract.json with ``over_bare_forward`` and ``over_plain_script``, medians of
interleaved rounds; the same for int8, and its effect on the MPJPE of the shipped model on a sample. The speed is
computed from the additional time for a set of twice the size, so that the start of Ray does not count.
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
from figures import OUT, write_figures
from torch.utils.data import DataLoader, Dataset

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.schema import read_table
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.human.crop import crop_image, normalise
from glot.models.inference import load_model
from glot.scoring.evaluation import evaluate_split
from pipelines.extract_features import main as extract_features
from pipelines.extraction.spec import ExtractSpec
from pipelines.scenes.sample_dataset import make_sample
from pipelines.scenes.spec import MakeSampleSpec

SIZE = (1920, 1080)
BOX = (560.0, 140.0, 600.0, 800.0)  # left, top, width, height of the person, px
SCALED = (860.0, 540.0, 640.0, 640.0)  # the box that extraction makes from BOX: 0.8 of the larger side
CROP_SCALE = 1.3
BATCHES = (8, 32)  # batch sizes of the plain script
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
    """The same crops as in extraction, for a DataLoader."""

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
            if not start:  # the workers have started
                start, first = time.perf_counter(), len(crops)
    done = np.concatenate(features)
    return (len(done) - first) / (time.perf_counter() - start), done


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``function``, called in a new process: a DataLoader forks, which hangs in a process where Ray's
    threads run."""
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


def extraction_seconds(root: Path, out: Path, workers: int, precision: str) -> float:
    """Seconds for the extraction of a set, when Ray runs already. The int8 network of an earlier round is reused."""
    shutil.rmtree(out / "posetrack", ignore_errors=True)
    start = time.perf_counter()
    spec = ExtractSpec(dataset="posetrack", root=root, out=out, split="train", workers=workers, precision=precision)
    if extract_features(spec):
        raise InputError("the extraction skipped frames")
    return time.perf_counter() - start


def int8_errors(folder: Path, workers: int) -> dict[str, float]:
    """MPJPE of the shipped model on an open sample's test split, from features in float32 and in int8, mm."""
    body = load_body()
    make_sample(MakeSampleSpec(out=folder / "sample", sequences=SAMPLE, workers=workers))
    model, errors = load_model(Path("open")).model, {}
    for precision in ("float32", "int8"):
        out = folder / precision
        options: dict[str, Any] = {"dataset": "3dpw", "root": folder / "sample", "out": out, "workers": workers}
        if extract_features(ExtractSpec(split="test", precision=precision, **options)):
            raise InputError("the extraction skipped frames")
        store = FeatureStore.open(out / "3dpw" / "test", cache=folder / "cache")
        errors[f"mpjpe_{precision}_mm"] = evaluate_split(model, store, body).metrics["mpjpe"]
    return errors


def measure_rates(
    folder: Path, *, frames: int, repeats: int, workers: int
) -> tuple[dict[str, list[float]], list[float], np.ndarray]:
    """Frames/s in each round, by name of the measurement; seconds in each round to start an extraction (workers,
    weights, the manifest); and the features that the plain script found. Ray runs already."""
    rates: dict[str, list[float]] = {}
    starts: list[float] = []
    small, large = (write_set(folder / str(n), n) for n in (frames, 2 * frames))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in cli.progress(range(repeats), total=repeats, what="rounds"):
            bare = sum(pool.map(bare_forward, [8.0] * workers))
            rates.setdefault("bare forward", []).append(bare)
            for batch in BATCHES:
                rate, features = in_new_process(plain_script, small, batch, workers)
                rates.setdefault(f"plain script, batch {batch}", []).append(rate)
            for precision, name in (("float32", "extraction"), ("int8", "extraction in int8")):
                out = folder / precision
                long, short = (extraction_seconds(pictures, out, workers, precision) for pictures in (large, small))
                rates.setdefault(name, []).append(frames / (long - short))
                if precision == "float32":
                    starts.append(short - (long - short))
    return rates, starts, features


def main(
    frames: Annotated[
        int, typer.Option(min=64, help="Pictures of the smaller set. The larger one has twice as many.")
    ] = 240,
    repeats: Annotated[int, typer.Option(min=1, help="Number of rounds; each measures everything once.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Number of extraction workers.")] = len(os.sched_getaffinity(0)),
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "extract.json",
) -> None:
    """Measure extraction from JPEGs to Parquet, the bare network, and a DataLoader with the eager network."""
    import ray

    with tempfile.TemporaryDirectory(prefix="glot-bench-") as name:
        folder = Path(name)
        began = time.perf_counter()
        ray.init(
            "local", num_cpus=workers, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False
        )
        ray_seconds = time.perf_counter() - began
        rates, starts, wanted = measure_rates(folder, frames=frames, repeats=repeats, workers=workers)
        errors = int8_errors(folder / "open", workers)
        table = read_table(folder / "float32" / "posetrack" / "train")
        found = np.array(table["feature"].to_pylist(), np.float32)
        ray.shutdown()
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if difference > 1e-5:
        raise InputError(f"not the same features: {difference:.1e} apart, relative to the largest")
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
        "feature_relative_difference": difference,
        "frames": frames,
        "workers": workers,
    }
    print(f"frames/s, {workers} workers: " + "  ".join(f"{name} {value:.1f}" for name, value in median.items()))
    changed = errors["mpjpe_int8_mm"] - errors["mpjpe_float32_mm"]
    print(f"int8 changes the MPJPE of the shipped model by {changed:+.1f} mm, from {errors['mpjpe_float32_mm']:.1f}")
    write_figures(out, figures)


if __name__ == "__main__":
    cli.run(main)
