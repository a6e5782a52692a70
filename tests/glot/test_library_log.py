"""Lines of libraries: what C++ code prints is dropped or kept by its line, and nothing else is lost."""

import os
import subprocess
import sys
import threading

import pytest

from glot.library_log import STDERR, without_lines
from tests.fixtures.places import ROOT


def test_only_lines_with_a_text_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), without_lines("delegate", "chatter"):
        os.write(STDERR, b"INFO: a delegate\nan error that matters\n")
        os.system("echo chatter of a child >&2")
        raise KeyError
    os.write(STDERR, b"a delegate again\n")
    assert capfd.readouterr().err == "an error that matters\na delegate again\n"


def test_threads_do_not_lose_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    def print_some(number: int) -> None:
        for _ in range(50):
            with without_lines("chatter"):
                os.write(STDERR, f"chatter\nkept {number}\n".encode())

    threads = [threading.Thread(target=print_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(STDERR, b"end\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines.pop() == "end" and sorted(lines) == sorted(f"kept {number}" for number in range(4) for _ in range(50))


def test_a_process_without_stderr_goes_on() -> None:
    code = "from glot.library_log import without_lines\nwith without_lines('x'):\n    print('inside')"
    command = f'exec "{sys.executable}" -c "{code}" 2>&-'
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "inside\n")
