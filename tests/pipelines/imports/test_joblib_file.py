"""joblib dumps: everything that joblib writes can be read row by row, and nothing in a file is executed."""

import io
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.numpy_pickle import NumpyArrayWrapper

from glot.errors import InputError
from pipelines.imports.joblib_file import LazyArray, open_joblib

CONTENT: dict[str, Any] = {
    "vid_name": np.array(["walk_00_0", "sprung_ü_1", "x"]),
    "features": np.arange(3 * 5, dtype=np.float32).reshape(3, 5),
    "columns": np.asfortranarray(np.arange(3 * 2 * 4, dtype=np.float64).reshape(3, 2, 4)),
    "big_endian": np.array([1, 2, 3], ">i4"),
    "half": np.array([0.5, 1, 2], np.float16),
    "flags": np.array([True, False, True]),
    "names": np.array([b"a", b"bcd", b""]),
    "empty": np.zeros((0, 7)),
    "count": 3,
    "words": ["a", None, 1.5],
}


def read(path: Path) -> dict[str, Any]:
    with open_joblib(path, scratch=path.parent) as content:
        return {key: value.rows(0, 99) if isinstance(value, LazyArray) else value for key, value in content.items()}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype.newbyteorder("="), key
            assert np.array_equal(found[key], value), key
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_dumps_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    joblib.dump(CONTENT, tmp_path / "db.pt", protocol=protocol)
    same(read(tmp_path / "db.pt"), CONTENT)


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_compressed_dumps_and_nothing_is_left_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compress: str
) -> None:
    joblib.dump(CONTENT, tmp_path / "db.pt", compress=compress)
    same(read(tmp_path / "db.pt"), CONTENT)
    assert "compressed, so it is uncompressed" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["db.pt"]


def test_dumps_from_before_arrays_were_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def older(self: Any, subclass: Any, shape: Any, order: Any, dtype: Any, allow_mmap: bool = False, **_: Any) -> None:
        self.subclass, self.shape, self.order, self.dtype, self.allow_mmap = subclass, shape, order, dtype, allow_mmap

    monkeypatch.setattr(NumpyArrayWrapper, "__init__", older)
    joblib.dump(CONTENT, tmp_path / "db.pt")
    assert b"numpy_array_alignment_bytes" not in (tmp_path / "db.pt").read_bytes()
    same(read(tmp_path / "db.pt"), CONTENT)


def test_numpy_1_and_2_call_their_modules_differently(tmp_path: Path) -> None:
    joblib.dump({"x": np.array(["a", "bc"], object)}, tmp_path / "two.pt", protocol=2)
    content = (tmp_path / "two.pt").read_bytes()
    assert b"numpy._core" in content
    # Lengths of names stand before them, in protocol 5 (that of arrays of objects) as one byte.
    older = content.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    frame = older.index(b"\x95") + 1
    size = int.from_bytes(older[frame : frame + 8], "little") - 1
    (tmp_path / "one.pt").write_bytes(older[:frame] + size.to_bytes(8, "little") + older[frame + 8 :])
    for name in ("one.pt", "two.pt"):
        assert read(tmp_path / name)["x"].tolist() == ["a", "bc"]


def test_rows_are_those_of_the_array_wherever_they_begin(tmp_path: Path) -> None:
    joblib.dump(CONTENT, tmp_path / "db.pt")
    with open_joblib(tmp_path / "db.pt", scratch=tmp_path) as content:
        assert isinstance(content["columns"], LazyArray) and content["columns"].order == "F"
        for key in ("features", "columns", "vid_name"):
            for start in range(4):
                for stop in range(start, 5):
                    assert np.array_equal(content[key].rows(start, stop), CONTENT[key][start:stop]), key


def test_arrays_stay_in_the_file(tmp_path: Path) -> None:
    joblib.dump({"features": np.ones((20_000, 500), np.float32), "frame": np.arange(20_000)}, tmp_path / "db.pt")
    tracemalloc.start()
    with open_joblib(tmp_path / "db.pt", scratch=tmp_path) as content:
        rows = content["features"].rows(19_000, 19_100)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.sum() == 100 * 500 and peak < 2_000_000  # bytes; the whole array has 40 MB
    assert content["frame"].rows(5, 6).tolist() == [5]


class Evil:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.flag}",)


@pytest.mark.parametrize("place", ["value", "object array", "plain pickle"])
def test_a_dump_that_runs_a_command_is_refused_by_its_name(tmp_path: Path, place: str) -> None:
    evil, path = Evil(tmp_path / "ran"), tmp_path / "db.pt"
    if place == "plain pickle":
        path.write_bytes(pickle.dumps({"features": evil}))
    else:
        joblib.dump({"x": np.ones(3), "y": evil if place == "value" else np.array([evil, 1], object)}, path)
    with pytest.raises(InputError, match=r"refused, it asks for posix.system"):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_classes_that_are_no_plain_data_are_named(tmp_path: Path) -> None:
    joblib.dump({"x": np.ones(3).view(np.matrix)}, tmp_path / "matrix.pt")
    with pytest.raises(InputError, match=r"refused, it asks for numpy\.\S*matrix"):
        read(tmp_path / "matrix.pt")
    joblib.dump({"x": Path("a")}, tmp_path / "path.pt")
    with pytest.raises(InputError, match=r"refused, it asks for pathlib"):
        read(tmp_path / "path.pt")


def test_structured_arrays_are_refused(tmp_path: Path) -> None:
    joblib.dump({"x": np.zeros(3, [("a", "f4"), ("b", "i8")])}, tmp_path / "db.pt")
    with pytest.raises(InputError, match="not a readable pickle"):
        read(tmp_path / "db.pt")


@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("compress", [0, "zlib", "gzip"])
def test_cut_files_are_refused(tmp_path: Path, kept: float, compress: Any) -> None:
    path = tmp_path / "db.pt"
    rng = np.random.default_rng(0)
    joblib.dump({"features": rng.normal(size=(200, 100)), "frame_id": np.arange(200)}, path, compress=compress)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match="incomplete|not a readable|cannot be uncompressed"):
        read(path)


def test_shapes_that_lie_about_the_file_are_refused(tmp_path: Path) -> None:
    joblib.dump({"x": np.zeros((3, 1000))}, tmp_path / "db.pt", protocol=2)
    content = (tmp_path / "db.pt").read_bytes()
    lie = content.replace(b"K\x03M\xe8\x03\x86", b"K\xffM\xff\xff\x86")
    assert lie != content
    (tmp_path / "db.pt").write_bytes(lie)
    with pytest.raises(InputError, match="incomplete, an array ends at byte 133"):
        read(tmp_path / "db.pt")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(3))
    for name, content, reason in (
        ("zip", buffer.getvalue(), "a zip archive such as torch.save writes"),
        ("old", b"ZF0x1234", "written by a joblib before"),
        ("lz4", b"\x04\x22\x4d\x18....", "compressed with lz4"),
        ("text", b"hello", "not a readable pickle"),
        ("empty", b"", "not a readable pickle"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read(tmp_path / name)
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path / "gone")
