"""The tensors of a network in, a hash that identifies their numbers out."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of the SHA-256 of names, shapes and float32 values, sorted by name.

    The same numbers in another file format have the same hash. Nothing is copied that is float32 already.
    """
    digest = hashlib.sha256()
    for name, values in sorted(state.items()):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
