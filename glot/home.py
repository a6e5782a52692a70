"""Where a command looks when an option is left out: data/, body/, features/ and runs/ in $GLOT_HOME.

If GLOT_HOME is not set, it is the current folder. One message names everything that is missing there, with the commands
that make it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glot.errors import InputError

BODY_FILES = ("SMPL_NEUTRAL.pkl", "SMPL_NEUTRAL.npz")


def home() -> Path:
    """$GLOT_HOME, else the current folder (as a relative path, so that messages stay short)."""
    return Path(os.environ.get("GLOT_HOME", "")).expanduser()


def data_folder() -> Path:
    """Datasets: data/3dpw, data/human36m, ..., and data/sample, the rendered one."""
    return home() / "data"


def features_folder() -> Path:
    """Feature sets: features/DATASET/SPLIT."""
    return home() / "features"


def runs_folder() -> Path:
    """Training runs, sweeps and results: a folder each."""
    return home() / "runs"


def body_folder() -> Path | None:
    """body/ if it holds SMPL, else None, which stands for the open body."""
    folder = home() / "body"
    return folder if any((folder / name).is_file() for name in BODY_FILES) else None


def body_for(given: Path | None, made_with: Mapping[str, Any]) -> Path | None:
    """The body model for features. ``made_with`` = {open, ...}, the body of their manifest.

    - ``given`` (--body), if it is not None;
    - None, which stands for the open body, for features that were made with the open body;
    - else body/ in the home folder, or None if there is no SMPL in it.
    """
    if given is not None or made_with.get("open"):
        return given
    return body_folder()


def missing_error(things: Sequence[tuple[str, str]]) -> InputError:
    """One error for all missing ``things``: pairs of what is missing and the command that makes it."""
    lines = [f"{what}\n    {command}" for what, command in things]
    if len(lines) == 1:
        return InputError(lines[0])
    return InputError(
        "\n  ".join([f"{len(lines)} things are missing:", *(line.replace("\n", "\n  ") for line in lines)])
    )


def check_job_paths(paths: Mapping[str, Path | None]) -> None:
    """InputError in a Ray job where one of ``paths`` (option -> path) is relative, naming all of them.

    A submitted job runs in a copy of the folder that it was submitted from, and the copy is deleted afterwards.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    relative = [f"{option} {path}" for option, path in paths.items() if path is not None and not path.is_absolute()]
    if relative:
        environment = json.dumps({"env_vars": {"GLOT_HOME": "/a/folder/all/nodes/see"}})
        raise InputError(
            f"{', '.join(relative)}: must be absolute in a Ray job, which runs in a temporary copy of your folder. "
            f"Give absolute paths, or set GLOT_HOME for all of them:\n"
            f"    ray job submit --runtime-env-json '{environment}' ..."
        )
