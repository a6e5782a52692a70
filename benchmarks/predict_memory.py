"""How much memory a short and a long video take: everything ``python -m glot.predict`` does but its image networks.

Prints and writes benchmarks/out/predict_memory.json: ``{"peak_rss_mb": {"1", "30"}, "frames": {…}, "mb_per_minute"}``.
BlazePose's networks, whose memory does not depend on the video and would make this take hours, give constant answers:
one person, there in every frame. The model, the tracker, reading, writing and, with --film, drawing are the real ones.
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

OUT = Path(__file__).parent / "out" / "predict_memory.json"
RATE = 30
WORKER = """
import re, sys
from pathlib import Path
import numpy as np
from glot.features.backbones.blazepose import FEATURES, Detections, LandmarkOutput
from glot.capture.capture import capture
from glot.capture.options import CaptureOptions
from glot.capture.studio import Studio

class Quick(Studio):
    def find(self, picture):
        return Detections(np.array([[30, 10, 60, 100]], np.float32), np.array([0.9], np.float32))
    def landmarks(self, crops):
        points = np.linspace(60, 200, 33)[:, None].repeat(3, 1)[None].astype(np.float32)
        return LandmarkOutput(points, np.ones((1, 33), np.float32), np.ones(1, np.float32), None)
    def extractor(self, crops):
        return np.zeros((len(crops), FEATURES), np.float32)

video, out, checkpoint, film = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "film"
summary = capture(video, out, Quick(CaptureOptions(checkpoint=checkpoint, film=film)))
assert len(summary["people"]) == 1, summary
print(summary["people"][0]["frames"], re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def write_video(path: Path, minutes: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(minutes * 60 * RATE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")))
        container.mux(stream.encode())


def main(
    minutes: Annotated[
        list[int] | None, typer.Option(help="lengths to try; may be repeated. Default: 1 and 30")
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="a model of BlazePose's features")] = Path("open"),
    film: Annotated[bool, typer.Option("--film", help="draw overlay.mp4, too; some 40 ms a frame")] = False,
    out: Annotated[Path, typer.Option(help="where the figures go")] = OUT,
) -> None:
    """Makes videos of some minutes, predicts each in a process of its own, and says how much memory that took."""
    peaks, frames = {}, {}
    with tempfile.TemporaryDirectory(prefix="predict-memory-") as name:
        for length in sorted(minutes or (1, 30)):
            video = Path(name) / f"{length}.mp4"
            write_video(video, length)
            command = [sys.executable, "-c", WORKER, str(video), str(Path(name) / f"out-{length}"), str(checkpoint)]
            done = subprocess.run([*command, "film" if film else ""], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise InputError(f"the worker of {length} minutes ended with code {done.returncode}")
            frames[length], kilobytes = map(int, done.stdout.split()[-2:])
            peaks[length] = round(kilobytes * 1024 / 1e6, 1)
            print(f"{length} minutes, {frames[length]} frames: {peaks[length]} MB", flush=True)
    short, long = min(peaks), max(peaks)
    grown = round((peaks[long] - peaks[short]) / max(long - short, 1), 2)
    figures = {"peak_rss_mb": peaks, "frames": frames, "mb_per_minute": grown}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    cli.run(main)
