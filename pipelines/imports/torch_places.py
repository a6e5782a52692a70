"""A file of torch.save in, its content out; its tensors stay in the file until their rows are read.

glot.human.torch_archive reads whole tensors; here a file may be larger than memory.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glot.errors import InputError, raise_if_passing
from glot.human.torch_archive import LARGEST_INDEX, OLD
from glot.human.torch_index import Stored, read_index, shown
from pipelines.imports.joblib_file import LazyArray
from pipelines.imports.torch_pickles import last_number, numpy_dtype

OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"  # of files of torch.save before 2020
LOCAL_HEADER = 30  # bytes of an entry's own header in a zip archive, before its name

# The LazyArray of a tensor of the content. InputError where its numbers are not all there, one after the other.
Place = Callable[[Stored], LazyArray]


def open_torch(path: Path) -> tuple[Any, Place]:
    """The content of a file: plain values, with ``Stored`` for tensors and blanks for objects; and their places.

    InputError for a file that is missing, cut short, foreign or hostile.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            index = _entry(archive, "data.pkl")
            if index.file_size > LARGEST_INDEX:
                raise InputError(f"its data.pkl has more than {LARGEST_INDEX >> 20} MB")
            root = index.filename.removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.open(f"{root}byteorder").read(16) != b"little":
                raise InputError("was written on a machine with another byte order")
            entries = {info.filename.removeprefix(f"{root}data/"): info for info in archive.infolist()}
            return read_index(archive.read(index)), _finder(path, entries)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            is_old = file.read(len(OLD_START)) == OLD_START
        reason = OLD if is_old else "no whole file of torch.save; fetch it again"
        raise InputError(f"{path}: {reason}") from None
    except Exception as error:  # a hostile or cut file can raise anything anywhere in the decoder
        raise_if_passing(error, path)
        reason = shown(f"{type(error).__name__}: {error}")
        raise InputError(f"{path}: not readable as a file of torch.save ({reason}); fetch it again") from None


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == name]
    if len(found) != 1 or found[0].compress_type != zipfile.ZIP_STORED:
        raise InputError(f"holds no plain {name}, so it is no file of torch.save")
    return found[0]


def _finder(path: Path, entries: dict[str, zipfile.ZipInfo]) -> Place:
    def place(stored: Stored) -> LazyArray:
        storage, offset, shape, stride = stored
        try:
            last, dtype = last_number(offset, shape, stride), numpy_dtype(storage.dtype)
        except ValueError as error:
            raise InputError(str(error)) from None
        entry = entries.get(storage.key)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise InputError("a tensor's numbers are not in the file")
        start, end = _data(path, entry)
        if start + last * dtype.itemsize > end:
            raise InputError("a tensor's numbers are cut short")
        return LazyArray(path, start + offset * dtype.itemsize, dtype, shape, "C")

    return place


def _data(path: Path, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """The bytes [start, end) of the file that are the content of an entry that is not compressed."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER)
        if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
            raise InputError("a tensor's numbers are not in the file")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = entry.header_offset + LOCAL_HEADER + names
        return start, min(start + entry.file_size, file.seek(0, 2))
