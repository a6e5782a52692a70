"""Lines that the C++ code of libraries prints to a user's terminal, where no switch of the library turns them off."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def without_lines(*texts: str) -> Iterator[None]:
    """Within it, nothing is printed to stderr. What was printed comes afterwards, without lines that hold a text.

    Other threads' words are held back, too, so this is for moments.
    """
    if sys.stderr is None:  # then the number may stand for another file
        yield
        return
    with _one_at_a_time:
        sys.stderr.flush()
        terminal = os.dup(STDERR)
        with tempfile.TemporaryFile() as printed:
            os.dup2(printed.fileno(), STDERR)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(terminal, STDERR)
                os.close(terminal)
                printed.seek(0)
                os.write(STDERR, b"".join(line for line in printed if not any(text.encode() in line for text in texts)))
