"""Locks in files that others remove and replace, and whose holders are killed."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from glot.file_lock import TakenError, alone, is_at, lock, shared, turn
from tests.fixtures.places import ROOT

HOLD = """
import sys, time
from pathlib import Path
from glot import file_lock
found = getattr(file_lock, sys.argv[1])(Path(sys.argv[2]))
if hasattr(found, "__enter__"):
    found.__enter__()
print(flush=True)
time.sleep(600)
"""


def holder(kind: str, path: Path) -> "subprocess.Popen[str]":
    """Another process, which has the lock by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout and process.stdout.readline() == "\n"
    return process


def killed(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder("lock", path)
    with pytest.raises(TakenError, match=f"process {process.pid}"), lock(path):
        pass
    killed(process)
    with lock(path):
        pass


def test_many_share_a_file_or_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert shared(path) is None and alone(path) is None and shared(tmp_path / "file" / "below") is None
    path.write_text("content")
    process = holder("shared", path)
    mine = shared(path)
    assert mine and mine.read() == b"content" and alone(path) is None
    mine.close()
    assert alone(path) is None
    killed(process)
    whole = alone(path)
    assert whole and alone(path) is None
    whole.close()


def replaced_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process replaces the file while this one waits for its first lock."""
    flock, calls = fcntl.flock, []

    def late(file: object, kind: int) -> None:
        if not calls:
            new = path.with_name("new")
            new.write_text("new")
            os.replace(new, path)
        calls.append(kind)
        flock(file, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)


def test_a_lock_on_a_file_that_was_replaced_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    replaced_meanwhile(path, monkeypatch)
    found = shared(path)
    assert found and found.read() == b"new" and is_at(path, found)
    found.close()
    replaced_meanwhile(path, monkeypatch)
    assert alone(path) is None
    replaced_meanwhile(path, monkeypatch)
    with turn(path):
        assert path.exists()
        other = alone(path)
        assert other is None  # it is the file at this place that is locked
    assert not path.exists()


def test_turns_follow_each_other(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "turn", [], []

    def take() -> None:
        for _ in range(20):
            with turn(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 160 and max(most) == 1 and not path.exists()
    process = holder("turn", path)
    killed(process)
    assert path.exists()  # it is not waited for
    with turn(path):
        pass
    assert not path.exists()
