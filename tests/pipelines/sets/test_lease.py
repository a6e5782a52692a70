"""One run at a time writes a folder in a store: whoever is killed, however the store fails, whatever the clocks say."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from glot import retries
from glot.errors import InputError, NotNowError
from glot.location import location
from pipelines.sets import lease
from pipelines.sets.lease import Lease, hold
from tests.fixtures.flaky_store import FAULTS, LOST, FlakyStore
from tests.fixtures.places import ROOT

HOLDER = """
import sys, time
from glot.location import location
from pipelines.sets import lease
lease.RENEW_SECONDS, lease.SETTLE_SECONDS = 0.2, 0.1
folder = location(sys.argv[1])
if len(sys.argv) > 2:
    lease._process = lambda: {"host": "far-away", "pid": 7, "machine": "another", "started": "1"}
with lease.hold(folder / "lock", folder):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "EXPIRE_SECONDS", 60)  # a busy machine may stand still for some seconds


@pytest.fixture
def expires_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRE_SECONDS", 3)


@pytest.fixture(autouse=True)
def quick_clients(flaky_store: FlakyStore) -> Iterator[None]:
    with flaky_store.quick_clients():
        yield


@pytest.fixture
def folder(flaky_store: FlakyStore, request: pytest.FixtureRequest) -> Path:
    return location(f"{flaky_store.uri}/{request.node.name}")


