"""One run at a time in a folder: a lock of the kernel's, or on an object store, which has none, a note kept fresh."""

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

RENEWED = 20.0  # seconds between two signs of life
OVER = 90.0  # seconds without one, and the run that wrote the note is taken to be dead
SETTLE = 1.0  # seconds in which two that start at once see which note stays


@contextmanager
def hold(path: Path, folder: Path) -> Iterator[None]:
    """Holds ``folder`` by the lock or note at ``path``; InputError at once where another run holds it.

    Neither is needed for the rows to be right: units are written whole, and the same whoever does them. It spares two
    runs from doing the work twice.
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
    if other and time.time() - other.get("time", 0) < OVER:
        raise _busy(folder, f" ({other.get('host')}, process {other.get('pid')})")

    def renew() -> None:
        path.write_text(json.dumps({**ours, "time": time.time()}))

    renew()
    time.sleep(SETTLE)
    if _read(path).get("run") != ours["run"]:
        raise _busy(folder, "")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(RENEWED):
            renew()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _busy(folder: Path, who: str) -> InputError:
    return InputError(f"{folder}: another extraction is writing it{who}; wait for it, or give another --out")
