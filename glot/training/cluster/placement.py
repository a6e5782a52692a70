"""The nodes of a cluster and what one worker claims in; how many workers fit out.

A worker is on one node, so the sum of the nodes does not count: two nodes of one core hold no worker of two cores. A
share of a GPU is on one GPU: two GPUs hold two workers of 0.6, not three. Nothing here imports Ray.
"""

from collections.abc import Iterable, Mapping

Resources = Mapping[str, float]  # CPU, GPU, ... of a node, or of what one worker claims

SLACK = 1e-6  # for shares such as 0.95 or 1/3, of which whole numbers are made


def slots(nodes: Iterable[Resources], claim: Resources) -> int:
    """How many workers with this claim fit on the nodes."""
    return sum(min(_times(kind, node.get(kind, 0), amount) for kind, amount in claim.items()) for node in nodes)


def _times(kind: str, there: float, amount: float) -> int:
    if kind == "GPU" and amount < 1:
        return int(there) * int(1 / amount + SLACK)
    return int(there / amount + SLACK)


def cores_each(nodes: Iterable[Resources], workers: int) -> int:
    """The most whole cores that each of the workers can have; 0 if the nodes do not hold them with one core each."""
    cores = [int(node.get("CPU", 0)) for node in nodes]
    return next(
        (share for share in range(max(cores, default=0), 0, -1) if sum(n // share for n in cores) >= workers), 0
    )


def described(nodes: Iterable[Resources]) -> str:
    """The nodes in words: "8 CPU cores and 0 GPUs on 2 nodes"."""
    nodes = list(nodes)
    cores, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return (
        f"{cores:.0f} CPU core{'s' if cores != 1 else ''} and {gpus:.0f} GPU{'s' if gpus != 1 else ''} on {len(nodes)} "
        f"node{'s' if len(nodes) != 1 else ''}"
    )


def in_words(claim: Resources) -> str:
    """A claim in words: "2 cores", "1 GPU and 1 core"."""
    names = {"GPU": "GPU", "CPU": "core"}
    parts = [f"{claim[kind]:g} {name}{'s' if claim[kind] > 1 else ''}" for kind, name in names.items() if kind in claim]
    return " and ".join(parts)
