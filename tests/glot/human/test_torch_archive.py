"""Tensors come back as they were saved; other objects are never made; damaged and hostile files are one-line errors."""

import builtins
import collections
import datetime
import enum
import functools
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glot.errors import InputError
from glot.human import torch_archive
from glot.human.torch_archive import read_tensors
from glot.human.torch_index import Blank


def top(content: Any) -> dict[str, Any]:
    """Every entry of the file's dictionary."""
    return dict(content)


def read(path: Path, wanted: Callable[[Any], Any] = top) -> dict[str, Tensor]:
    return read_tensors(path, "--weights", wanted)


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == values.dtype and torch.equal(found[name], values.detach())
        for name, values in wanted.items()
    )


def tensors() -> dict[str, Tensor]:
    """One of every type; views with offsets of shared numbers; empty ones; a parameter."""
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    named = {str(kind): torch.arange(-3, 9).to(kind).view(3, 4) for kind in (*types, torch.int8)}
    named |= {"bytes": torch.arange(200, 206, dtype=torch.uint8), "bools": torch.tensor([[True, False, True]])}
    shared = torch.linspace(-1, 1, 60)
    named |= {"all": shared.view(3, 4, 5), "rows": shared.view(12, 5)[2:4], "one": shared[7], "last": shared[50:]}
    named |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0), "no rows": torch.zeros(0, 7), "axis": shared[9:10]}
    return named | {"parameter": torch.nn.Parameter(torch.arange(4.0)), "a line\nand \x1b more": torch.ones(2)}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_tensors_come_back_as_they_were(tmp_path: Path, protocol: int) -> None:
    path = saved(tmp_path / "a.ckpt", tensors(), pickle_protocol=protocol)
    found = read(path)
    assert same(found, tensors())
    assert all(not values.requires_grad and values.device.type == "cpu" for values in found.values())
    assert found["all"].data_ptr() + 4 * 7 == found["one"].data_ptr(), "shared numbers stay shared"
    assert found["rows"].is_contiguous() and found["no rows"].shape == (0, 7)


def test_nested_containers_and_the_names_in_them(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    content = {"epoch": 7, "state_dict": OrderedDict(network.state_dict()), "list": [{"x": (torch.ones(2), None, "t")}]}
    path = saved(tmp_path / "n.ckpt", content)
    seen: list[Any] = []

    def wanted(content: Any) -> dict[str, Any]:
        seen.append(content)
        return {**content["state_dict"], "x": content["list"][0]["x"][0]}

    assert same(read(path, wanted), {**network.state_dict(), "x": torch.ones(2)})
    assert seen[0]["epoch"] == 7 and list(seen[0]["state_dict"]) == list(network.state_dict())
    assert seen[0]["list"][0]["x"][1:] == (None, "t")


class Colour(enum.Enum):
    RED = 1


class Settings(dict):  # type: ignore[type-arg]
    class Inner:
        def __init__(self) -> None:
            self.value = 3

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("code of the file's classes ran")

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("code of the file's classes ran")


class KeywordsOnly:
    def __new__(cls, *, size: int) -> "KeywordsOnly":
        return object.__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"size": 3}