def holder(folder: Path, *elsewhere: str) -> "subprocess.Popen[str]":
    """A process that holds the folder until a line comes; with "elsewhere" it says that it is on another machine."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *elsewhere],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.communicate("\n")


def soon(condition: Callable[[], bool], seconds: float = 50) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def note(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "lock").read_text()))


def test_a_run_of_this_machine_is_refused_at_once_and_replaced_at_once_when_killed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = holder(folder)
    with pytest.raises(InputError, match=f"another extraction is writing it .*process {process.pid}"):
        hold(folder / "lock", folder).__enter__()
    process.kill()
    process.wait()
    began = time.monotonic()
    with hold(folder / "lock", folder):
        assert time.monotonic() - began < 50
        assert note(folder)["pid"] == os.getpid()
        assert abs(note(folder)["time"] - time.time()) < 50  # what earlier releases compare with their clock
    assert not (folder / "lock").exists()
    assert "waiting" not in capsys.readouterr().out


def test_a_run_of_another_machine_is_refused_when_it_renews_its_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = holder(folder, "elsewhere")
    try:
        with pytest.raises(InputError, match="another extraction is writing it .far-away, process 7"):
            hold(folder / "lock", folder).__enter__()
    finally:
        end(process)
    assert capsys.readouterr().out.count("waiting for the run on far-away, process 7, to end") == 1


@pytest.mark.usefixtures("expires_soon")
@pytest.mark.parametrize("clock", [-1e6, 0, 1e6])
def test_a_run_of_another_machine_that_is_dead_is_waited_for(
    folder: Path, capsys: pytest.CaptureFixture[str], clock: float
) -> None:
    dead = {"run": "a", "host": "far-away", "pid": 7, "time": time.time() + clock}
    (folder / "lock").write_text(json.dumps(dead))
    began = time.monotonic()
    with hold(folder / "lock", folder):
        assert 3 <= time.monotonic() - began < 50
        assert note(folder)["pid"] == os.getpid()
    assert "at most 3 s" in capsys.readouterr().out


def test_a_run_that_ends_while_it_is_waited_for(folder: Path) -> None:
    (folder / "lock").write_text(json.dumps({"run": "a", "host": "far-away", "pid": 7}))
    threading.Timer(0.3, (folder / "lock").unlink).start()
    began = time.monotonic()
    with hold(folder / "lock", folder):
        assert time.monotonic() - began < 50


@pytest.mark.usefixtures("expires_soon")
@pytest.mark.parametrize("content", ["", "no note", "[1]"])
def test_what_is_no_note_is_waited_for_and_replaced(folder: Path, content: str) -> None:
    (folder / "lock").write_text(content)
    with hold(folder / "lock", folder):
        assert note(folder)["pid"] == os.getpid()


def test_a_lease_of_this_process_whose_note_stayed_is_replaced_at_once(folder: Path, flaky_store: FlakyStore) -> None:
    with hold(folder / "lock", folder), pytest.raises(InputError), hold(folder / "lock", folder):
        pass
    with hold(folder / "lock", folder):
        failing = flaky_store.failing(1.0)
        failing.__enter__()
    failing.__exit__(None, None, None)
    assert (folder / "lock").exists()
    with hold(folder / "lock", folder):
        pass
    assert not (folder / "lock").exists()


def test_the_note_of_another_run_is_not_removed_and_the_lease_is_lost(folder: Path) -> None:
    with hold(folder / "lock", folder) as held:
        assert not held.lost()
        held.check()
        (folder / "lock").write_text('{"run": "another"}')
        soon(held.lost)
        with pytest.raises(NotNowError, match="another extraction has taken over"):
            held.check()
    assert note(folder) == {"run": "another"}


def test_a_note_that_somebody_removed_is_written_again(folder: Path) -> None:
    with hold(folder / "lock", folder) as held:
        (folder / "lock").unlink()
        soon((folder / "lock").exists)
        assert not held.lost()


@pytest.mark.parametrize("faults", [FAULTS, (LOST,)])
def test_the_heartbeat_survives_a_store_that_fails(
    folder: Path, flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch, faults: tuple[str, ...]
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    failing = flaky_store.failing(0.4, faults, seed=1)
    with failing, flaky_store.counted() as requests, hold(folder / "lock", folder) as held:
        soon(lambda: sum(r.method == "PUT" and not r.fault for r in requests) > 5)
        assert not held.lost()
    assert any(request.fault for request in requests)


@pytest.mark.usefixtures("expires_soon")
def test_a_lease_that_cannot_be_renewed_is_lost_and_stays_lost(folder: Path, flaky_store: FlakyStore) -> None:
    with hold(folder / "lock", folder) as held:
        with flaky_store.failing(1.0):
            soon(held.lost)
            assert time.monotonic() - cast(Any, held).renewed > 3
        time.sleep(0.5)
        with pytest.raises(NotNowError, match="no sign of life"):
            held.check()


def test_a_store_that_is_down_is_not_now(folder: Path, flaky_store: FlakyStore) -> None:
    with flaky_store.failing(1.0), pytest.raises(NotNowError, match="cannot be locked now"):
        hold(folder / "lock", folder).__enter__()


def starts(folder: Path, count: int) -> tuple[list[Lease], list[InputError]]:
    """``count`` runs that start at the same moment; those that hold the folder, and what the others are told."""
    held: list[Lease] = []
    refused: list[InputError] = []
    together, done = threading.Barrier(count), threading.Event()

    def run() -> None:
        together.wait()
        try:
            with hold(folder / "lock", folder) as mine:
                held.append(mine)
                done.wait()
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    soon(lambda: len(held) + len(refused) == count)
    assert not any(mine.lost() for mine in held)
    done.set()
    for thread in threads:
        thread.join()
    return held, refused


@pytest.mark.parametrize("dead", [False, True])
def test_of_twenty_runs_that_start_at_the_same_moment_one_holds_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 1.0)
    if dead:
        gone = {**lease._process(), "run": "a", "pid": 2**22 + 1}
        (folder / "lock").write_text(json.dumps(gone))
    held, refused = starts(folder, 20)
    assert len(held) == 1 and len(refused) == 19
    assert all("another extraction is writing it" in str(error) for error in refused)
    assert not (folder / "lock").exists()


def test_of_several_processes_one_holds_the_folder(folder: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    soon(lambda: sum(process.poll() is not None for process in processes) >= 3)
    told = [process.communicate("\n")[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert sum("another extraction is writing it" in text for text in told) == 3


def test_a_store_without_conditional_writes(flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    folder = location(f"{flaky_store.uri}/unconditional")
    plain = S3FileSystem._pipe_file

    async def unconditional(self: Any, path: str, data: bytes, **options: Any) -> Any:
        if options.pop("mode", "overwrite") == "create":
            raise NotImplementedError
        return await plain(self, path, data, **options)

    monkeypatch.setattr(S3FileSystem, "_pipe_file", unconditional)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 1.0)
    held, refused = starts(folder, 6)
    assert len(held) == 1 and len(refused) == 5


def test_a_folder_of_this_machine_is_locked_by_the_kernel(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", tmp_path) as held:
        assert not held.lost()
        held.check()
        with pytest.raises(InputError, match="another extraction is writing it; wait"):
            hold(tmp_path / "lock", tmp_path).__enter__()
