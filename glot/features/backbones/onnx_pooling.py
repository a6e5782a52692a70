"""An output of an exported network in, a feature of each crop out.

N crops, F numbers, L tokens, C channels, H, W positions. The output is (N, F), tokens (N, L, C), or a map (N, C, H, W)
or (N, H, W, C). The errors do not name the file; the caller does.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.onnx_settings import OnnxSettings


def pooled(found: NDArray[Any], settings: OnnxSettings, *, channels_last: bool) -> NDArray[np.float32]:
    """(N, F) of an output. ``channels_last``: whether a map is (N, H, W, C).

    "mean" is that of all positions of a map, or of all patches. "first" is the first token. "quarters" are the means of
    the upper left, upper right, lower left and lower right quarter, side by side; of an odd number of rows or columns,
    the upper or left part gets one more.
    """
    values = np.asarray(found, np.float32)
    if settings.pooling == "none":
        return _flat(values)
    if values.ndim == 4:
        return _of_map(values.transpose(0, 3, 1, 2) if channels_last else values, settings.pooling)
    if values.ndim == 3:
        return _of_tokens(values, settings)
    raise InputError(f"has the shape {values.shape}; pooling: {settings.pooling} is for tokens and maps, use none")


def _flat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if sum(size > 1 for size in values.shape[1:]) > 1:
        pooling = "mean, first or quarters" if values.ndim == 3 else "mean or quarters"
        raise InputError(f"has the shape {values.shape}; name a pooling ({pooling}) in its YAML file")
    return values.reshape(len(values), -1)


def _of_tokens(tokens: NDArray[np.float32], settings: OnnxSettings) -> NDArray[np.float32]:
    """(N, L, C) -> (N, C), or (N, 4 C)."""
    if settings.pooling == "first":
        return tokens[:, 0]
    patches = tokens[:, settings.skip :]
    count = patches.shape[1]
    if not count:
        raise InputError(f"has {tokens.shape[1]} tokens, and skip: {settings.skip} leaves none")
    if settings.pooling == "mean":
        return patches.mean(1)
    height, width = settings.size
    rows = round(math.sqrt(count * height / width))
    if rows < 1 or count % rows:
        raise InputError(
            f"has {count} patches after skip: {settings.skip}, which are no grid of {height} x {width} px; "
            "give skip the number of tokens before the first patch"
        )
    grid = patches.reshape(len(tokens), rows, count // rows, -1)
    return _of_map(grid.transpose(0, 3, 1, 2), settings.pooling)


def _of_map(values: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """(N, C, H, W) -> (N, C), or (N, 4 C)."""
    if pooling == "mean":
        return values.mean((2, 3))
    if pooling == "first":
        raise InputError(f"is a map of {values.shape[2:]}, which has no first token; use pooling: mean or quarters")
    if min(values.shape[2:]) < 2:
        raise InputError(f"has {values.shape[2:]} positions, which have no quarters; use pooling: mean")
    halves = [np.array_split(rows, 2, axis=3) for rows in np.array_split(values, 2, axis=2)]
    return np.concatenate([part.mean((2, 3)) for row in halves for part in row], axis=1)
