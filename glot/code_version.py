"""The code that runs in; its version out, as manifests and records name it."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SECONDS = 10  # time limit of git


@cache
def code_version() -> str:
    """The package's version, and the commit if the package runs from its own checkout. It is asked for once a process.

    A package that is installed inside another repository, for example in a virtual environment there, has no commit.
    """
    try:
        release = version("glot")
    except PackageNotFoundError:
        release = "not installed"
    commit = commit_of(Path(__file__))
    return f"{release} ({commit})" if commit else release


def commit_of(file: Path) -> str:
    """The commit of the repository that tracks ``file``, with "-dirty" if files of it changed; "" if none tracks it."""
    if not _git(file.parent, "ls-files", "--error-unmatch", "--", file.name):
        return ""
    return _git(file.parent, "describe", "--always", "--dirty")


def _git(folder: Path, *command: str) -> str:
    """What git prints in the folder; "" if it fails or there is no git."""
    # Inside a hook of git these name a repository, whatever the folder is.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()
