"""What the pipeline itself costs for very many videos: planned, extracted, published, and the command run once more.

The videos have two pictures each, and the network returns zeros. Ray runs on simulated nodes of one core. Prints and
writes benchmarks/out/scale.json, among them: ``plan_s_per_1000``, ``run_s_per_1000``, ``publish_s_per_1000`` and
``rerun_s_per_1000``, CPU seconds of the driver per 1,000 units; ``driver_mb``, its peak memory; and
``store_requests_per_1000_rerun``, counted in an S3 on this machine that holds both the videos and the set. CPU seconds
count and not the time, so that other work on the machine changes little.

100,000 units take about 25 minutes on two free cores, and the 2,000 in the store five.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from feed import feed_rates
from figures import OUT, write_figures
from process_times import ProcessTimes
from zero_extraction import write_videos

from glot import cli
from glot.errors import InputError
from glot.location import location

HERE = Path(__file__).parent
KINDS = {
    "ray::Bookkeeper": "bookkeeper", "ZeroUnits": "workers", "PlanSources": "planners", "PackParts": "packers",
    "zero_extraction.py": "driver", "gcs_server": "ray", "raylet": "ray",
}  # fmt: skip
UNIT_SECONDS = 100.0  # a real unit: 2,000 frames at 20 frames/s, ResNet-50 on one core
RAY_DATA_UNITS = 1000


@contextmanager
def simulated_nodes(count: int) -> Iterator[None]:
    """A Ray of a head without CPUs and ``count`` nodes of one CPU; commands that are started within it join it."""
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 200_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, **store)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def extract(root: object, tracks: object, out: object) -> dict[str, Any]:
    """Runs the command as a process of its own; what it measured, with "wall_s" of the whole process."""
    command = [
        sys.executable,
        str(HERE / "zero_extraction.py"),
        *map(str, (root, tracks, out)),
        os.environ["ZERO_WORK"],
    ]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = ended.stdout.splitlines()
    print("\n".join(lines[:-1]), flush=True)
    measured: dict[str, Any] = json.loads(lines[-1]) if ended.returncode == 0 and lines else {"code": "none"}
    if measured["code"] != 0:
        raise InputError(f"the extraction ended with {ended.returncode}, its exit code is {measured['code']}")
    return {**measured, "wall_s": time.monotonic() - start}


def local_figures(folder: Path, units: int) -> dict[str, Any]:
    """A first run and a rerun of ``units`` videos on this disk."""
    with ProcessTimes(KINDS, other="ray") as times:
        begun = time.monotonic()
        arguments = folder / "videos", folder / "boxes.json", folder / "features"
        first = extract(*arguments)
        ended = time.monotonic()
        again = extract(*arguments)
    thousands = units / 1000
    spent = {name: times.between(phase["start"], phase["stop"]) for name, phase in first["phases"].items()}
    spent["rerun"] = times.between(ended, time.monotonic())
    extracted, done = worked(folder / "work")
    if done < units:
        raise InputError(f"{done} of {units} units were extracted")
    everything = sum(times.between(begun, ended).values())
    own = everything - extracted
    figures = {f"{name}_s_per_1000": first["phases"][name]["cpu_s"] / thousands for name in ("plan", "run", "publish")}
    figures["rerun_s_per_1000"] = (again["phases"]["all"]["cpu_s"] + again["imports_cpu_s"]) / thousands
    return {
        **figures,
        "driver_mb": max(first["peak_mb"], again["peak_mb"]),
        "bookkeeper_mb": times.peak_mb.get("bookkeeper", 0.0),
        "rerun_wall_s": again["wall_s"],
        "rerun_cpu_s": again["phases"]["all"]["cpu_s"] + again["imports_cpu_s"],
        **{f"{name}_wall_s": first["phases"][name]["s"] for name in ("plan", "run", "publish")},
        "cpu_s_per_1000": {
            name: {kind: seconds / thousands for kind, seconds in kinds.items()} for name, kinds in spent.items()
        },
        "zero_unit_cpu_s": extracted / done,
        "bookkeeping_cpu_s_per_unit": own / units,
        "bookkeeping_share": own / everything,
        "bookkeeping_share_of_100_s_units": own / units / (own / units + UNIT_SECONDS),
    }


def worked(folder: Path) -> tuple[float, int]:
    """CPU seconds in which workers decoded, cropped and wrote rows, and for how many units."""
    lines = [line.split() for path in folder.iterdir() for line in path.read_text().splitlines()]
    return sum(float(seconds) for seconds, _ in lines), sum(int(units) for _, units in lines)


def store_figures(folder: Path, units: int, nodes: int) -> dict[str, Any]:
    """Requests of a first run and of a rerun, with the videos, the boxes and the set in a store."""
    from s3fs import S3FileSystem

    sys.path.insert(0, str(HERE.parent))
    from tests.fixtures.flaky_store import running_store

    os.environ["GLOT_CACHE"] = str(folder / "cache")
    write_videos(folder / "stored", folder / "stored.json", units)
    with running_store() as store:
        S3FileSystem().put(str(folder / "stored"), f"{store.uri}/videos", recursive=True)
        S3FileSystem().put(str(folder / "stored.json"), f"{store.uri}/boxes.json")
        arguments = location(f"{store.uri}/videos"), location(f"{store.uri}/boxes.json"), f"{store.uri}/features"
        found = {}
        with simulated_nodes(nodes):
            for name in ("first", "rerun"):
                with store.counted() as requests:
                    extract(*arguments)
                found[name] = list(requests)
    kinds = {name: Counter(_kind(request) for request in requests) for name, requests in found.items()}
    return {
        **{f"store_requests_per_1000_{name}": len(found[name]) * 1000 / units for name in found},
        "store_units": units,
        "store_requests": {name: dict(kinds[name].most_common()) for name in found},
    }


def _kind(request: Any) -> str:
    place, _, query = request.path.partition("?")
    folder = next(
        (part for part in ("videos", "boxes", "units", "outcomes", "plan", "part-", "lock") if part in place), ""
    )
    return f"{request.method} {'list' if 'list-type' in query else folder or 'other'}"


class Same:
    """Ray Data's smallest unit of work."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"units": len(row["units"])}


