"""How many pictures of 1080p a core reads and crops for a network, and how much of the network's time that hides.

Prints and writes benchmarks/out/feed.json: ``feed_fps_per_core_1080p`` for H.264 and JPEG, frames per CPU second; the
same by the clock; and ``network_time_hidden``, the share of the network's time in which pictures were read, the last
batch not counted. Everything runs on one core. The network is a stand-in that waits for as long as a batch takes to
read, as a CPU waits for a GPU. A job that reads and computes in turn hides 0.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import av
import cv2
import numpy as np
import torch
import typer
from extract import BOX, SIZE, write_set
from figures import OUT, write_figures
from numpy.typing import NDArray

from glot import cli
from glot.human.body import load_body
from glot.people.frame_boxes import FrameBoxes
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.streaming import SMALLEST_BATCH, UnitWorker, stream
from pipelines.extraction.units import OpenUnit, SplitJob, Tools
from pipelines.jobs.bookkeeper import DONE, PLAIN, Order, Result
from pipelines.jobs.pool_worker import Item

VALUES = 2048  # of a feature
RATE, KEY_EVERY = 30, 60  # of the video: pictures per second, pictures between key frames
UNITS = 4  # of each kind


class LocalUnits(UnitWorker):
    """A worker without Ray that reads units and keeps no rows."""

    def __init__(self) -> None:
        self.holding, self.stopped, self.leaving = {}, None, False

    def report(self) -> None:
        pass

    def open(self, item: Item) -> OpenUnit:
        return open_unit(item)

    def finish(self, item: Item, opened: OpenUnit) -> Result:
        assert all(there.all() for there in opened.features.written)
        return Result(item.key, DONE, item.frames, 0)


def open_unit(item: Item) -> OpenUnit:
    """The unit, opened as extraction opens it."""
    job, unit = item.content
    return OpenUnit(job, "", unit, Tools(lambda crops: np.zeros((len(crops), VALUES)), load_body()))


def pictures_1080p(count: int) -> Iterator[NDArray[np.uint8]]:
    """``count`` pictures (H, W, 3) BGR: a detailed scene that moves, with the noise of a camera."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (SIZE[1] // 12, SIZE[0] // 12, 3), np.uint8)
    scene = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noise = rng.normal(0, 2, (*SIZE[::-1], 3)).astype(np.int16)
    for number in range(count):
        yield np.clip(np.roll(scene, 3 * number, 1) + np.roll(noise, 97 * number, 0), 0, 255).astype(np.uint8)


def write_video(path: Path, frames: int) -> None:
    """An H.264 video as cameras and video sites make them (High profile, B-frames)."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = KEY_EVERY
        for picture in pictures_1080p(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


def video_items(folder: Path, frames: int) -> list[Item]:
    """UNITS units of one person in a video of ``frames`` pictures."""
    folder.mkdir()
    write_video(folder / "0.mp4", frames)
    for number in range(1, UNITS):
        (folder / f"{number}.mp4").hardlink_to(folder / "0.mp4")
    boxes = {"1": FrameBoxes(np.arange(frames), np.tile(np.array(BOX), (frames, 1)))}
    spec = DatasetSpec(
        dataset="video", root=folder, out=folder / "features", tracks=folder
    )  # the units have their boxes
    found = load_decoder("video").find(folder, "test")
    return [_item(spec, "test", unit.__class__(**{**vars(unit), "boxes": boxes})) for unit in found]


def picture_items(folder: Path, frames: int) -> list[Item]:
    """Sequences of JPEGs, ``frames`` in each."""
    write_set(folder, UNITS * frames)
    spec = DatasetSpec(dataset="posetrack", root=folder, out=folder / "features")
    return [_item(spec, "train", unit) for unit in load_decoder("posetrack").find(folder, "train")]


def _item(spec: DatasetSpec, split: str, unit: Any) -> Item:
    settings = {"backbone": {"feature_size": VALUES}, "crop": {"size": 224}}
    return Item(unit.key, unit.frames, (SplitJob(spec, split, settings), unit))


def read_all(items: list[Item]) -> int:
    """Reads and crops, without a network; the number of crops."""
    crops = 0
    for item in items:
        with open_unit(item) as opened:
            crops += sum(len(frame.crops or ()) for frame in opened.frames(1, ahead=0))
    return crops


def stream_all(items: list[Item], batch_seconds: float) -> None:
    """Extraction's stream, with a network that waits for ``batch_seconds``."""

    def network(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(batch_seconds)
        return np.zeros((len(crops), VALUES), np.float32)

    work = [(Order(item.key, PLAIN), item) for item in items]
    results = list(stream(LocalUnits(), network, work, threads=1, batch_size=SMALLEST_BATCH))
    assert [result.kind for result in results] == [DONE] * len(items), results


def measure(items: list[Item], repeats: int) -> dict[str, float]:
    """Rates and overlap, medians."""
    read_all(items[:1])
    rates: dict[str, list[float]] = {"cpu": [], "clock": [], "hidden": []}
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        crops = read_all(items)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
        batches = -(-crops // SMALLEST_BATCH)
        start = time.perf_counter()
        stream_all(items, seconds / batches)
        both = time.perf_counter() - start
        rates["cpu"].append(crops / cpu)
        rates["clock"].append(crops / seconds)
        # Nothing is left to read while the network runs on the last batch.
        rates["hidden"].append((2 * seconds - both) / (seconds * (1 - 1 / batches)))
    return {name: statistics.median(values) for name, values in rates.items()}


@contextmanager
def one_core() -> Iterator[None]:
    """This process and its threads run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def feed_rates(*, frames: int = 256, repeats: int = 3) -> dict[str, Any]:
    """The figures, for units of ``frames`` pictures. Files are made in a temporary folder first."""
    with tempfile.TemporaryDirectory(prefix="glot-bench-") as name:
        folder = Path(name)
        items = {"h264": video_items(folder / "videos", frames), "jpeg": picture_items(folder / "pictures", frames)}
        video, jpeg = folder / "videos" / "0.mp4", next((folder / "pictures").rglob("*.jpg"))
        sizes = {"h264_mbit_per_s": video.stat().st_size * 8e-6 * RATE / frames, "jpeg_kb": jpeg.stat().st_size / 1000}
        with one_core():
            found = {kind: measure(units, repeats) for kind, units in items.items()}
    return {
        "feed_fps_per_core_1080p": {kind: round(rates["cpu"], 1) for kind, rates in found.items()},
        "feed_fps_by_the_clock": {kind: round(rates["clock"], 1) for kind, rates in found.items()},
        "network_time_hidden": {kind: round(rates["hidden"], 3) for kind, rates in found.items()},
        **{size: round(value, 1) for size, value in sizes.items()},
        "frames": UNITS * frames,
        "processor": _processor(),
    }


def _processor() -> str:
    found = subprocess.run(["lscpu"], stdout=subprocess.PIPE, text=True).stdout if sys.platform == "linux" else ""
    return next((line.partition(":")[2].strip() for line in found.splitlines() if line.startswith("Model name")), "")


def main(
    frames: Annotated[int, typer.Option(min=64, help="Pictures of each of four units of each kind.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 3,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "feed.json",
) -> None:
    """Measure how fast one core reads and crops, and whether a network runs meanwhile."""
    write_figures(out, feed_rates(frames=frames, repeats=repeats))


if __name__ == "__main__":
    cli.run(main)
