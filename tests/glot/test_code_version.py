"""A commit is named only by code that its repository tracks."""

import shutil
import subprocess
from pathlib import Path

import pytest

from glot import code_version as module
from glot.code_version import code_version, commit_of
from tests.fixtures.places import ROOT


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Another project, with our package installed in its virtual environment, which git ignores or does not."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "theirs.py").write_text("1\n")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "--quiet", "-m", "theirs")
    site = tmp_path / ".venv" / "lib" / "site-packages" / "glot"
    site.mkdir(parents=True)
    shutil.copy(ROOT / "glot" / "code_version.py", site)
    return tmp_path


@pytest.mark.parametrize("ignored", [False, True])
def test_a_package_installed_inside_another_repository_names_no_commit(repository: Path, ignored: bool) -> None:
    if ignored:
        (repository / ".gitignore").write_text(".venv/\n")
    installed = repository / ".venv" / "lib" / "site-packages" / "glot" / "code_version.py"
    assert commit_of(installed) == ""
    assert commit_of(repository / "theirs.py") == git(repository, "describe", "--always", "--dirty")


def test_a_changed_checkout_says_so_whatever_a_hook_of_git_names(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = commit_of(repository / "theirs.py")
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    (repository / "theirs.py").write_text("2\n")
    assert commit_of(repository / "theirs.py") == f"{clean}-dirty"


def test_git_is_asked_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code_version.cache_clear()
    first = code_version()
    monkeypatch.setattr(module, "_git", lambda *command: pytest.fail("asked again"))
    assert code_version() == first
    commit = commit_of_here()
    assert not commit or first.endswith(f"({commit})")


def commit_of_here() -> str:
    try:
        return git(ROOT, "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return ""


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(ROOT / "glot" / "code_version.py") == ""
