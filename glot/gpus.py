"""The NVIDIA GPUs that this process may use, as the driver's tool names them. Nothing heavy is imported to ask."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

SECONDS = 5  # time limit of the tool, which is slow where no process keeps the driver awake
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")


class Gpu(NamedTuple):
    """A GPU of this machine."""

    name: str
    memory_bytes: int


def gpus() -> list[Gpu]:
    """All GPUs, or those that CUDA_VISIBLE_DEVICES names; [] where there is no driver, or it does not answer."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(answer: str, chosen: str | None) -> list[Gpu]:
    """The GPUs in the answer to QUERY that ``chosen`` names: numbers, or the beginnings of UUIDs; None for all."""
    found = [line.split(", ") for line in answer.splitlines() if line.count(", ") == 3]
    if chosen is not None and "MIG-" not in chosen:  # the tool does not say here which card a slice is of
        names = [name.strip() for name in chosen.split(",")]
        found = [gpu for gpu in found if any(_is_named(name, *gpu[:2]) for name in names)]
    return [Gpu(name, int(memory) << 20 if memory.isdecimal() else 0) for _, _, name, memory in found]


def _is_named(name: str, index: str, uuid: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.startswith(name))