class Bag(list):  # type: ignore[type-arg]
    pass


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_of_any_class_may_stand_beside_the_tensors(tmp_path: Path, protocol: int) -> None:
    others = [
        Settings(), Settings.Inner(), KeywordsOnly(size=3), Bag([1, 2]), Pair(1, 2), Colour.RED, Path("x"),
        datetime.datetime(2024, 1, 2), datetime.timezone.utc, collections.defaultdict(list, a=[1]),
        collections.deque([1, 2]), collections.Counter("aab"), functools.partial(print, 1, sep=""), os.getcwd, print,
        Settings, np.arange(3), np.float64(2), np.random.default_rng(0), random.Random(0), {1, "a"},
        frozenset({(1, 2)}), b"bytes", bytearray(b"b"), 1j, slice(1, 2), range(3), ..., "text".join,
        torch.device("cpu"), torch.float16, torch.Size([2]), torch.nn.Conv2d(1, 2, 3), torch.ones(2).to_sparse(),
        torch.ones(3, dtype=torch.complex64), torch.zeros(2, 2).untyped_storage(),
    ]  # fmt: skip
    path = saved(tmp_path / "o.ckpt", {"a": torch.ones(3), "others": others}, pickle_protocol=protocol)
    content: list[Any] = []
    found = read(path, lambda data: content.append(data) or {"a": data["a"]})  # type: ignore[func-returns-value]
    assert same(found, {"a": torch.ones(3)}) and len(content[0]["others"]) == len(others)
    assert all(type(value) is Blank for value in content[0]["others"][:6])
    assert not vars(content[0]["others"][1])


def test_only_the_numbers_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", {"a": torch.arange(5.0), "b": torch.full((3000,), 7.0)})
    content = path.read_bytes()
    place = content.index(torch.full((3000,), 7.0).numpy().tobytes())
    path.write_bytes(content[:place] + bytes(12000) + content[place + 12000 :])  # what the checksum does not fit
    assert same(read(path, lambda data: {"a": data["a"]}), {"a": torch.arange(5.0)})
    with pytest.raises(InputError, match="damaged or cut short"):
        read(path)


def test_large_tensors_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_archive, "PIECE", 64)
    values = torch.arange(1000.0)
    path = saved(tmp_path / "p.ckpt", {"all": values, "part": values[333:700].clone(), "odd": torch.arange(16.0)})
    assert same(read(path), {"all": values, "part": values[333:700], "odd": torch.arange(16.0)})
    part = saved(tmp_path / "part.ckpt", {"part": values[333:700], "later": values[900:901]})
    assert same(read(part), {"part": values[333:700], "later": values[900:901]})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (torch.ones(3, 4).t(), "the 'odd' one is not stored as plain numbers"),
        (torch.ones(1).expand(5), "not stored as plain numbers"),
        (torch.arange(9.0)[::2], "not stored as plain numbers"),
        (torch.ones(2, dtype=torch.complex64), "is no tensor"),
        (torch.ones(2).to_sparse(), "is no tensor"),
        (np.ones(2), "is no tensor"),
        (3, "is no tensor"),
        ("text", "is no tensor"),
    ],
)
def test_what_is_asked_for_and_is_no_plain_tensor_is_refused_by_name(tmp_path: Path, values: Any, reason: str) -> None:
    path = saved(tmp_path / "w.ckpt", {"fine": torch.ones(2), "the 'odd' one": values})
    refused(path, f"--weights .*w.ckpt: .*{reason}")
    assert "the 'odd' one" in refused(path)


def refused(path: Path, reason: str = "^--weights") -> str:
    """The message of the error, which is one line that names the option and the file."""
    with pytest.raises(InputError, match=reason) as error:
        read(path)
    message = str(error.value)
    assert (
        message.startswith(f"--weights {path}: ") and message.isprintable() and len(message) < 300 + 2 * len(str(path))
    )
    return message


class Stored:
    """A tensor in a pickle as torch writes it, with any numbers."""

    def __init__(self, offset: Any = 0, shape: Any = (4,), stride: Any = (1,), **storage: Any) -> None:
        self.arguments = (_Storage(**storage), offset, shape, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class _Storage:
    def __init__(self, size: Any = 4, key: Any = "0", kind: Any = torch.FloatStorage, pid: Any = None) -> None:
        self.pid = ("storage", kind, key, "cpu", size) if pid is None else pid


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, _Storage) else None


def index(content: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, 2).dump(content)
    return file.getvalue()


