"""A Ray of two nodes with one core each, one of which goes away without a word; for programs of their own."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster


@contextmanager
def losing_a_node(when: Callable[[], bool]) -> Iterator[None]:
    """The second node is taken away as soon as ``when()``. Where the block ends well, so does the whole process."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(cluster.address, logging_level="warning")

    def remove() -> None:
        while not when():
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    threading.Thread(target=remove, daemon=True).start()
    yield
    cluster.head_node.kill_all_processes(check_alive=False)
    os._exit(0)  # cluster.shutdown() waits for the node that went
