"""Tensors of torch in a pickle that is no file of torch.save, such as a joblib dump, in; their numbers as arrays out.

Such a pickle calls torch._utils._rebuild_tensor_v2 for each tensor, and torch.storage._load_from_bytes for its numbers,
with the bytes of a small file in torch's format of before 2020: pickles of a magic number, of the version, of facts
about the machine and of the storage, then the list of storages, the number of numbers, and the numbers.
Neither function is called. Long numbers stay in the file.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glot.human.torch_index import DTYPES, is_dense
from pipelines.imports.joblib_file import LazyArray
from pipelines.imports.long_bytes import Sealed, Span

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
HEADER_BYTES = 4096  # bytes in which the pickles before the numbers end; usually they have some 300


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """numpy's name of a type of numbers. ValueError for bfloat16, which numpy lacks."""
    if dtype == torch.bfloat16:
        raise ValueError("numbers of type bfloat16, which numpy lacks; save them as float32")
    return np.dtype(str(dtype).removeprefix("torch."))


def last_number(offset: Any, shape: Any, stride: Any) -> int:
    """The number after the last one of a tensor, counted in its storage.

    ValueError where the arguments are no sizes, or where there are gaps between the tensor's numbers.
    """
    sizes = (offset, *shape, *stride)
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes) or len(shape) != len(stride):
        raise ValueError("a tensor has sizes that are no numbers")
    if not is_dense(shape, stride):
        raise ValueError(f"a tensor of shape {tuple(shape)} has gaps between its numbers; save it contiguous")
    return int(offset + math.prod(shape))


def tensor_classes(path: Path) -> dict[tuple[str, str], Any]:
    """Stand-ins for what the pickle in ``path`` calls for tensors, which become LazyArray, or arrays if short."""

    class Storage(Sealed):
        """The numbers of tensors."""

        def __init__(self, content: Any) -> None:
            self.lazy = isinstance(content, Span)
            if self.lazy:
                with path.open("rb") as file:
                    file.seek(content.offset)
                    head, size = file.read(min(HEADER_BYTES, content.size)), content.size
            else:
                head, size = bytes(content), len(content)
            self.dtype, self.count, start = _read_header(head)
            if start + self.count * self.dtype.itemsize > size:
                raise ValueError("a tensor's numbers are cut short")
            self.offset = content.offset + start if self.lazy else start
            self.content = None if self.lazy else head

    class Tensor(Sealed):
        """A tensor, with its numbers one after the other."""

        def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> None:
            if not isinstance(storage, Storage):
                raise ValueError("a tensor without numbers")
            if last_number(offset, shape, stride) > storage.count:
                raise ValueError("a tensor lies outside its numbers")
            self.storage, self.first, self.shape = storage, offset, tuple(shape)

        def value(self, resolve: Any) -> LazyArray | NDArray[Any]:
            numbers = self.storage
            offset = numbers.offset + self.first * numbers.dtype.itemsize
            if numbers.content is None:
                return LazyArray(path, offset, numbers.dtype, self.shape, "C")
            count = math.prod(self.shape)
            return np.frombuffer(numbers.content, numbers.dtype, count, offset).reshape(self.shape).copy()

    return {
        ("torch.storage", "_load_from_bytes"): Storage,
        ("torch._utils", "_rebuild_tensor_v2"): Tensor,
        ("collections", "defaultdict"): _Dict,
        # What makes the values of a defaultdict, by today's name and by that of old protocols; here it makes none.
        ("builtins", "list"): _Dict,
        ("__builtin__", "list"): _Dict,
    }


class _Dict(Sealed):
    """A plain dict, for a defaultdict."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def _read_header(head: bytes) -> tuple[np.dtype[Any], int, int]:
    """The type of the numbers, how many there are, and the byte at which they begin."""
    file = io.BytesIO(head)
    magic, version, machine, storage, keys = (_Header(file).load() for _ in range(5))
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError("a tensor's numbers are not in the format of torch.save")
    if machine.get("little_endian") is not True:
        raise ValueError("a tensor of a machine with another byte order")
    kind, dtype, key, _, count, view = storage
    if kind != "storage" or not isinstance(dtype, torch.dtype) or view is not None or keys != [key]:
        raise ValueError("a tensor's numbers are not plain numbers")
    if int.from_bytes(file.read(8), "little") != count:
        raise ValueError("a tensor's numbers are of another number than it says")
    return numpy_dtype(dtype), count, file.tell()


class _Header(pickle.Unpickler):
    """Reads plain values, and the description of a storage as the tuple that it is."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        raise ValueError(f"a tensor's numbers ask for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid
