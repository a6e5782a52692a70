"""A file of torch.save in, its content out; its tensors stay in the file until their rows are read.

glot.human.torch_archive reads whole tensors; here a file may be larger than memory.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.human.torch_archive import torch_file
from glot.human.torch_index import Stored
from pipelines.imports.joblib_file import LazyArray
from pipelines.imports.torch_pickles import last_number, numpy_dtype

LOCAL_HEADER = 30  # bytes of an entry's own header in a zip archive, before its name

# The LazyArray of a tensor of the content. InputError where its numbers are not all there, one after the other.
Place = Callable[[Stored], LazyArray]


def open_torch(path: Path) -> tuple[Any, Place]:
    """The content of a file: plain values, with ``Stored`` for tensors and blanks for objects; and their places.

    InputError for a file that is missing, cut short, foreign or hostile.
    """
    with torch_file(path, str(path)) as file:
        entries = {info.filename.removeprefix(f"{file.root}data/"): info for info in file.archive.infolist()}
        return file.content, _finder(path, entries)


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
