"""How much memory a worker takes for a short and for a long video: everything it does but the network itself.

Prints and writes benchmarks/out/video_memory.json: ``{"peak_rss_mb": {"1", "30"}, "rows": {…}, "over_short"}``.
The network's own memory does not depend on the video, and would make this take an hour.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer

from glot import cli
from glot.errors import InputError

OUT = Path(__file__).parent / "out" / "video_memory.json"
RATE = 30
WORKER = """
import re, sys
from pathlib import Path
import numpy as np
from glot.human.body import load_body
from pipelines.decoders.video import VIDEO
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.units import SplitJob, Tools, extract_unit
root, out = Path(sys.argv[1]), Path(sys.argv[2])
settings = {"backbone": {"feature_size": 2048}, "crop": {"size": 224}}
job = SplitJob(DatasetSpec(dataset="video", root=root, out=out), "test", settings)
job.folder.mkdir(parents=True)
features = np.random.default_rng(0).standard_normal((8, 2048)).astype(np.float32)
(unit,) = VIDEO.find(root, "test")
record = extract_unit(job, unit, Tools(lambda crops: features[: len(crops)], load_body()))
print(record.part["rows"], re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def write_video(path: Path, minutes: int) -> None:
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(minutes * 60 * RATE):
            picture = np.roll(noise, number, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def main(
    minutes: Annotated[
        list[int] | None, typer.Option(help="lengths to try; may be repeated. Default: 1 and 30")
    ] = None,
    out: Annotated[Path, typer.Option(help="where the figures go")] = OUT,
) -> None:
    """Makes videos of some minutes, extracts each in a process of its own, and says how much memory that took."""
    peaks, rows = {}, {}
    with tempfile.TemporaryDirectory(prefix="video-memory-") as name:
        for length in minutes or (1, 30):
            folder = Path(name) / str(length)
            write_video(folder / "film.mp4", length)
            command = [sys.executable, "-c", WORKER, str(folder), str(Path(name) / f"out-{length}")]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise InputError(f"the worker of {length} minutes ended with code {done.returncode}")
            rows[length], kilobytes = map(int, done.stdout.split()[-2:])
            peaks[length] = round(kilobytes * 1024 / 1e6, 1)
            print(f"{length} minutes, {rows[length]} rows: {peaks[length]} MB", flush=True)
    figures = {"peak_rss_mb": peaks, "rows": rows, "over_short": round(max(peaks.values()) / min(peaks.values()), 3)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    cli.run(main)
