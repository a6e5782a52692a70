"""Exit codes and what people read: run as real processes, because that is where they matter."""

import subprocess
import sys
import textwrap

import pytest

from glot.cli import progress


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    body = textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", body, *arguments], capture_output=True, text=True)


COMMAND = """
    from glot import cli
    from glot.errors import InputError

    def main(count: int = 1) -> int:
        '''Counts sheep.'''
        if count == 7:
            raise InputError("--count 7: not a number of sheep; take another")
        if count == 8:
            raise KeyError("bug")
        print("counted", count)
        return 1 if count == 3 else 0

    cli.run(main)
"""


@pytest.mark.parametrize(("count", "code"), [("2", 0), ("3", 1), ("7", 2), ("many", 2)])
def test_exit_codes(count: str, code: int) -> None:
    assert run(COMMAND, "--count", count).returncode == code


def test_a_users_mistake_is_one_line() -> None:
    ended = run(COMMAND, "--count", "7")
    assert ended.stderr == "error: --count 7: not a number of sheep; take another\n"
    assert not ended.stdout


def test_a_bug_keeps_its_trace() -> None:
    ended = run(COMMAND, "--count", "8")
    assert "Traceback" in ended.stderr and ended.returncode not in (0, 2)


def test_help_shows_the_docstring() -> None:
    ended = run(COMMAND, "--help")
    assert ended.returncode == 0 and "Counts sheep" in ended.stdout


def test_progress_passes_everything_on_and_speaks_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), total=5, what="sheep")) == [0, 1, 2, 3, 4]
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sheep: 5/5, 0 s gone, about 0 s left"]
