"""Measures the peak memory of a process that runs given Python code, and writes noisy videos for such code."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

from glot.errors import InputError

RATE = 30  # frames per second of the videos
# The last line that a worker prints: a count, then its own peak in kB. (The peak that a parent process sees for its
# child begins with the parent's memory.)
REPORT = """
import re as _re
def report(count):
    print(count, _re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def measure(code: str, *arguments: object) -> tuple[int, float]:
    """Runs ``code``, which calls ``report(count)`` at its end, in a process. Returns the count and the peak in MB."""
    command = [sys.executable, "-c", REPORT + code, *map(str, arguments)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        raise InputError(
            f"the worker with {' '.join(map(str, arguments))} ended with code {finished.returncode}: "
            f"{finished.stdout.strip()}"
        )
    count, kilobytes = map(int, finished.stdout.split()[-2:])
    return count, kilobytes * 1024 / 1e6


def write_video(path: Path, minutes: int, *, width: int, height: int) -> None:
    """A video of moving noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(minutes * 60 * RATE):
            picture = np.roll(noise, number, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
