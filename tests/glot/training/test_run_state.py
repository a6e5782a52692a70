"""A folder belongs to one run: it is claimed once, continued on request, and refused to a different run."""

from pathlib import Path

import pytest

from glot.errors import InputError
from glot.training.run_state import FINISHED, RUNNING, claim, first_difference, read_epochs, read_state, remove

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
