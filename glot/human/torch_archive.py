"""A file of ``torch.save`` in, the tensors whose names are asked for out; other objects in it are never made.

``glot.human.safe_torch`` refuses a file that holds an object of any class it does not know. Checkpoints of training
frameworks hold many (settings, schedules, callbacks). Here they become blanks that keep nothing, so their classes need
not be installed and none of their code runs. Only the bytes of the tensors that are asked for are read.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glot.errors import InputError, raise_if_passing

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
LARGEST_INDEX = 1 << 28  # bytes of the pickle that says what the tensors are
OLD = "a file of torch 1.5 or older; load it with torch and save it again"


class Storage(NamedTuple):
    """Numbers in the archive."""

    key: str
    dtype: torch.dtype
    size: int


class Stored(NamedTuple):
    """A tensor whose numbers are still in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(path: Path, option: str, wanted: Callable[[Any], Mapping[str, Any]]) -> dict[str, Tensor]:
    """The tensors that ``wanted(content)`` picks out of the content of the file, by name, on the CPU.

    The content is plain Python values, with ``Stored`` for tensors and blanks for all other objects. InputError that
    starts with ``option`` and the path for a file that is missing, truncated, foreign or hostile; ``wanted`` may raise
    one, too.
    """
    where = f"{option} {path}"
    if not path.is_file():
        raise InputError(f"{where}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, wanted)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except zipfile.BadZipFile:
        raise InputError(f"{where}: is no whole file of torch ({_kind(path)}); fetch it again") from None
    except Exception as error:  # a hostile or cut file can raise anything anywhere in the decoder
        raise_if_passing(error, path)
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{where}: not readable as a file of torch ({reason}); fetch it again") from None


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        return OLD if file.read(2) == b"\x80\x02" else "no zip archive, or cut short"


def _read(archive: zipfile.ZipFile, wanted: Callable[[Any], Mapping[str, Any]]) -> dict[str, Tensor]:
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise InputError("holds no data.pkl, so it is no file of torch.save")
    root = names[0].removesuffix("data.pkl")
    if archive.getinfo(names[0]).file_size > LARGEST_INDEX:
        raise InputError(f"its data.pkl has more than {LARGEST_INDEX >> 20} MB")
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
    if order != b"little":
        raise InputError("was written on a machine with another byte order")
    with archive.open(names[0]) as file:
        content = _Unpickler(file).load()
    return {name: _tensor(archive, root, name, value) for name, value in wanted(content).items()}


def _tensor(archive: zipfile.ZipFile, root: str, name: str, stored: Any) -> Tensor:
    if not isinstance(stored, Stored):
        raise InputError(f"{name} is no tensor")
    storage, shape, stride = stored.storage, stored.shape, stored.stride
    numbers = int(np.prod(shape, dtype=object)) if shape else 1
    dense = tuple(int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape)))
    if numbers and any(size > 1 and step != wanted for size, step, wanted in zip(shape, stride, dense, strict=True)):
        raise InputError(f"{name} is not stored as plain numbers")
    info = archive.getinfo(f"{root}data/{storage.key}")
    width = torch.empty(0, dtype=storage.dtype).element_size()
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < storage.size * width:
        raise InputError(f"{name} is cut short or compressed")
    if stored.offset < 0 or stored.offset + numbers > storage.size:
        raise InputError(f"{name} lies outside its numbers")
    if not numbers:
        return torch.empty(shape, dtype=storage.dtype)
    with archive.open(info) as file:
        file.seek(stored.offset * width)
        content = bytearray(file.read(numbers * width))
    return torch.frombuffer(content, dtype=storage.dtype).reshape(shape)


class Blank:
    """Takes the place of any object that is no plain value. Whatever is done to it, it keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Blank":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forgets the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forgets the item: for objects that were dicts."""

    def append(self, item: Any) -> None:
        """Forgets the item: for objects that were lists."""

    def extend(self, items: Any) -> None:
        """Forgets the items."""

    def add(self, item: Any) -> None:
        """Forgets the item: for objects that were sets."""


def _rebuilt(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> Stored | Blank:
    if not isinstance(storage, Storage):
        return Blank()
    return Stored(storage, int(offset), tuple(int(n) for n in shape), tuple(int(n) for n in stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data


_PLAIN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    """Finds tensors and containers; everything else is blank."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        return _PLAIN.get((module, name), Blank)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return Blank()
        return Storage(str(key), dtype, int(size))
