"""A pickle file in, its plain data out: containers, strings, numbers, arrays, sparse matrices. Nothing is executed.

Reads files of Python 2, too (SMPL and 3DPW). Python's pickle imports and calls anything that a file names. This module
never instantiates a class that the file names. It rebuilds arrays from their bytes, takes the array out of a chumpy
object, and refuses every other class with a message that names the class.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from glot.errors import InputError, raise_if_passing


def load_pickle(path: Path | str, *, encoding: str = "latin1") -> Any:
    """The content of a pickle file as plain Python and numpy values; sparse matrices come back dense.

    Raises InputError if the file is missing, truncated, no pickle, or asks for a class that plain data does not need.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with path.open("rb") as file:
        return load_stream(file, source=path, encoding=encoding)


def load_stream(
    file: BinaryIO,
    *,
    source: Path,
    encoding: str = "latin1",
    classes: Mapping[tuple[str, str], Any] | None = None,
    unpickler: Callable[..., Any] | None = None,
) -> Any:
    """Reads one pickle from the current position of ``file``, as ``load_pickle`` does.

    ``source`` is the file's name in messages. ``classes`` are further stand-ins, by (module, name). From an unbuffered
    file, no byte after the pickle is read. No byte after an object's state is read before the object's ``__setstate__``
    has returned, so that ``__setstate__`` may read from the file itself. ``unpickler`` replaces Python's own; it must
    find its classes as ``PlainClasses`` does.
    """
    make = unpickler or _Unpickler
    try:
        return _resolve(make(file, encoding=encoding, source=source, classes=classes or {}).load(), {})
    except InputError:
        raise
    except Exception as error:  # a hostile or cut file can raise anything anywhere in the decoder
        raise_if_passing(error, source)
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{source}: not a readable pickle file ({reason}); fetch it again") from None


class PlainClasses:
    """Finds stand-ins for the classes that plain data needs, and refuses all others. An unpickler inherits from it."""

    source: Path
    classes: Mapping[tuple[str, str], Any]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.classes:
            return self.classes[module, name]
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.split(".")[0] == "chumpy":
            return _Chumpy
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csr_matrix", "csc_array", "csr_array"):
            return _ColumnSparse if name.startswith("csc") else _RowSparse
        raise InputError(f"{self.source}: refused, it asks for {module}.{name}, which plain data does not need")


class _Unpickler(PlainClasses, pickle.Unpickler):
    def __init__(self, file: Any, *, encoding: str, source: Path, classes: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file, encoding=encoding)
        self.source, self.classes = source, classes


class StandIn:
    """Takes the place of an instance of a class that the file names: keeps its state and runs none of its code."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self.state = {key: value for part in parts if part for key, value in part.items()}

    def value(self, resolve: Any) -> Any:
        """The plain data of the object. ``resolve`` turns a part of its state into plain data."""
        raise NotImplementedError


class _Chumpy(StandIn):
    """An array of chumpy, the library that SMPL's files were written with."""

    def value(self, resolve: Any) -> Any:
        state = getattr(self, "state", {})
        if "x" in state:
            return resolve(state["x"])
        if "a" in state and "idxs" in state:  # a selection from another chumpy array
            picked = np.asarray(resolve(state["a"])).ravel()[np.asarray(resolve(state["idxs"]), np.int64)]
            return picked.reshape(resolve(state.get("preferred_shape", picked.shape)))
        raise ValueError(f"a chumpy object holds no array, only {sorted(state)}")


class _ColumnSparse(StandIn):
    """A sparse matrix of scipy, which becomes a dense array."""

    rows = False

    def value(self, resolve: Any) -> Any:
        state = {key: resolve(value) for key, value in self.state.items()}
        height, width = state["_shape"] if "_shape" in state else state["shape"]
        data, indices, indptr = state["data"], state["indices"], state["indptr"]
        outer = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        dense = np.zeros((height, width), data.dtype)
        np.add.at(dense, (outer, indices) if self.rows else (indices, outer), data)
        return dense


class _RowSparse(_ColumnSparse):
    rows = True


class _Dtype:
    """numpy.dtype: a type code, then a state that carries the byte order. Only flat numbers, text and object lists."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[2] is not None or state[3] is not None:
            raise ValueError("structured arrays are not supported")
        self.order = state[1]

    def dtype(self) -> np.dtype:
        dtype = np.dtype(self.code)
        if dtype.kind not in "biufcSUO":
            raise ValueError(f"arrays of {self.code} are not supported")
        return dtype if self.order == "|" else dtype.newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """numpy.ndarray: made empty by ``_reconstruct``, filled by a state of (version, shape, dtype, fortran, raw)."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def value(self, resolve: Any) -> np.ndarray:
        _, shape, kind, fortran, raw = self.state
        if isinstance(raw, list):
            flat = np.empty(len(raw), object)
            flat[:] = [resolve(item) for item in raw]
        else:
            flat = _from_bytes(raw, kind)
        return flat.reshape(shape, order="F" if fortran else "C")


class _Scalar:
    """A numpy number."""

    def __init__(self, kind: _Dtype, raw: Any) -> None:
        self.kind, self.raw = kind, raw

    def value(self, resolve: Any) -> Any:
        return _from_bytes(self.raw, self.kind)[0]


class _FromBuffer(_Array):
    """Protocol 5: (buffer, dtype, shape, order) in one call."""

    def __init__(self, raw: Any, kind: _Dtype, shape: Any, order: str) -> None:
        self.state = (1, shape, kind, order == "F", raw)


def _from_bytes(raw: Any, kind: _Dtype) -> np.ndarray:
    dtype = kind.dtype()
    if dtype.hasobject:
        raise ValueError("an array of objects cannot be read from bytes")
    if isinstance(raw, str):  # what Python 2 called a string
        raw = raw.encode("latin1")
    return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))  # a writable copy in this machine's byte order


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


def _reconstructor(kind: type, *_: Any) -> Any:
    if not issubclass(kind, StandIn):
        raise ValueError(f"{kind.__name__} cannot be rebuilt")
    return kind()


_NUMPY = ("numpy.core", "numpy._core")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"{module}.multiarray", "_reconstruct"): _Array for module in _NUMPY},
    **{(f"{module}.multiarray", "scalar"): _Scalar for module in _NUMPY},
    **{(f"{module}.numeric", "_frombuffer"): _FromBuffer for module in _NUMPY},
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "bytes"): lambda: b"",  # how old protocols write empty bytes
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
}


def _resolve(node: Any, done: dict[int, Any]) -> Any:
    """Replaces stand-ins by their data. ``done``: id of a node -> its data. Shared objects stay shared.

    ValueError for data that contains itself.
    """

    def resolve(inner: Any) -> Any:
        return _resolve(inner, done)

    if isinstance(node, (str, bytes, int, float, type(None))):
        return node
    if id(node) in done:
        if done[id(node)] is _UNFINISHED:
            raise ValueError("the data contains itself")
        return done[id(node)]
    done[id(node)] = _UNFINISHED
    result: Any = node
    if isinstance(node, dict):
        result = type(node)((key, resolve(value)) for key, value in node.items())
    elif isinstance(node, (list, tuple)):
        result = type(node)(resolve(item) for item in node)
    elif isinstance(node, (StandIn, _Array, _Scalar)):
        result = node.value(resolve)
    elif isinstance(node, _Dtype):
        result = node.dtype()
    done[id(node)] = result
    return result


_UNFINISHED = object()  # the data of a node whose parts are still being replaced
