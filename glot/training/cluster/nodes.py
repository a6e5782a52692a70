"""The nodes of a Ray cluster: which answer, what they have, what is free there; and asking a cluster for more of them.

An autoscaler starts nodes of several types for work that waits. Nodes that were started by hand have no type.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glot.training.cluster import session  # noqa: F401  # sets environment variables that ray reads when it is imported

# isort: split
import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.state import available_resources_per_node
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from glot.training.cluster.placement import Resources, described, in_words, slots
from glot.training.record.progress import duration

ANSWER_SECONDS = 15.0  # a node that has not answered after this is lost
GROW_SECONDS = 1800.0  # how long a cluster may take to start nodes
SAY_SECONDS = 60.0  # between two lines about that
TYPE = "ray.io/node-group"  # label with the type of a node
NO_TYPE = "node_"  # begins what the first autoscaler calls a node without a type


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes that Ray counts as alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    """The strategy that runs a task on this node and nowhere else."""
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def resources() -> list[Resources]:
    """What each node has, free or not."""
    return [node["Resources"] for node in alive_nodes()]


def free_resources() -> list[Resources]:
    """What is free on each node. Ray's view may be some seconds old."""
    return list(available_resources_per_node().values())


def answering_resources() -> list[Resources]:
    """What each node has that answers now. Ray counts a dead node for a while longer."""

    @ray.remote(num_cpus=0, max_retries=0)
    def answer() -> bool:
        return True

    node_of = {answer.options(scheduling_strategy=on(node)).remote(): node for node in alive_nodes()}
    found = []
    for reference in ray.wait(list(node_of), num_returns=len(node_of), timeout=ANSWER_SECONDS)[0]:
        try:
            ray.get(reference)
        except ray.exceptions.RayError:
            continue
        found.append(node_of[reference]["Resources"])
    return found


def can_grow() -> bool:
    """Whether something starts nodes when work waits for them: Ray's launcher, KubeRay, ... False for nodes by hand."""
    if any(TYPE in node.get("Labels", {}) for node in alive_nodes()):
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")  # of Ray's first autoscaler
    types = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(not kind.startswith(NO_TYPE) for kind in types.values())


@contextmanager
def asked_for(count: int, claim: Resources) -> Iterator[None]:
    """Within it, work of so many workers waits in the cluster, or holds its resources.

    It is gone when this process is, so that nobody pays for nodes that nothing needs.
    """
    group = placement_group([dict(claim)] * count, strategy="PACK")
    try:
        yield
    finally:
        remove_placement_group(group)


def grown_resources(count: int, claim: Resources) -> list[Resources]:
    """What each node has, once the cluster has room for so many workers with this claim.

    A cluster that can grow is asked to, and has GROW_SECONDS. Otherwise, the nodes that there are.
    """
    nodes = resources()
    if slots(nodes, claim) >= count or not can_grow():
        return nodes
    wanted = f"{count} workers with {in_words(claim)} each" if count > 1 else f"a worker with {in_words(claim)}"
    print(f"the cluster has {described(nodes)}; asking it for nodes for {wanted}", flush=True)
    begun = said = time.monotonic()
    with asked_for(count, claim):
        while slots(nodes, claim) < count and (now := time.monotonic()) - begun < GROW_SECONDS:
            if now - said > SAY_SECONDS:
                print(f"waiting for nodes since {duration(now - begun)}; now there are {described(nodes)}", flush=True)
                said = now
            time.sleep(1)
            nodes = resources()
    return nodes
