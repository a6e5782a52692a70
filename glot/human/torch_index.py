"""The pickle in a file of torch in, plain Python values out; tensors as places in the file, all else as blanks."""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch

from glot.errors import InputError

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
DEEPEST = 1000  # tuples in tuples; where one is a key, Python's reader crashes at some 10,000
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")  # opcodes that nest values


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

    @property
    def end(self) -> int:
        """The number after its last one, in its storage."""
        return self.offset + prod(self.shape)


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the numbers of a tensor follow each other without gaps, the last axis fastest."""
    dense = (prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return all(size <= 1 or step == wanted for size, step, wanted in zip(shape, stride, dense, strict=True))


def read_index(index: bytes) -> Any:
    """The content: containers, numbers and text, ``Stored`` for tensors, and a ``Blank`` for anything else.

    Raises InputError for a pickle made to exhaust the machine; any exception for one that is damaged.
    """
    _check_index(index)
    return _Unpickler(io.BytesIO(index)).load()


def shown(text: str) -> str:
    """Text of a file as a message can show it: on one line, not too long, without control characters."""
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return text if text.isprintable() else ascii(text)


def _check_index(index: bytes) -> None:
    """InputError for a pickle that would make Python's reader run out of stack or memory.

    This follows the stack of the reader. A value stands there as how deep tuples are nested in it, a mark as -1.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(index):
        before, taken = opcode.stack_before, [0]
        if pickletools.markobject in before:
            before = before[: before.index(pickletools.markobject)]
            while stack and (depth := stack.pop()) >= 0:
                taken.append(depth)
        taken += [stack.pop() for _ in before if stack]
        depth = max(taken) + (opcode.name in TUPLES)
        if opcode.name.endswith("GET"):
            depth = memo.get(int(argument), 0)
        stack += [-1 if opcode.name == "MARK" else depth] * len(opcode.stack_after)
        if opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
            place = len(memo) if argument is None else int(argument)
            memo[place] = stack[-1] if stack else 0
            if place > len(index):
                raise InputError("its data.pkl counts more objects than it has bytes")
        if depth > DEEPEST:
            raise InputError(f"its data.pkl nests tuples more than {DEEPEST} deep")


class Blank:
    """Takes the place of any object that is no plain value. Whatever is done to it, it keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Blank":
        return object.__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> "Blank":
        """For objects that make others."""
        return Blank()

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


class _Tensor:
    """torch's function that rebuilds a tensor. A pickle can set attributes of a function, but not of this."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored | Blank:
        return Stored(storage, offset, tuple(shape), tuple(stride)) if isinstance(storage, Storage) else Blank()


class _Parameter:
    """torch's function that makes a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


class _Attribute:
    """Python's getattr, which names a class in a class in old protocols."""

    __slots__ = ()

    def __call__(self, *_: Any) -> type[Blank]:
        return Blank


_PLAIN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter(),
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "dict"): dict for module in ("builtins", "__builtin__")},
    **{(module, "getattr"): _Attribute() for module in ("builtins", "__builtin__")},
}


class _Unpickler(pickle.Unpickler):
    """Finds tensors and containers; everything else is blank."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        return _PLAIN.get((module, name), Blank)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            return Blank()
        return Storage(key, dtype, size)
