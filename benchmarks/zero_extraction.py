"""extract_features with a network that returns zeros: what is left is decoding and the work of the pipeline itself.

``python benchmarks/zero_extraction.py ROOT TRACKS OUT WORK`` is a driver as a user starts it. Its last line is JSON:
seconds and CPU seconds of each phase, and the peak memory. Each worker adds lines "CPU seconds, units" of its tasks to
a file in the folder WORK.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from glot.location import location
from pipelines.decoders.registry import load_decoder
from pipelines.extraction import job
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.ingredients import Ingredients, describe_crops, describe_set
from pipelines.extraction.split_run import SplitRun
from pipelines.extraction.units import Tools
from pipelines.extraction.worker import ExtractUnits
from pipelines.jobs.bookkeeper import Result
from pipelines.jobs.pool_worker import Item

VALUES, CROP = 2048, 32  # values of a feature vector; side of the crops, px
SIDE, PICTURES, RATE = 64, 2, 30  # of a video: px, pictures, pictures per second
IN_FOLDER = 1000  # videos in a folder


def zero_ingredients(spec: DatasetSpec, splits: Sequence[str], occluders: dict[str, Any] | None) -> Ingredients:
    """What the set is made with: no network is loaded."""
    backbone = {"name": "zeros", "weights": "none", "hash": "zeros", "feature_size": VALUES}
    body = {"name": "none", "hash": "none", "open": True}
    crop = describe_crops(spec, load_decoder(spec.dataset, spec.tracks), CROP, occluders)
    return Ingredients({split: describe_set(spec, split, backbone, body, crop) for split in splits})


def zeros(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.zeros((len(crops), VALUES), np.float32)


class ZeroUnits(ExtractUnits):
    """Extracts units with ``zeros``; notes the CPU seconds of decoding, cropping and writing rows."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        from glot.human.body import load_body

        self.jobs = arguments["jobs"]
        self.tools = Tools(zeros, load_body(None))
        self.spent, self.units = 0.0, 0

    def work(self, item: Item) -> Result:
        start = time.process_time()
        result = super().work(item)
        self.spent, self.units = self.spent + time.process_time() - start, self.units + 1
        return result

    def answer(self, task: Mapping[str, Any]) -> bytes:
        answer = super().answer(task)
        with (Path(os.environ["ZERO_WORK"]) / str(os.getpid())).open("a") as file:
            print(self.spent, self.units, file=file)
        self.spent, self.units = 0.0, 0
        return answer


def write_videos(root: Path, tracks: Path, count: int) -> None:
    """``count`` videos of two pictures, 1,000 to a folder, and a file with the boxes of a person in each of them.

    A folder's videos are hard links to one file.
    """
    boxes = []
    for number in range(count):
        path = root / f"{number // IN_FOLDER:04d}" / f"{number:06d}.mp4"
        if number % IN_FOLDER == 0:
            path.parent.mkdir(parents=True)
            first = path
            write_video(path)
        else:
            path.hardlink_to(first)
        person = {"frames": list(range(PICTURES)), "bbox": [[8, 8, 32, 48]] * PICTURES}
        boxes.append(f"{json.dumps(path.relative_to(root).as_posix())}: {json.dumps({'1': person})}")
    tracks.write_text("{" + ",\n".join(boxes) + "}")


def write_video(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(PICTURES):
            picture = np.full((SIDE, SIDE, 3), 100 + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


class Phases:
    """When each phase began and ended, and the CPU seconds of this process in it."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def timed(self, name: str, function: Callable[..., Any], into: Callable[[Any], Any] = lambda value: value) -> Any:
        """The function, which notes its phase. ``into``: what is done with its value within the phase."""

        def call(*arguments: Any, **options: Any) -> Any:
            start, cpu = time.monotonic(), time.process_time()
            value = into(function(*arguments, **options))
            now = time.monotonic()
            self.found[name] = {"start": start, "stop": now, "s": now - start, "cpu_s": time.process_time() - cpu}
            return value

        return call


def peak_mb() -> float:
    """The largest memory of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    root, tracks, out, work = sys.argv[1:]
    os.environ["ZERO_WORK"] = work
    job.load_ingredients = zero_ingredients
    phases = Phases()
    job.ExtractUnits = ZeroUnits  # type: ignore[misc]
    SplitRun.__enter__ = phases.timed("plan", SplitRun.__enter__)  # type: ignore[method-assign]
    job._extract = phases.timed("run", job._extract)
    job._published = phases.timed("publish", job._published, into=list)
    spec = DatasetSpec(dataset="video", root=location(root), tracks=location(tracks), out=location(out))
    code = phases.timed("all", job.extract_dataset)(spec)
    started = time.process_time() - phases.found["all"]["cpu_s"]  # imports
    whole = {"code": code, "phases": phases.found, "peak_mb": peak_mb(), "imports_cpu_s": started}
    print(json.dumps(whole), flush=True)


if __name__ == "__main__":
    main()
