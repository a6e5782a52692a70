"""Locks in files. The kernel frees a lock when the process that holds it ends, however it ends.

On a file system that machines share, they hold between machines where the file system has locks (NFS, Lustre, ...).
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class TakenError(Exception):
    """Another process holds the lock. The message says which, as far as is known."""


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the lock in the file ``path``, which is made if it is missing and stays; TakenError if it is held.

    On a file system without locks, several processes get it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TakenError(file.read().strip()) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"{socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Waits until no other process has its turn with ``path``. The file is made for this, and removed at the end.

    On a file system without locks, several processes have their turn at once.
    """
    while True:
        file = path.open("a+b")
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if is_at(path, file):
            break
        file.close()  # the process that had its turn has removed this file
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def shared(path: Path) -> BinaryIO | None:
    """The file, opened for reading, with a lock that any number of processes may have; None if there is no such file.

    Waits while another process has the file for itself alone. Without a lock on a file system that has none.
    """
    while True:
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        if is_at(path, file):
            return file
        file.close()


def alone(path: Path) -> BinaryIO | None:
    """The file, opened, with a lock that no other process may share.

    None where somebody has a lock on it, where that cannot be known, and where there is no such file.
    """
    try:
        file = path.open("r+b")  # NFS gives this lock only for a file that may be written
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(path, file):
            return file
    file.close()
    return None


def is_at(path: Path, file: BinaryIO) -> bool:
    """Whether ``path`` is the open file still; it may have been removed, or replaced."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return False
