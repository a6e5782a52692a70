"""A folder belongs to one run, and to one process at a time.

It is claimed once, continued on request, and refused to a different run.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from glot.errors import InputError, NotNowError
from glot.training.run_state import FINISHED, RUNNING, claim, first_difference, held, read_epochs, read_state, remove
from tests.fixtures.places import ROOT

NEW = {"recipe": {"lr": 1, "model": {"width": 8}}, "start": "", "status": RUNNING}


def claimed(out: Path, *, resume: bool = False, **changes: object) -> dict:
    identity = ("recipe", "start")
    return claim(
        out / "run.json", {**NEW, **changes}, what="run", identity=identity, required=("start",), resume=resume
    )


def test_a_new_folder_is_made_and_claimed(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    assert read_state(out) == {} and read_epochs(out) == []
    assert claimed(out) == NEW == read_state(out)


def test_an_unfinished_run_is_continued_only_on_request(tmp_path: Path) -> None:
    claimed(tmp_path)
    with pytest.raises(InputError, match="holds an unfinished run; --resume goes on"):
        claimed(tmp_path)
    assert claimed(tmp_path, resume=True) == NEW
    remove(tmp_path, ("run.json", "steps"))
    assert claimed(tmp_path) == NEW


def test_a_finished_run_is_returned(tmp_path: Path) -> None:
    claimed(tmp_path, status=FINISHED, metrics={"error": 1.0})
    assert claimed(tmp_path)["metrics"] == {"error": 1.0}


def test_a_different_run_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    claimed(tmp_path)
    with pytest.raises(InputError, match="holds a run with model.width = 8, now 9; choose another --out"):
        claimed(tmp_path, resume=True, recipe={"lr": 1, "model": {"width": 9}}, start="x")


@pytest.mark.parametrize("content", ["", "[]", "3", '{"status": "running"}', '{"start": ""}', '{"sta'])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="not readable; start over with --fresh"):
        claimed(tmp_path, resume=True)


def test_the_first_difference_is_named() -> None:
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "") == "a.c = 2, now 3"
    assert first_difference({"a": 1}, {"a": 1}, "") == ""


HOLDER = """
import sys, time
from pathlib import Path
from glot.training.run_state import held
with held(Path(sys.argv[1]), what="run"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_has_one_holder_and_a_killed_holder_leaves_it_free(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        who = f"{socket.gethostname()}, process {holder.pid}"
        for _ in range(2):
            with pytest.raises(NotNowError) as refused, held(folder, what="run"):
                raise AssertionError
            assert str(refused.value) == (
                f"{folder}: this run is running already ({who}); wait until it has ended, or choose another --out"
            )
        with held(tmp_path / "another", what="run"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    for _ in range(2):
        with ExitStack() as stack:
            stack.enter_context(held(folder, what="run"))
            with pytest.raises(NotNowError, match=f"process {os.getpid()}"):  # nor twice in one process
                stack.enter_context(held(folder, what="run"))
