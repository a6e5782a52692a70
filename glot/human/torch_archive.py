"""A file of ``torch.save`` in, the tensors whose names are asked for out; other objects in it are never made.

``glot.human.safe_torch`` refuses a file that holds an object of any class it does not know. Checkpoints of training
frameworks hold many (settings, schedules, callbacks). Here they become blanks that keep nothing, so their classes need
not be installed and none of their code runs. Only the bytes of the tensors that are asked for are read.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glot.errors import InputError, raise_if_passing
from glot.human.torch_index import Storage, Stored, is_dense, read_index, shown

LARGEST_INDEX = 1 << 24  # bytes of the pickle that says what the tensors are
MOST_AXES = 64  # of a tensor
PIECE = 1 << 24  # bytes that are read at a time
OLD = "a file of torch 1.5 or older; load it with torch and save it again"


class TorchFile(NamedTuple):
    """An open file: its archive, the folder of all entries in it, and the content as ``read_index`` gives it."""

    archive: zipfile.ZipFile
    root: str
    content: Any


def read_tensors(path: Path, option: str, wanted: Callable[[Any], Mapping[str, Any]]) -> dict[str, Tensor]:
    """The tensors that ``wanted(content)`` picks out of the content of the file, by name, on the CPU.

    The content is plain Python values, with ``Stored`` for tensors and blanks for all other objects. Tensors that share
    their numbers in the file share them in memory, too. InputError that starts with ``option`` and the path for a file
    that is missing, truncated, foreign or hostile; ``wanted`` may raise one, too.
    """
    with torch_file(path, f"{option} {path}") as file:
        return _tensors(file.archive, file.root, wanted(file.content))


@contextmanager
def torch_file(path: Path, where: str) -> Iterator[TorchFile]:
    """Opens a file. What goes wrong, there or in the block, is an InputError that starts with ``where``."""
    try:
        if not path.is_file():
            raise InputError("there is no such file")
        with zipfile.ZipFile(path) as archive:
            yield _opened(archive)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except zipfile.BadZipFile:
        raise InputError(f"{where}: is no whole file of torch ({_kind(path)}); fetch it again") from None
    except Exception as error:  # a hostile or cut file can raise anything anywhere in the decoder
        raise_if_passing(error, path)
        reason = shown(f"{type(error).__name__}: {error}")
        raise InputError(f"{where}: not readable as a file of torch ({reason}); fetch it again") from None


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return "a zip archive that is damaged or cut short"
    return OLD if start == b"\x80\x02" else "no zip archive"


def _opened(archive: zipfile.ZipFile) -> TorchFile:
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise InputError("holds no data.pkl, so it is no file of torch.save")
    root = names[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and _small(archive, f"{root}byteorder", 16) != b"little":
        raise InputError("was written on a machine with another byte order")
    return TorchFile(archive, root, read_index(_small(archive, names[0], LARGEST_INDEX)))


def _tensors(archive: zipfile.ZipFile, root: str, found: Mapping[str, Any]) -> dict[str, Tensor]:
    spans: dict[Storage, tuple[int, int]] = {}  # the numbers of a storage that are needed
    for name, stored in found.items():
        _check_tensor(archive, root, shown(name), stored)
        first, last = spans.get(stored.storage, (stored.offset, stored.end))
        spans[stored.storage] = min(first, stored.offset), max(last, stored.end)
    if len({storage.key for storage in spans}) < len(spans):
        raise InputError("tensors of several types share their numbers")
    numbers = {storage: _numbers(archive, root, storage, *span) for storage, span in spans.items()}
    return {
        name: numbers[storage][offset - spans[storage][0] :][: prod(shape)].view(shape)
        for name, (storage, offset, shape, _) in found.items()
    }


def _small(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of an entry; not those of a compressed one, which may be any number of bytes."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise InputError(f"its {name.rpartition('/')[2]} is compressed, or larger than {most} bytes")
    return archive.read(info)


def _check_tensor(archive: zipfile.ZipFile, root: str, name: str, stored: Any) -> None:
    """InputError for what is no tensor, for numbers that are not there, and for numbers with gaps between them."""
    if not isinstance(stored, Stored):
        raise InputError(f"{name} is no tensor")
    storage, offset, shape, stride = stored
    if not all(_is_size(value) for value in (storage.size, offset, *shape, *stride)):
        raise InputError(f"{name} has sizes that are no numbers")
    if len(shape) != len(stride) or len(shape) > MOST_AXES:
        raise InputError(f"{name} has {len(shape)} axes and {len(stride)} strides")
    if prod(shape) and not is_dense(shape, stride):
        raise InputError(f"{name} is not stored as plain numbers")
    try:
        info = archive.getinfo(f"{root}data/{storage.key}")
    except KeyError:
        raise InputError(f"{name}: the file lacks its numbers") from None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < storage.size * storage.dtype.itemsize:
        raise InputError(f"{name} is cut short or compressed")
    if stored.end > storage.size:
        raise InputError(f"{name} lies outside its numbers")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _numbers(archive: zipfile.ZipFile, root: str, storage: Storage, start: int, end: int) -> Tensor:
    """The numbers from ``start`` to before ``end``."""
    width = storage.dtype.itemsize
    content = bytearray((end - start) * width)
    if not content:
        return torch.empty(0, dtype=storage.dtype)
    with archive.open(f"{root}data/{storage.key}") as file, memoryview(content) as view:
        file.seek(start * width)
        for place in range(0, len(view), PIECE):
            piece = view[place : place + PIECE]
            if len(read := file.read(len(piece))) < len(piece):
                raise InputError("is cut short")
            piece[:] = read
    return torch.frombuffer(content, dtype=storage.dtype)