def ray_data_figures() -> dict[str, float]:
    """CPU seconds of the driver for 1,000 units that do nothing, one to a task and 100 to a task."""
    import ray

    figures = {}
    from pipelines.jobs.worker_pool import ray_session

    with ray_session():
        for each in (100, 1, 100):  # the first one also pays for what is done once
            rows = [{"units": list(range(each))} for _ in range(RAY_DATA_UNITS // each)]
            start = time.process_time()
            pool = ray.data.ActorPoolStrategy(min_size=2, max_size=2, max_tasks_in_flight_per_actor=1)
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(Same, compute=pool, num_cpus=0.9)
            assert sum(row["units"] for row in done.iter_rows()) == RAY_DATA_UNITS
            figures[f"ray_data_s_per_1000_by_{each}"] = time.process_time() - start
    return figures


def main(
    units: Annotated[int, typer.Option(min=1, help="Number of videos on the disk.")] = 100_000,
    store_units: Annotated[int, typer.Option(min=0, help="Number of videos in the store. 0: without a store.")] = 2000,
    nodes: Annotated[int, typer.Option(min=1, help="Number of simulated nodes with one core each.")] = 2,
    work: Annotated[
        Path | None, typer.Option(help="Disk for the videos and the sets, which are removed at the end.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "scale.json",
) -> None:
    """Measure what planning, running, publishing and a second run cost for very many small units."""
    figures: dict[str, Any] = {"units": units, "nodes": nodes, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="glot-bench-", dir=work) as name:
        folder = Path(name)
        (folder / "work").mkdir()
        os.environ["ZERO_WORK"] = str(folder / "work")
        os.environ["OMP_NUM_THREADS"] = "1"
        print(f"writing {units} videos", flush=True)
        write_videos(folder / "videos", folder / "boxes.json", units)
        with simulated_nodes(nodes):
            figures |= local_figures(folder, units)
            figures |= ray_data_figures()
        shutil.rmtree(folder / "videos")
        write_figures(out, figures, show=False)
        if store_units:
            figures |= store_figures(folder, store_units, nodes)
    figures |= feed_rates()
    write_figures(out, figures)


if __name__ == "__main__":
    cli.run(main)
