"""Whether a Ray cluster can hold a run: joining the cluster, its resources, and which files its nodes see."""

import os
import time
from pathlib import Path

from glot.training import ray_session  # sets the environment variables that ray reads when it is imported

# isort: split
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from glot.errors import InputError
from glot.location import is_remote, temporary_of

NODE_SECONDS = 60.0  # how long to wait for a lost node to come back
ANSWER_SECONDS = 15.0  # a node that has not answered after this is lost
LOOK_SECONDS = 60.0  # how long a node may take to report which files it sees


def connect(*, workers: int, gpus: int) -> None:
    """Joins a Ray cluster, or starts Ray with enough cores for the workers; InputError where GPUs are lacking."""
    present = torch.cuda.device_count()
    if not os.environ.get("RAY_ADDRESS") and gpus > present:  # checked first, because Ray takes seconds to start
        raise InputError(
            f"--gpus {gpus}: this machine has {present}; ask for fewer, use --workers N on CPUs, or set RAY_ADDRESS to "
            "a cluster"
        )
    ray_session.connect(cpus=max(workers, os.cpu_count() or 1), training=True)


def check_resources(*, workers: int, gpus: int, cpus_per_worker: float) -> None:
    """InputError when the cluster can never hold the workers. Ray would wait for them forever without a message."""
    resources = ray.cluster_resources()
    if gpus > resources.get("GPU", 0):
        raise InputError(
            f"--gpus {gpus}: this cluster has {resources.get('GPU', 0):.0f}; ask for fewer, or use --workers N on CPUs"
        )
    if not gpus and workers * cpus_per_worker > resources.get("CPU", 0):
        raise InputError(
            f"--workers {workers}: this cluster has {resources.get('CPU', 0):.0f} CPU cores; ask for fewer workers"
        )


def check_nodes(features: Path, out: Path) -> None:
    """InputError unless every node of the cluster sees the features and what this process writes to ``out``."""
    nodes = alive_nodes()
    if len(nodes) < 2:
        return
    token = temporary_of(out / "seen-by-all")
    token.write_text("")
    places = [str(token)] + ([] if is_remote(features) else [str(features)])

    @ray.remote(num_cpus=0, max_retries=0)
    def unseen_places() -> list[str]:
        return [place for place in places if not os.path.exists(place)]

    try:
        for node in nodes:
            unseen = ray.get(unseen_places.options(scheduling_strategy=on(node)).remote(), timeout=LOOK_SECONDS)
            if unseen:
                what = f"--out {out}" if str(token) in unseen else f"--features {features}"
                raise InputError(
                    f"{what}: the node {node['NodeManagerAddress']} does not see it; put it on a file system that all "
                    "nodes share"
                )
    finally:
        token.unlink(missing_ok=True)


def available_slots(wanted: int, *, gpus: bool, cpus_per_worker: float) -> int:
    """How many of the ``wanted`` workers the cluster holds now. Waits NODE_SECONDS for a lost node to come back."""
    deadline = time.monotonic() + NODE_SECONDS
    while True:
        resources = answering_resources()
        slots = int(resources.get("GPU", 0)) if gpus else int(resources.get("CPU", 0) / cpus_per_worker + 1e-6)
        if slots >= wanted or time.monotonic() > deadline:
            return min(slots, wanted)
        time.sleep(1)


def answering_resources() -> dict[str, float]:
    """The sum of the resources of the nodes that answer now. Ray counts a dead node for a while longer."""

    @ray.remote(num_cpus=0, max_retries=0)
    def answer() -> bool:
        return True

    node_of = {answer.options(scheduling_strategy=on(node)).remote(): node for node in alive_nodes()}
    resources: dict[str, float] = {}
    for reference in ray.wait(list(node_of), num_returns=len(node_of), timeout=ANSWER_SECONDS)[0]:
        try:
            ray.get(reference)
        except ray.exceptions.RayError:
            continue
        for kind, amount in node_of[reference]["Resources"].items():
            resources[kind] = resources.get(kind, 0) + amount
    return resources


def alive_nodes() -> list[dict]:
    """The nodes that Ray counts as alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def on(node: dict) -> NodeAffinitySchedulingStrategy:
    """The strategy that runs a task on this node and nowhere else."""
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
