"""Counts how often workers began with a piece of work, so that a piece that kills its workers is set aside.

When a worker dies, Ray starts a new one and gives it the same piece of work. Without this count, a file that crashes
the decoder would keep the job running for ever.
"""

import os
import socket
from pathlib import Path

from glot.location import write_whole

MOST_TRIES = 3  # how often workers may begin with a piece of work in one run of the command
DIED = f"its worker died {MOST_TRIES} times: the decoder crashes, or there is too little memory"


def begin(note: Path) -> bool:
    """Writes the next of the notes ``note``-0, -1, ...; False if MOST_TRIES notes are there already."""
    for number in range(MOST_TRIES):
        numbered = note.with_name(f"{note.name}-{number}")
        if not numbered.exists():
            write_whole(numbered, f"{os.getpid()} on {socket.gethostname()}\n".encode())
            return True
    return False
