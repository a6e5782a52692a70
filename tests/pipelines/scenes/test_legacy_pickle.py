"""pipelines/scenes/legacy_pickle.py: opcodes of Python 2, readable as latin1 only."""

import pickle
import pickletools

import numpy as np
import pytest

from pipelines.scenes.legacy_pickle import dump, dumps

DATA = {
    "sequence": "walk_00",
    "poses": [np.linspace(-3, 3, 144).reshape(2, 72), np.zeros((0, 72))],
    "ids": np.arange(300),
    "valid": [np.array([True, False]), [1, 0]],
    "numbers": (0, 255, 256, 70000, -5, 2**40, 1.5, True, None),
    "one": (1,),
    "long": "x" * 300,
    "empty": [[], {}, ()],
}


def test_round_trip() -> None:
    back = pickle.loads(dumps(DATA), encoding="latin1")
    assert list(back) == list(DATA)
    np.testing.assert_array_equal(back["poses"][0], DATA["poses"][0])
    assert back["poses"][1].shape == (0, 72)
    assert back["ids"].dtype == np.int64 and back["ids"].tolist() == list(range(300))
    assert back["valid"][0].dtype == bool and back["valid"][0].tolist() == [True, False] and back["valid"][1] == [1, 0]
    for key in ("sequence", "numbers", "one", "long", "empty"):
        assert back[key] == DATA[key]


def test_fails_as_ascii_and_gives_byte_keys_as_bytes() -> None:
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(dumps(DATA))
    assert b"poses" in pickle.loads(dumps(DATA), encoding="bytes")


def test_opcodes_and_globals_are_python_2s() -> None:
    stream = dumps(DATA)
    operations = list(pickletools.genops(stream))
    names = {op.name for op, _, _ in operations}
    assert {"SHORT_BINSTRING", "BINSTRING", "PROTO"} <= names
    assert not names & {
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
        "STACK_GLOBAL",
        "FRAME",
        "MEMOIZE",
    }
    assert {arg for op, arg, _ in operations if op.name == "GLOBAL"} == {
        "numpy.core.multiarray _reconstruct", "numpy dtype", "numpy ndarray",
    }  # fmt: skip
    assert max(op.proto for op, _, _ in operations) <= 2
    puts = [arg for op, arg, _ in operations if op.name in ("BINPUT", "LONG_BINPUT")]
    assert puts == list(range(len(puts)))


def test_fortran_arrays_keep_their_values() -> None:
    data = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(pickle.loads(dumps(data), encoding="latin1"), data)


def test_refuses_what_is_not_plain() -> None:
    with pytest.raises(TypeError, match="object"):
        dumps(object())
    with pytest.raises(TypeError, match="complex128"):
        dumps(np.zeros(2, dtype=complex))


def test_a_failed_dump_leaves_nothing_under_the_name(tmp_path) -> None:
    with pytest.raises(TypeError):
        dump([1, object()], tmp_path / "a.pkl")
    assert not (tmp_path / "a.pkl").exists()
    dump([1], tmp_path / "a.pkl")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]
