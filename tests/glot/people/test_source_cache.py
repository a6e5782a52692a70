"""The cache of copies: one copy for many processes, bounded, never half, never stale."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glot.errors import InputError
from glot.people import source_cache
from glot.people.source_cache import cached_copy
from glot.people.versions import Version
from glot.retries import ChangedError
from tests.fixtures.places import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path))
    return tmp_path / "sources"


def read(name: str, size: int = 1000, mark: str = "1") -> bytes | None:
    file = cached_copy(name, Version(size, mark), lambda: [bytes(size)])
    if file is None:
        return None
    with file:
        return file.read()


def copies(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != ".room"]


def test_the_least_recently_used_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source_cache.LIMIT_VARIABLE, "3500")
    paths = {}
    for number, name in enumerate("abc"):
        before = set(folder.iterdir()) if folder.exists() else set()
        read(name)
        (paths[name],) = {path for path in folder.iterdir() if path.name != ".room"} - before
        os.utime(paths[name], (number, number))
    read("a")  # used now
    open_copy = cached_copy("b", Version(1000, "1"), None)
    assert open_copy
    os.utime(paths["b"], (1, 1))
    read("d")
    assert paths["a"].exists() and not paths["b"].exists() and paths["c"].exists()
    with open_copy:
        assert open_copy.read() == bytes(1000)  # a copy in use stays readable
    assert len(copies(folder)) == 3


def test_what_has_no_room_is_not_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source_cache.LIMIT_VARIABLE, "1500")
    assert read("a") and read("b", 2000) is None and read("c", 1500)
    monkeypatch.setenv(source_cache.LIMIT_VARIABLE, "0")
    assert read("d") is None
    monkeypatch.delenv(source_cache.LIMIT_VARIABLE)
    monkeypatch.setattr(source_cache, "LARGEST", 10)
    assert read("e", 11) is None and read("e", 10)
    assert read("f", 5, mark="") is None  # without a version, an old copy could not be told from a new one


def test_a_file_of_somebody_else_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source_cache.LIMIT_VARIABLE, "1500")
    folder.mkdir(parents=True)
    (folder / "holiday.mp4").write_bytes(bytes(5000))
    (folder / "notes.part").write_text("mine")
    assert read("a") and read("b")
    assert {path.name for path in copies(folder)} >= {"holiday.mp4", "notes.part"} and len(copies(folder)) == 3


def test_a_limit_that_is_no_number_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source_cache.LIMIT_VARIABLE, "20GB")
    with pytest.raises(InputError, match="GLOT_SOURCE_CACHE_BYTES=20GB: must be a number of bytes"):
        read("a")


@pytest.mark.parametrize("full_at", ["pwrite", "fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, full_at, full)
    assert read("a") is None
    assert copies(folder) == []


def test_a_cache_that_cannot_be_written_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "file"))
    assert read("a") is None


def test_errors_of_the_source_are_its_own_and_leave_nothing(folder: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield bytes(500)
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        cached_copy("a", Version(1000, "1"), blocks)
    with pytest.raises(ChangedError, match="999 bytes instead of 1000"):
        cached_copy("a", Version(1000, "1"), lambda: [bytes(999)])
    assert copies(folder) == []


def test_many_threads_make_one_copy(folder: Path) -> None:
    made: list[int] = []
    found: list[bytes] = []

    def blocks() -> Iterator[bytes]:
        made.append(1)
        for _ in range(10):
            time.sleep(0.01)
            yield bytes(100)

    def use() -> None:
        file = cached_copy("a", Version(1000, "1"), blocks)
        assert file
        with file:
            found.append(file.read())

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found == [bytes(1000)] * 16
    assert len(copies(folder)) == 1


SLOW = """
import sys, time
from glot.people.source_cache import cached_copy
from glot.people.versions import Version
def blocks():
    for number in range(10):
        yield bytes(100)
        print(number, flush=True)
        time.sleep(float(sys.argv[1]))
cached_copy("a", Version(1000, "1"), blocks).close()
"""


def slow_copy(seconds: float) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(seconds)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout and process.stdout.readline() == "0\n"
    return process


def test_another_process_is_waited_for(folder: Path) -> None:
    with slow_copy(0.05) as process:
        file = cached_copy("a", Version(1000, "1"), lambda: pytest.fail("copied twice"))
        assert file
        with file:
            assert file.read() == bytes(1000)
        process.wait()


def test_a_killed_process_is_not_waited_for_and_its_half_copy_is_not_used(folder: Path) -> None:
    with slow_copy(60) as process:
        threading.Timer(0.2, process.kill).start()
        assert read("a") == bytes(1000)
    copies(folder)[0].unlink()
    with slow_copy(60) as process:
        process.kill()
    assert [path.suffix for path in copies(folder)] == [source_cache.PARTIAL]
    read("b")  # removes what is left
    assert [path.suffix for path in copies(folder)] == [""]


def test_a_copy_that_lost_its_end_is_made_again(folder: Path) -> None:
    read("a")
    os.truncate(copies(folder)[0], 500)  # as after a power cut
    assert read("a") == bytes(1000)


def test_the_limit_is_a_tenth_of_the_free_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 25_000

    monkeypatch.setattr(source_cache.shutil, "disk_usage", lambda _: Usage)
    for name in "abcd":
        read(name)
    assert len(copies(folder)) == 2  # (25,000 + 2,000) / 10


def test_all_can_be_counted_and_removed_but_what_is_being_made(folder: Path) -> None:
    assert source_cache.contents() == (0, 0, None, 0) and source_cache.remove_all() == 0
    read("b")
    read("c")
    strange = folder / "main.c"  # $GLOT_CACHE names a folder of something else
    strange.write_text("int main() {}")
    with slow_copy(60) as process:
        found = source_cache.contents()
        assert (found.copies, found.bytes, found.making) == (2, 3000, 1) and found.used
        assert source_cache.remove_all() == 2000
        assert [path.suffix for path in copies(folder) if path != strange] == [source_cache.PARTIAL]
        process.kill()
        process.wait()
        assert source_cache.remove_all() == 1000
    assert copies(folder) == [strange]
