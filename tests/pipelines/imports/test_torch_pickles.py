"""Tensors in joblib dumps: their numbers are those of torch, they stay in the file, and nothing of torch is called."""

import io
import pickle
import pickletools
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from glot.errors import InputError
from pipelines.imports.joblib_file import LazyArray, load_dump
from pipelines.imports.long_bytes import load_sparing
from pipelines.imports.torch_pickles import tensor_classes

TYPES = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool)


def read(path: Path) -> Any:
    return load_dump(path, classes=tensor_classes(path), load=load_sparing)


def numbers(value: Any) -> Any:
    return value.rows(0, len(value)) if isinstance(value, LazyArray) else value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_long_tensors_stay_in_the_file_and_short_ones_do_not(tmp_path: Path, protocol: int) -> None:
    content = defaultdict(list, {str(kind): torch.randn(200, 400).mul(9).to(kind) for kind in TYPES})
    content["short"], content["none"] = torch.randn(3, 2), torch.empty(0, 4)
    content["rows"], content["list"] = content["torch.float32"][20:170], [torch.arange(9_000), "text", 3]
    content["array"] = np.arange(20_000).reshape(2, -1)
    joblib.dump(content, tmp_path / "a.pth", protocol=protocol)
    found = read(tmp_path / "a.pth")
    assert type(found) is dict and found.keys() == content.keys()
    lazy = {name for name, value in found.items() if isinstance(value, LazyArray)}
    # Protocol 2 has no bytes. It writes them as text.
    assert lazy == ({"array"} if protocol == 2 else {*map(str, TYPES), "rows", "array"})
    for name, value in content.items():
        if name != "list":
            array = value if isinstance(value, np.ndarray) else value.numpy()
            assert numbers(found[name]).tobytes() == array.tobytes(), name
            assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
    assert np.array_equal(numbers(found["list"][0]), np.arange(9_000)) and found["list"][1:] == ["text", 3]


def test_a_dump_names_what_is_replaced(tmp_path: Path) -> None:
    joblib.dump(defaultdict(list, {"a": torch.ones(3)}), tmp_path / "a.pth")
    texts = [value for _, value, _ in pickletools.genops((tmp_path / "a.pth").read_bytes()) if isinstance(value, str)]
    for module, name in tensor_classes(tmp_path / "a.pth"):
        assert name in texts and (module in texts or module == "__builtin__"), (module, name)


class Calls:
    """Pickles as a call of ``function``, and then perhaps as an object with a state."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def storage_bytes(storage: Any = None, **options: Any) -> bytes:
    file = io.BytesIO()
    storage = torch.arange(4.0)._typed_storage() if storage is None else storage
    torch.save(storage, file, _use_new_zipfile_serialization=False, **options)
    return file.getvalue()


def rebuilt(content: Any, *arguments: Any, state: Any = None) -> Calls:
    from torch._utils import _rebuild_tensor_v2
    from torch.storage import _load_from_bytes

    storage = Calls(_load_from_bytes, content) if isinstance(content, bytes) else content
    return Calls(_rebuild_tensor_v2, storage, *(arguments or (0, (4,), (1,))), False, OrderedDict(), state=state)


@pytest.mark.parametrize(
    "value",
    [
        rebuilt(storage_bytes(), 1, (4,), (1,)),  # past the end
        rebuilt(storage_bytes(), -1, (4,), (1,)),
        rebuilt(storage_bytes(), 0, (1 << 70,), (1,)),
        rebuilt(storage_bytes(), 0, (1 << 40, 4), (0, 1)),
        rebuilt(storage_bytes(), 0, (4,), ("a",)),
        rebuilt(storage_bytes(), 0, (2, 2), (1, 2)),
        rebuilt(storage_bytes()[:-9]),
        rebuilt(storage_bytes()[:40]),
        rebuilt(b"\x80\x04."),
        rebuilt(pickle.dumps(1) * 5),
        rebuilt("storage"),
        rebuilt(storage_bytes(Calls(print, "x"))),
        rebuilt(storage_bytes(), state={"storage": 3}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, value: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good").write_bytes(pickle.dumps({"a": rebuilt(storage_bytes())}))
    assert read(tmp_path / "good")["a"].tolist() == [0, 1, 2, 3]
    (tmp_path / "bad").write_bytes(pickle.dumps({"a": value}))
    with pytest.raises(InputError, match="not a readable pickle") as caught:
        read(tmp_path / "bad")
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""


def test_a_state_cannot_make_a_long_tensor_read_elsewhere(tmp_path: Path) -> None:
    from torch.storage import _load_from_bytes

    content = storage_bytes(torch.arange(90_000.0)._typed_storage())
    storage = Calls(_load_from_bytes, content, state={"offset": 0, "content": None, "lazy": True})
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": rebuilt(storage, 0, (90_000,), (1,))}))
    with pytest.raises(InputError, match="a state for an object that has none"):
        read(tmp_path / "a.pth")


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    joblib.dump(defaultdict(list, {"a": torch.randn(90, 100), "b": [torch.ones(2)]}), tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for size in [*range(0, 900, 7), *range(900, len(whole), 997), len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(InputError, match="incomplete|not a readable pickle"):
            read(tmp_path / "cut")
