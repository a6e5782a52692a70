"""The wheel carries everything: modules, assets and commands, and they run from it where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fixtures.places import ROOT

PACKAGES = ("glot", "pipelines", "tuning")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy of what a commit would hold: nothing is written into the checkout, nothing that lies about is packed.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    source = folder / "source"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name.startswith(PACKAGES) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and "setuptools" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("the package index is out of reach")
    assert not built.returncode, built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_module_and_asset(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith(PACKAGES)}
    source = wheel.parent / "source"
    wanted = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and "egg-info" not in str(path)
    }
    assert {name for name in packed if ".dist-info" not in name} == wanted


def test_commands_run_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed without a checkout: help, where the code comes from, and a stage of the demo with its assets."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    installed = subprocess.run(command, capture_output=True, text=True)
    assert not installed.returncode, installed.stderr
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert not ended.returncode, ended.stderr
        return ended.stdout

    assert str(site) in run(sys.executable, "-c", "import glot, pipelines, tuning; print(glot.__file__)")
    scripts = sorted((site / "bin").glob("glot-*"))
    assert len(scripts) >= 10
    for script in scripts:
        assert "Usage:" in run(sys.executable, str(script), "--help")
    made = run(sys.executable, "-m", "pipelines.make_sample", "--out", "sample", "--sequences", "2")
    assert (work / "sample" / "sample.json").is_file(), made
