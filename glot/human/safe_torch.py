"""A torch file in, its tensors and plain values out; nothing that the file asks for is executed."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load_torch(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU. Besides tensors it may hold numpy numbers and arrays.

    Official checkpoints hold their score as a numpy scalar; its pickle names numpy 1's or numpy 2's module. Raises
    torch's exceptions for a file that is missing, truncated or foreign, or that asks for any other class.
    """
    allowed: list[Any] = [np.ndarray, np.dtype]
    allowed += [type(np.dtype(kind)) for kind in ("b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")]
    rebuild, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    for package in ("numpy.core", "numpy._core"):  # the name before numpy 2, and since
        allowed += [(rebuild, f"{package}.multiarray._reconstruct"), (scalar, f"{package}.multiarray.scalar")]
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller reports a foreign file in one line
        return torch.load(path, map_location="cpu", weights_only=True)
