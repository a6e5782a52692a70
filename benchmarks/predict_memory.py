"""The memory of ``python -m glot.predict`` for a short and for a long video, without its image networks.

Prints and writes benchmarks/out/predict_memory.json: ``{"peak_rss_mb": {"1", "30"}, "frames": {…}, "mb_per_minute"}``.
The memory of BlazePose's networks does not depend on the video, and running them would take hours. Constant outputs
replace them: one person in every frame. The model, the tracker, reading, writing and, with --film, drawing are real.
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
from glot.features.backbones.blazepose import FEATURES, Detections, LandmarkOutput
from glot.capture.capture import capture
from glot.capture.capture_options import CaptureOptions
from glot.capture.studio import Studio

class Quick(Studio):
    def detector(self, picture):
        return Detections(np.array([[30, 10, 60, 100]], np.float32), np.array([0.9], np.float32))
    def landmarks(self, crops):
        points = np.linspace(60, 200, 33)[:, None].repeat(3, 1)[None].astype(np.float32)
        return LandmarkOutput(points, np.ones((1, 33), np.float32), np.ones(1, np.float32), None)
    def extractor(self, crops):
        return np.zeros((len(crops), FEATURES), np.float32)

video, out, checkpoint, film = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "film"
summary = capture(video, out, Quick(CaptureOptions(checkpoint=checkpoint, film=film)))
assert len(summary["people"]) == 1, summary
report(summary["people"][0]["frames"])
"""


def main(
    minutes: Annotated[
        list[int] | None, typer.Option(help="Length of a video; may be repeated.", show_default="1 and 30")
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="A model for BlazePose's features.")] = Path("open"),
    film: Annotated[bool, typer.Option("--film", help="Also draw overlay.mp4: about 40 ms a frame.")] = False,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "predict_memory.json",
) -> None:
    """Make videos, reconstruct each in a new process, and report the memory of these processes."""
    peaks, frames = {}, {}
    with tempfile.TemporaryDirectory(prefix="predict-memory-") as name:
        for length in sorted(minutes or (1, 30)):
            video = Path(name) / f"{length}.mp4"
            write_video(video, length, width=160, height=120)
            output = Path(name) / f"out-{length}"
            frames[length], peak = measure(WORKER, video, output, checkpoint, "film" if film else "")
            peaks[length] = round(peak, 1)
            print(f"{length} minutes, {frames[length]} frames: {peaks[length]} MB", flush=True)
    short, long = min(peaks), max(peaks)
    growth = round((peaks[long] - peaks[short]) / max(long - short, 1), 2)
    write_figures(out, {"peak_rss_mb": peaks, "frames": frames, "mb_per_minute": growth})


if __name__ == "__main__":
    cli.run(main)
