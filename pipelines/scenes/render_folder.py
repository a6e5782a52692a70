"""Checks what a folder of renders holds, so that an unfinished rendering can be continued in it.

Such a folder has a JSON file with the settings that decide its content.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glot.errors import InputError
from glot.location import write_json


def read_settings(file: Path, folder: Path) -> dict[str, Any]:
    """The settings in ``file`` of ``folder``. Raises InputError if they cannot be read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{file}: missing or damaged; remove {folder} and run the command again")
    return found


def check_settings(
    folder: Path,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    what: str,
    earlier: Mapping[str, Any] | None = None,
) -> None:
    """InputError if ``folder`` holds ``what`` ("a sample", "renders") with other settings than ``wanted``.

    ``earlier`` has the values of settings that did not exist when older folders were made.
    """
    for key, value in wanted.items():
        held = found.get(key, (earlier or {}).get(key))
        if held != value:
            raise InputError(
                f"{folder}: holds {what} with {key}={held}, not {value}; choose another --out, or delete this folder"
            )


def check_unused(folder: Path, *, what: str) -> None:
    """InputError if ``folder`` is a file or is not empty. The message says that it does not hold ``what``."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and does not hold {what}; choose a new or empty folder for --out")


def write_settings(file: Path, settings: Mapping[str, Any], *, indent: int | None = None) -> None:
    write_json(file, settings, indent=indent)
