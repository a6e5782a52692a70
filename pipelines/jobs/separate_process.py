"""A call in a separate process, whose end is seen: for inputs that may crash a library, and with it the worker.

A worker that dies takes its work with it, and nobody sees why. ``python -m pipelines.jobs.separate_process`` is the
process: it reads the call from its input and writes the answer to its output.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

# What a library does to its process. Any other end, such as SIGKILL, comes from outside.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


class Ended(NamedTuple):
    """How the process ended."""

    value: Any  # what the call returned; None if it raised an exception
    crash: str  # the signal of a crash, such as "SIGSEGV"; else an empty text


def call_separately(function: Callable[..., Any], *arguments: Any) -> Ended:
    """Calls a function of a module with arguments that can be pickled."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.jobs.separate_process"],
        # Pickled by this project for a process of its own: no file of a user is ever unpickled.
        input=pickle.dumps((function, arguments)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    number = -ended.returncode
    crash = signal.Signals(number).name if number in CRASHES else ""
    return Ended(pickle.loads(ended.stdout) if ended.returncode == 0 else None, crash)


def main() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    function, arguments = pickle.load(sys.stdin.buffer)
    with answer:
        pickle.dump(function(*arguments), answer)


if __name__ == "__main__":
    main()
