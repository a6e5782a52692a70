"""The state of a run in its folder: who may write there, what the folder is claimed for, and its epochs' metrics.

A training run keeps it in run.json, a sweep (tuning/) in sweep.json.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from glot.config import from_dict, to_dict
from glot.errors import InputError, NotNowError, raise_if_passing
from glot.file_lock import TakenError, lock
from glot.location import write_json

STATE, EPOCHS, POINTS = "run.json", "epochs.json", "points.jsonl"
LOCK = ".lock"  # stays in the folder: if it were deleted, two processes could hold two files of this name
BEST_BY = "val_pa_mpjpe"  # the metric by which epochs and trials are compared; lower is better
RUNNING, FINISHED = "running", "finished"  # values of a state's "status"


@contextmanager
def held(folder: Path, *, what: str) -> Iterator[None]:
    """Holds the folder of a run, which is made if it is missing: within it, no other process can hold the folder.

    ``what`` is "run" or "sweep", for messages. Raises NotNowError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / LOCK))
        except TakenError as holder:
            who = f" ({holder})" if str(holder) else ""
            raise NotNowError(
                f"{folder}: this {what} is running already{who}; wait until it has ended, or choose another --out"
            ) from None
        yield


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Within it, an error of the operating system that may pass is a NotNowError."""
    try:
        yield
    except OSError as error:
        raise_if_passing(error, error.filename or out)
        raise


def claim(
    file: Path,
    state: dict[str, Any],
    *,
    what: str,
    identity: Sequence[str],
    required: Sequence[str] = (),
    resume: bool,
) -> dict[str, Any]:
    """Claims the folder of ``file`` for a run: returns the state that ``file`` holds, or else writes ``state`` and
    returns it.

    ``what`` is "run" or "sweep", for messages. Runs that differ in an entry named in ``identity`` are different runs.
    Raises InputError when
    - the folder holds a different run;
    - the folder holds an unfinished run, without ``resume``;
    - ``file`` is not readable or lacks one of the ``required`` entries.
    """
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_state(file, state)
        return state
    folder = file.parent
    try:
        old = _with_all_fields(json.loads(file.read_text()))
        differences = [first_difference(old.get(name, ""), state.get(name, ""), name) for name in identity]
        unfinished = old["status"] != FINISHED
        complete = all(name in old for name in required)
    except (ValueError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise InputError(f"{file}: not readable; start over with --fresh, or choose another --out")
    if difference := next(filter(None, differences), ""):
        raise InputError(
            f"{folder}: holds a {what} with {difference}; choose another --out, or start over with --fresh"
        )
    if unfinished and not resume:
        raise InputError(f"{folder}: holds an unfinished {what}; --resume goes on with it, --fresh starts it over")
    return old


def _with_all_fields(state: dict[str, Any]) -> dict[str, Any]:
    """The state with every field of a recipe: earlier code did not write the fields that it did not have."""
    try:
        return {**state, "recipe": json.loads(json.dumps(to_dict(from_dict(state["recipe"]))))}
    except (KeyError, InputError):  # no recipe, or one that this program cannot read; the differences tell
        return state


def remove(folder: Path, names: Sequence[str]) -> None:
    """Deletes the files and folders of these names in ``folder``, where they exist (--fresh)."""
    for name in names:
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Replaces the state in ``file`` in one step."""
    write_json(file, state)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of the training run in ``folder``; {} before there is one."""
    file = folder / STATE
    return json.loads(file.read_text()) if file.is_file() else {}


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """The metrics of a training run's epochs so far, in order."""
    file = folder / EPOCHS
    return json.loads(file.read_text()) if file.is_file() else []


def first_difference(old: Any, new: Any, where: str) -> str:
    """ "field = old value, now new value" for the first field that differs; "" if none does.

    ``where`` is the name of the values. Names of fields are given without their section "recipe" or "identity".
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if found := first_difference(old.get(key), new.get(key), f"{where}.{key}"):
                return found
        return ""
    name = where.lstrip(".").removeprefix("recipe.").removeprefix("identity.")
    return "" if old == new else f"{name} = {old}, now {new}"
