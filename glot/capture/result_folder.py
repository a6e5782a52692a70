"""The folder with a video's results, which appears when it is complete, and the summary of the results in it."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.location import temporary_of, write_json

SUMMARY = "summary.json"
BODIES, NOBODY = "bodies", "nobody"  # outcomes


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into. It gets the name ``folder`` at the end, or is removed after an error.

    Unfinished folders of killed processes of this machine are removed first.
    """
    unfinished = temporary_of(folder)
    prefix = unfinished.name.removesuffix(str(os.getpid()))  # the same for all processes of this machine
    for old in folder.parent.glob(f"{glob.escape(prefix)}*"):
        if not _is_running(old.name.removeprefix(prefix)):
            shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes the summary of a video's results."""
    write_json(folder / SUMMARY, summary)


def done_before(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished folder; None if the folder is not there.

    InputError if it was made with other settings, or is no result of this command.
    """
    if not folder.exists():
        return None
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        before = summary["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: is no result of this command; choose another --out") from None
    now = json.loads(json.dumps(settings))
    if before != now:
        changed = [name for name in now if before.get(name) != now[name]]
        raise InputError(
            f"{folder}: was made with another {', '.join(changed)}; choose another --out, or delete this folder"
        )
    return dict(summary)


def describe(summary: dict[str, Any]) -> str:
    """The summary as a line of text."""
    people, frames = len(summary["people"]), summary["frames"]
    text = f"{people} {'person' if people == 1 else 'people'}" if people else "nobody found"
    text += f" in {frames} {'frame' if frames == 1 else 'frames'}"
    if summary["left_out"]:
        text += f", {len(summary['left_out'])} short or doubtful tracks left out (see summary.json)"
    return text + (f"; {summary['damage']}" if summary["damage"] else "")


def _is_running(process: str) -> bool:
    """Whether another process of this machine has this number."""
    return process != str(os.getpid()) and process.isdecimal() and Path(f"/proc/{process}").exists()
