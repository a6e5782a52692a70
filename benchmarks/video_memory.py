"""The memory of an extraction worker that does all units of a short or of a long video, without the network.

Prints and writes benchmarks/out/video_memory.json: ``{"peak_rss_mb": {"1", "30"}, "rows": {…}, "over_short"}``.
The network's memory does not depend on the video, and running it would take an hour.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from figures import OUT, write_figures
from worker_memory import measure, write_video

from glot import cli

WORKER = """
import sys
from pathlib import Path
import numpy as np
from glot.human.body import load_body
from pipelines.decoders.video_dataset import VIDEO
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.units import SplitJob, Tools, extract_unit
root, out = Path(sys.argv[1]), Path(sys.argv[2])
settings = {"backbone": {"feature_size": 2048}, "crop": {"size": 224}}
job = SplitJob(DatasetSpec(dataset="video", root=root, out=out), "test", settings)
job.folder.mkdir(parents=True)
features = np.random.default_rng(0).standard_normal((8, 2048)).astype(np.float32)
(whole,) = VIDEO.find(root, "test")
tools = Tools(lambda crops: features[: len(crops)], load_body())
report(sum(extract_unit(job, unit.key, unit, tools).rows for unit in VIDEO.cut(root, whole)))
"""


def main(
    minutes: Annotated[
        list[int] | None, typer.Option(help="Length of a video; may be repeated.", show_default="1 and 30")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "video_memory.json",
) -> None:
    """Make videos, extract each in a new process, and report the memory of these processes."""
    peaks, rows = {}, {}
    with tempfile.TemporaryDirectory(prefix="video-memory-") as name:
        for length in minutes or (1, 30):
            folder = Path(name) / str(length)
            folder.mkdir()
            write_video(folder / "noise.mp4", length, width=320, height=240)
            rows[length], peak = measure(WORKER, folder, Path(name) / f"out-{length}")
            peaks[length] = round(peak, 1)
            print(f"{length} minutes, {rows[length]} rows: {peaks[length]} MB", flush=True)
    ratio = round(max(peaks.values()) / min(peaks.values()), 3)
    write_figures(out, {"peak_rss_mb": peaks, "rows": rows, "over_short": ratio})


if __name__ == "__main__":
    cli.run(main)