def archive(path: Path, pickled: bytes, *, method: int = zipfile.ZIP_STORED, order: bytes = b"little") -> Path:
    """A file as torch writes it, with four float32 numbers."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled, method)
        file.writestr("archive/byteorder", order, method)
        file.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
        file.writestr("archive/version", b"3\n")
    return path


def test_the_hand_made_file_is_one_that_torch_reads(tmp_path: Path) -> None:
    path = archive(tmp_path / "h.pt", index({"a": Stored()}))
    assert torch.equal(torch.load(path)["a"], torch.arange(4.0))
    assert same(read(path), {"a": torch.arange(4.0)})
    part = archive(tmp_path / "p.pt", index({"a": Stored(1, (1, 2), (2, 1)), "b": Stored(2, (2,), (1,))}))
    assert same(read(part), {"a": torch.tensor([[1.0, 2]]), "b": torch.tensor([2.0, 3])})


HUGE = 1 << 62
LIES = {
    "beyond the end": Stored(1), "negative offset": Stored(-1), "negative size": Stored(0, (-1,)),
    "negative storage": Stored(size=-4), "two negative sizes": Stored(0, (-2, -2), (2, 1)),
    "larger than the file": Stored(size=1 << 20, shape=(1 << 20,)), "huge": Stored(size=HUGE, shape=(HUGE,)),
    "product too large": Stored(0, (HUGE, HUGE, 4), (4 * HUGE, 4, 1)), "stride of 0": Stored(0, (4, 4), (0, 1)),
    "huge and empty": Stored(0, (0, 1 << 70), (1, 1)), "beyond 64 bits": Stored(1 << 64),
    "long number": Stored(1 << 100_000), "negative stride": Stored(3, (4,), (-1,)),
    "huge stride": Stored(0, (2,), (HUGE,)), "fewer strides": Stored(0, (2, 2), (1,)),
    "many axes": Stored(0, (1,) * 20_000, (1,) * 20_000), "text as offset": Stored("0"),
    "text as sizes": Stored(0, "4", (1,)), "no sizes": Stored(0, None, None), "float as size": Stored(0, (4.0,), (1,)),
    "bool as size": Stored(0, (True,), (1,)), "not in the file": Stored(key="7"),
    "path as key": Stored(key="../data.pkl"), "number as key": Stored(key=0),
    "object as key": Stored(key=KeywordsOnly(size=3)), "class as type": Stored(kind=KeywordsOnly),
    "type too wide": Stored(kind=torch.DoubleStorage), "other pid": Stored(pid=("module", 1, 2, 3, 4)),
    "short pid": Stored(pid=("storage",)), "pid": Stored(pid=5), "pid is text": Stored(pid="12345"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_tensors_that_are_not_where_the_file_says_are_refused(tmp_path: Path, name: str) -> None:
    refused(archive(tmp_path / "lie.pt", index({"fine": Stored(), "wrong": LIES[name]})))


def test_two_types_for_the_same_numbers_are_refused(tmp_path: Path) -> None:
    both = {"a": Stored(), "b": Stored(kind=torch.IntStorage)}
    refused(archive(tmp_path / "both.pt", index(both)), "several types")


def calls(proof: Path) -> dict[str, Any]:
    """Reductions that would leave a file behind if one of them were called."""
    shell, python = f"touch {proof}", f"open({str(proof)!r}, 'w')"
    return {
        "system": (os.system, (shell,)),
        "eval": (eval, (python,)),
        "exec": (exec, (python,)),
        "open": (open, (str(proof), "w")),
        "mkdir": (os.mkdir, (str(proof),)),
        "Popen": (subprocess.Popen, (["touch", str(proof)],)),
        "touch": (Path.touch, (proof,)),
        "partial": (functools.partial(os.mkdir, str(proof)), ()),
        "map": (list, (map(os.mkdir, [str(proof)]),)),
    }


class Hostile:
    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize("name", calls(Path()))
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_that_a_file_asks_for_is_called(tmp_path: Path, name: str, protocol: int) -> None:
    proof = tmp_path / "proof"
    hostile = Hostile(calls(proof)[name])
    content = {"a": torch.ones(2), "b": hostile, "c": [hostile, {hostile: 1}]}
    path = saved(tmp_path / "h.pt", content, pickle_protocol=protocol)
    assert same(read(path, lambda data: {"a": data["a"]}), {"a": torch.ones(2)})
    refused(path, "b is no tensor")
    assert not proof.exists() and list(tmp_path.iterdir()) == [path]


def test_old_opcodes_call_nothing_and_classes_of_ours_cannot_be_changed(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    text = f"S'touch {proof}'\n".encode()
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    codes = {
        "inst": b"(" + text + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "global": b"cbuiltins\nexec\n(S'1'\ntR.",
        "stack": b"\x8c\x05posix\x8c\x06system\x93(" + text + b"tR.",
        "dotted": b"\x8c\x10torch.nn.modules\x8c\x0fmodule.Path.cwd\x93)R.",
        "extension": b"\x82\x01.",
        "state of a function": rebuild + b"}S'x'\nI1\nsb.",
        "attribute of a function": rebuild + b"N}S'__defaults__'\n(I1\ntstb.",
        "class of a function": rebuild + b"N}S'__class__'\ncos\nsystem\nstb.",
        "attribute of a class": b"cos\nsystem\nN}S'__call__'\ncbuiltins\ndict\nstb.",
        "class of a dict": b"ccollections\nOrderedDict\n)RN}S'__class__'\ncos\nsystem\nstb.",
        "new": b"cos\nsystem\n)\x81.",
        "a list in itself": b"(lp0\ng0\na.",
        "persistent text": b"Pos.system\n.",
        "nothing": b"", "no pickle": b"hello", "two ends": b"..", "mark": b"(.", "no end": b"}", "underflow": b"\x86.",
    }  # fmt: skip
    for name, code in codes.items():
        refused(archive(tmp_path / f"{name}.pt", code))
    assert not proof.exists()
    method = b"ccollections\nOrderedDict\n)R}S'items'\ncos\nsystem\nsb."
    assert not read(archive(tmp_path / "o.pt", method), lambda data: data.items() and {})
    before = index({"a": Stored()})
    assert same(read(archive(tmp_path / "o.pt", before)), {"a": torch.arange(4.0)}), "nothing was changed for later"


BOMBS = {
    "tuples as a key": (b"}" + b")" + b"\x85" * 50_000 + b"Ns.", "nests tuples more than 1000 deep"),
    "tuples in lists": (b"})" + b"]\x85a" * 50_000 + b"Ns.", "^--weights"),
    "tuples of two": (b"})" + b"N\x86" * 50_000 + b"Ns.", "nests tuples"),
    "tuples with marks": (b"})" + b"(h\x00\x94t" * 2 + b"(" * 50_000 + b"t" * 50_000 + b"Ns.", "nests tuples"),
    "tuples from the memo": (b"})q\x00" + b"0h\x00\x85q\x00" * 30_000 + b"Ns.", "nests tuples"),
    "frozen sets": (b"}(" + b"(" * 50_000 + b"\x91" * 50_000 + b"Ns.", "nests tuples"),
    "a memo of gigabytes": (b"}r\xff\xff\xff\xff.", "counts more objects"),
    "a memo of gigabytes as text": (b"}p99999999999999999999\n.", "counts more objects"),
    "lists": (b"]" * 50_000 + b"a" * 49_999 + b".", "^--weights"),
    "bytes that are not there": (b"\x8e" + b"\xff" * 7 + b"\x00.", "^--weights"),
    "text that is not there": (b"\x8d" + b"\xff" * 7 + b"\x00.", "^--weights"),
    "a frame that is not there": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x00}.", "^--weights"),
    "a number of a million digits": (b"I" + b"9" * 1_000_000 + b"\n.", "^--weights"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_exhaust_stack_or_memory_are_refused(tmp_path: Path, name: str) -> None:
    code, reason = BOMBS[name]
    refused(archive(tmp_path / "bomb.pt", code), reason)


def test_compressed_entries_are_refused_before_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = index({"text": "a" * 3_000_000, "a": Stored()})
    refused(archive(tmp_path / "z.pt", grown, method=zipfile.ZIP_DEFLATED), "is compressed, or larger than")
    order = archive(tmp_path / "o.pt", index({}), method=zipfile.ZIP_LZMA, order=b"little" * 100)
    refused(order, "byteorder is compressed, or larger than 16 bytes")
    refused(archive(tmp_path / "l.pt", index({}), order=b"little" * 100), "byteorder is compressed, or larger")
    refused(archive(tmp_path / "b.pt", index({}), order=b"big"), "another byte order")
    monkeypatch.setattr(torch_archive, "LARGEST_INDEX", 2_000_000)
    refused(archive(tmp_path / "m.pt", grown), "larger than 2000000 bytes")
    path = tmp_path / "numbers.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", index({"a": Stored()}), zipfile.ZIP_STORED)
        file.writestr("a/data/0", bytes(16))
    refused(path, "a is cut short or compressed")


def test_names_of_tensors_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    message = refused(saved(tmp_path / "n.pt", {"\x1b[2J\nok: all fine": 1}))
    assert "x1b" in message
    assert "..." in refused(saved(tmp_path / "n.pt", {"a" * 10_000: 1}))


def test_a_file_that_is_cut_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pt", {"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.float16)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        refused(path, "is no whole file of torch")
        path.write_bytes(whole[length + 1 :])
        refused(path)


def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    wanted = {"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.float16)}
    path, right = tmp_path / "f.pt", 0
    whole = saved(path, wanted).read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 2):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            assert same(read(path), wanted), place
            right += 1
        except InputError as error:
            assert str(error).startswith(f"--weights {path}: ") and str(error).isprintable(), place
    assert 0 < right < len(whole) / 2, "dates and padding do not matter, all else does"


def test_other_files_say_what_they_are(tmp_path: Path) -> None:
    refused(tmp_path / "missing.ckpt", "there is no such file")
    refused(tmp_path, "there is no such file")
    refused(tmp_path / ("x" * 256), "File name too long|there is no such file")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    refused(tmp_path / "empty.ckpt", r"\(no zip archive\); fetch it again")
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    refused(tmp_path / "page.ckpt", r"\(no zip archive\); fetch it again")
    legacy = saved(tmp_path / "legacy.ckpt", tensors(), _use_new_zipfile_serialization=False)
    refused(legacy, "torch 1.5 or older; load it with torch and save it again")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    refused(tmp_path / "arrays.npz", "holds no data.pkl, so it is no file of torch.save")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        file.writestr("a/data.pkl", index({}))
        file.writestr("b/data.pkl", index({}))
    refused(tmp_path / "two.zip", "holds no data.pkl")
    with pytest.raises(InputError, match="--model .*list.ckpt: holds a list"):
        read_tensors(saved(tmp_path / "list.ckpt", [1]), "--model", not_a_list)


def not_a_list(content: Any) -> dict[str, Any]:
    raise InputError(f"holds a {type(content).__name__}")


def test_reading_changes_nothing_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No module is imported for what a file names."""
    asked: list[str] = []
    importing = builtins.__import__

    def spy(name: str, *arguments: Any) -> Any:
        asked.append(name)
        return importing(name, *arguments)

    path = archive(tmp_path / "i.pt", b"}(S'a'\ncthis_is.not_a_module\nThing\n)Ru.")
    monkeypatch.setattr(builtins, "__import__", spy)
    content: list[Any] = []
    read(path, lambda data: content.append(data) or {})  # type: ignore[func-returns-value]
    assert type(content[0]["a"]) is Blank and "this_is" not in " ".join(asked)
