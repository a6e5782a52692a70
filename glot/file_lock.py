"""A lock in a file, which one process at a time holds. The kernel frees it when its holder ends, however it ends.

On a file system that machines share, it holds between machines where the file system has locks (NFS, Lustre, ...).
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
