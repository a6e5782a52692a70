"""Tells a Ray cluster that all its nodes will go away soon: python cluster/drain.py SECONDS, with RAY_ADDRESS set.

The nodes take no new work. Workers of an extraction notice it, write what they have done, and end. slurm.sbatch calls
this before the time limit of its job. `ray drain-node` does the same for one node, but takes seconds to start.
"""

import sys
import time

import ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION


def main(seconds: int) -> int:
    """Marks every living node as one that goes in ``seconds``. The exit code is 1 if a node did not take it."""
    ray.init(log_to_driver=False, logging_level="error")
    client, deadline = GcsClient(address=ray.get_runtime_context().gcs_address), int((time.time() + seconds) * 1000)
    refused = 0
    for node in ray.nodes():
        if node["Alive"]:
            reason = "the job's time is nearly over"
            taken, why = client.drain_node(node["NodeID"], DRAIN_NODE_REASON_PREEMPTION, reason, deadline)
            if not taken:
                print(f"warning: {node['NodeManagerAddress']}: {why}", file=sys.stderr)
                refused += 1
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
