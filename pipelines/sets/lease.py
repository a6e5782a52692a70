"""Lets one run at a time write a folder: a lock of the kernel, or, on an object store, a note that is renewed.

No clock is compared with one of another machine: a run is alive as long as its note changes.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from glot.errors import InputError, NotNowError
from glot.file_lock import TakenError, lock
from glot.location import is_remote
from glot.people.files import read_once
from glot.retries import http_status, retried

RENEW_SECONDS = 20.0  # time between two renewals of a note
EXPIRE_SECONDS = 90.0  # a run that has not renewed its note for this time is taken to be dead
SETTLE_SECONDS = 1.0  # several runs may take the place of a dead one; each waits this time, then the last note counts
TAKES = 20  # times to begin again because another note came or went
EXISTS = {409, 412}  # answers to a conditional PUT: there is one, or one is being written
NO_CONDITIONS = {400, 405, 501}  # answers of a store that knows no conditional PUT

Result = TypeVar("Result")


class Lease:
    """The right to write a folder, as long as it is not lost."""

    def lost(self) -> bool:
        """Whether another run may be writing the folder by now. What is lost stays lost. No request is made."""
        return False

    def check(self) -> None:
        """NotNowError if the lease is lost."""


@contextmanager
def hold(path: Path, folder: Path) -> Iterator[Lease]:
    """Holds ``folder`` by the lock or note at ``path``; InputError if another run holds the folder.

    On an object store, a run of this machine that was killed is replaced at once. A run of another machine is watched
    for up to EXPIRE_SECONDS, and InputError is raised as soon as it renews its note. NotNowError if the store does not
    answer.

    This keeps two runs from doing the same work. The rows would be right without it, because units are written whole
    and are the same in every run.
    """
    if is_remote(path):
        with _Note(path, folder).held() as lease:
            yield lease
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except TakenError:
            raise _busy(folder) from None
        yield Lease()


class _Note(Lease):
    """A note in a store, renewed by a thread until the lease ends or is lost."""

    here: set[str] = set()  # the runs of this process that hold a folder, or are about to

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.store, self.inside = cast(Any, path).fs, cast(Any, path).path
        self.run = uuid.uuid4().hex
        self.identity = {"run": self.run, **_process()}
        self.taken_over = False
        self.renewed = time.monotonic()  # when the last renewal that succeeded began
        self.ended = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Lease]:
        self.here.add(self.run)
        try:
            self.take()
            thread = threading.Thread(target=self.keep_renewing, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self.ended.set()
                thread.join()
                self.remove()
        finally:
            self.here.discard(self.run)

    def lost(self) -> bool:
        if time.monotonic() - self.renewed > EXPIRE_SECONDS:
            self.ended.set()  # a late renewal must not hide that others were free to take over
        return self.taken_over or self.ended.is_set()

    def check(self) -> None:
        if self.lost():
            silent = f"for {EXPIRE_SECONDS:.0f} s the store took no sign of life"
            reason = "another extraction has taken over" if self.taken_over else silent
            raise NotNowError(f"{self.folder}: {reason}; run the command again, and it goes on")

    def take(self) -> None:
        """Puts the note where there is none, or where the run of the note is dead."""
        for _ in range(TAKES):
            began = time.monotonic()
            if self.tried(self.create):
                self.renewed = began
                time.sleep(SETTLE_SECONDS)
            other = self.tried(self.read)
            if other is None:
                continue  # a run ended, or was taken for dead
            note = _parsed(other)
            if note.get("run") == self.run:
                return
            if not _is_gone(note, self.here):
                self.watch(other)
            self.tried(lambda: self.delete_if(other))  # noqa: B023
        raise _busy(self.folder)

    def tried(self, action: Callable[[], Result]) -> Result:
        return retried(action, self.folder, remote=True, doing="locked")

    def watch(self, other: bytes) -> None:
        """Returns when the run of the note ``other`` has ended, or has not renewed it for EXPIRE_SECONDS."""
        if _is_alive(_parsed(other)):
            raise _busy(self.folder, other)
        print(
            f"{self.folder}: waiting for the run on {_who(other)}, to end or to stop renewing, at most "
            f"{EXPIRE_SECONDS:.0f} s",
            flush=True,
        )
        limit = time.monotonic() + EXPIRE_SECONDS
        while time.monotonic() < limit:
            time.sleep(min(RENEW_SECONDS / 4, EXPIRE_SECONDS / 4))
            now = self.tried(self.read)
            if now is None:
                return
            if now != other:
                raise _busy(self.folder, now)

    def keep_renewing(self) -> None:
        pause = RENEW_SECONDS
        while not self.ended.wait(pause) and not self.lost():
            try:
                self.renew()
                pause = RENEW_SECONDS
            except Exception:  # whatever the store does: the next try may succeed, and lost() counts the time
                pause = RENEW_SECONDS / 4

    def renew(self) -> None:
        began = time.monotonic()
        there = self.read()
        if there is None:  # another run took ours for dead, and has not written its own yet; or somebody cleaned up
            self.taken_over = not self.create()
        elif _parsed(there).get("run") != self.run:
            self.taken_over = True
        else:
            self.store.pipe_file(self.inside, self.content())
        if not self.taken_over:
            self.renewed = began

    def content(self) -> bytes:
        # The time makes each renewal another content; earlier releases compare it with their clock.
        return json.dumps({**self.identity, "time": time.time()}).encode()

    def read(self) -> bytes | None:
        try:
            return read_once(self.path)
        except FileNotFoundError:
            return None

    def create(self) -> bool:
        """Writes the note if there is none. Whether the note is ours now."""
        try:
            self.store.pipe_file(self.inside, self.content(), mode="create")
            return True
        except FileExistsError:
            pass
        except Exception as error:
            status = http_status(error)
            if status in NO_CONDITIONS or isinstance(error, TypeError | NotImplementedError):
                if self.read() is None:
                    self.store.pipe_file(self.inside, self.content())
                    return True  # if others did so too, the last one counts
            elif status not in EXISTS:
                raise
        # A client that got no answer asks again, and finds the note that its first request wrote.
        return _parsed(self.read() or b"").get("run") == self.run

    def remove(self) -> None:
        """Removes the note if it is ours. If the store does not answer, the next run waits until it has expired."""
        with suppress(Exception):
            if _parsed(self.read() or b"").get("run") == self.run:
                self.store.rm_file(self.inside)

    def delete_if(self, content: bytes) -> None:
        """Removes the note if it is still this one."""
        if self.read() == content:
            with suppress(FileNotFoundError):
                self.store.rm_file(self.inside)


def _process() -> dict[str, Any]:
    """What tells this process from any other, also from those of other containers with the same host name."""
    machine = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": machine, "started": _started(pid)}


def _started(pid: int) -> str:
    """When a process of this machine was started, in the kernel's ticks; "" if it has ended or cannot be seen."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def _is_local(note: dict[str, Any]) -> bool:
    ours = _process()
    return bool(ours["machine"] and ours["started"]) and note.get("machine") == ours["machine"]


def _is_gone(note: dict[str, Any], here: set[str]) -> bool:
    """Whether the run of a note was a process of this machine that has ended, or a lease of this process that has."""
    if not _is_local(note):
        return False
    if note.get("pid") == os.getpid():
        return note.get("run") not in here
    return _started(int(note.get("pid", 0))) != note.get("started")


def _is_alive(note: dict[str, Any]) -> bool:
    return _is_local(note) and _started(int(note.get("pid", 0))) == note.get("started")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(content: bytes) -> str:
    note = _parsed(content)
    return f"{note.get('host', 'an unknown machine')}, process {note.get('pid', 'unknown')}"


def _busy(folder: Path, note: bytes = b"") -> InputError:
    run = f" ({_who(note)})" if note else ""
    return InputError(f"{folder}: another extraction is writing it{run}; wait for it, or give another --out")
