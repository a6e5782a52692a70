"""Pickles of Python 2 and 3 are read; hostile, foreign and cut ones are refused, and nothing in them is executed."""

import io
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from glot.errors import InputError
from glot.human.safe_pickle import load_pickle

ARRAYS = {
    "floats": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "big endian": np.arange(5, dtype=">i4"),
    "bools": np.array([True, False]),
    "empty": np.zeros((0, 72)),
    "zero-dimensional": np.array(3.5),
    "text": np.array(["one", "three"]),
    "objects": np.array([{"a": np.arange(3)}, None], dtype=object),
}


def written(path: Path, data: object, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_as_they_were(tmp_path: Path, protocol: int) -> None:
    others = {"scalar": np.float32(1.5), "list": [np.arange(2)], "n": 2**70}
    back = load_pickle(written(tmp_path / "a.pkl", ARRAYS | others, protocol))
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype.newbyteorder("=") and back[name].shape == array.shape, name
        if name != "objects":
            np.testing.assert_array_equal(back[name], array)
    np.testing.assert_array_equal(back["objects"][0]["a"], np.arange(3))
    assert back["scalar"] == 1.5 and back["n"] == 2**70 and back["list"][0].tolist() == [0, 1]
    back["floats"][0, 0] = 7  # a copy of our own, not a view of the file's bytes


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.csr_matrix, sparse.csc_array])
def test_sparse_matrices_come_back_dense(tmp_path: Path, kind: type) -> None:
    dense = np.random.default_rng(0).random((24, 50)) * (np.random.default_rng(1).random((24, 50)) > 0.8)
    back = load_pickle(written(tmp_path / "s.pkl", {"J_regressor": kind(dense)}, 2))
    np.testing.assert_array_equal(back["J_regressor"], dense)


def test_ordered_dict_and_shared_values(tmp_path: Path) -> None:
    shared = np.arange(3)
    back = load_pickle(written(tmp_path / "o.pkl", OrderedDict(b=shared, a=shared), 2))
    assert list(back) == ["b", "a"] and back["a"] is back["b"]


def python2_pickle() -> bytes:
    """{'poses': array([1.0, 2.0])} as Python 2's protocol 0 writes it: text, numpy's old module, str for bytes."""
    return (
        b"(dp0\nS'poses'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\n"
        b"tp14\nbI00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@'\np15\ntp16\nbs."
    )


def test_python_2_pickle(tmp_path: Path) -> None:
    path = tmp_path / "sequence.pkl"
    path.write_bytes(python2_pickle())
    assert load_pickle(path)["poses"].tolist() == [1.0, 2.0]


def chumpy_like(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Classes that pickle as chumpy's do: an array in ``x``; a selection with ``a``, ``idxs``, ``preferred_shape``."""
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    ch, select = type("Ch", (), {"__module__": "chumpy.ch"}), type("Select", (), {"__module__": "chumpy.reordering"})
    monkeypatch.setattr(sys.modules["chumpy.ch"], "Ch", ch, raising=False)
    monkeypatch.setattr(sys.modules["chumpy.reordering"], "Select", select, raising=False)
    return ch, select


@pytest.mark.parametrize("protocol", [0, 2])
def test_chumpy_objects_give_their_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    ch, select = chumpy_like(monkeypatch)
    array, selection, nothing = ch(), select(), ch()
    array.x, array.dirty = np.arange(6.0).reshape(2, 3), set()
    selection.a, selection.idxs, selection.preferred_shape = array, np.array([5, 0]), (1, 2)
    del array.dirty
    back = load_pickle(written(tmp_path / "c.pkl", {"v": array, "s": selection}, protocol))
    np.testing.assert_array_equal(back["v"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(back["s"], [[5.0, 0.0]])
    nothing.y = 1
    with pytest.raises(InputError, match="holds no array"):
        load_pickle(written(tmp_path / "n.pkl", nothing, protocol))


class Hostile:
    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "name"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (os.mkdir, "mkdir"), (io.open, "open")],
)
def test_hostile_pickles_are_refused_by_name_and_not_run(tmp_path: Path, call: object, name: str) -> None:
    proof = tmp_path / "proof"
    argument = {"eval": f"open({str(proof)!r}, 'w')", "open": str(proof)}.get(name, f"touch {proof}")
    arguments = (str(proof), "w") if name == "open" else (argument,)
    path = written(tmp_path / "h.pkl", {"poses": [Hostile(call, *arguments)]}, 2)
    with pytest.raises(InputError, match=f"h.pkl: refused, it asks for .*{name}"):
        load_pickle(path)
    assert not proof.exists() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'AAAAAAAA'\ntR.",  # a pointer as bytes
        b"cnumpy\nndarray\n(I1\n(I9999999999\ntcnumpy\ndtype\n(S'f8'\ntRI00\nS'short'\ntb.",  # state for a class
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nNNtR.",
        b"(lp0\ng0\na.",  # a list in itself
        b"chumpy\n.",
        b"",
        b"not a pickle at all",
    ],
)
def test_malformed_pickles_are_one_line_errors(tmp_path: Path, code: bytes) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(code)
    with pytest.raises(InputError, match=r"m\.pkl") as error:
        load_pickle(path)
    assert "\n" not in str(error.value)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"poses": [np.arange(3.0)], "genders": ["m"]}, protocol=2)
    path = tmp_path / "t.pkl"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"t\.pkl"):
            load_pickle(path)
    with pytest.raises(InputError, match="no such file"):
        load_pickle(tmp_path / "absent.pkl")
