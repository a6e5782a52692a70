"""Lets one run at a time write a folder: a lock of the kernel, or, on an object store, a note that is renewed."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.location import is_remote

RENEW_SECONDS = 20.0  # time between two renewals of a note
EXPIRE_SECONDS = 90.0  # a run that has not renewed its note for this time is taken to be dead
SETTLE_SECONDS = 1.0  # if two runs start at the same moment, each waits this time, then sees whose note remains


@contextmanager
def hold(path: Path, folder: Path) -> Iterator[None]:
    """Holds ``folder`` by the lock or note at ``path``; InputError at once if another run holds the folder.

    This keeps two runs from doing the same work. The rows would be right without it, because units are written whole
    and are the same in every run.
    """
    if is_remote(path):
        with _note(path, folder):
            yield
        return
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(folder, "") from None
        except OSError:
            pass  # a file system without locks; work may be done twice
        yield


@contextmanager
def _note(path: Path, folder: Path) -> Iterator[None]:
    ours = {"run": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
    other = _read(path)
    if other and time.time() - other.get("time", 0) < EXPIRE_SECONDS:
        raise _busy(folder, f" ({other.get('host')}, process {other.get('pid')})")

    def renew() -> None:
        path.write_text(json.dumps({**ours, "time": time.time()}))

    renew()
    time.sleep(SETTLE_SECONDS)
    if _read(path).get("run") != ours["run"]:
        raise _busy(folder, "")
    ended = threading.Event()

    def keep_renewing() -> None:
        while not ended.wait(RENEW_SECONDS):
            renew()

    thread = threading.Thread(target=keep_renewing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _busy(folder: Path, run: str) -> InputError:
    return InputError(f"{folder}: another extraction is writing it{run}; wait for it, or give another --out")
