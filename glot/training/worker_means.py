"""Values of each worker in; their mean, on every worker, out."""

import torch.distributed as dist
from torch import Tensor


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of the workers' values. Every worker has to call this."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values
