"""What a Ray job takes along; cluster/submit.py measures it, refuses before the upload, and follows the job."""

import asyncio
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from glot.features.backbones.backbone import load_backbone
from glot.features.schema import read_manifest
from tests.fixtures.places import ROOT
from tests.fixtures.threedpw import write_sequence

PACKAGES = ("glot", "pipelines", "tuning")
SUBMIT = ROOT / "cluster" / "submit.py"


@pytest.fixture(scope="module")
def submit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submit", SUBMIT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout as somebody has it who followed the README: links to its folders, and what its commands made."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (".rayignore", ".gitignore", "pyproject.toml", "README.md", *PACKAGES, "tests", "docs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    for name in (
        "data/3dpw/imageFiles/a/image_00000.jpg", "features/3dpw/train/part-0000.parquet", "body/SMPL_NEUTRAL.pkl",
        "runs/first/best/model.safetensors", "bodies/walk/overlay.mp4", "videos/walk.mp4", "glot.egg-info/PKG-INFO",
        ".venv/bin/python", ".mypy_cache/x", ".env", "notes.txt", "mlflow.db",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(300_000))
    for name in ("space.yaml", "my_recipe.py"):
        (folder / name).write_text("\n")
    return folder


def packed_by_ray(folder: Path, archive: Path) -> dict[str, int]:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    excludes = get_runtime_env_default_excludes()
    quiet = logging.getLogger("quiet")
    create_package(str(folder), archive, include_gitignore=True, excludes=excludes, logger=quiet)
    with zipfile.ZipFile(archive) as opened:
        return {entry.filename: entry.file_size for entry in opened.infolist()}


def test_a_job_of_a_checkout_is_its_code(checkout: Path, tmp_path: Path) -> None:
    packed = packed_by_ray(checkout, tmp_path / "job.zip")
    assert (tmp_path / "job.zip").stat().st_size < 10e6
    code = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert code <= packed.keys()
    assert {"glot/assets/open_body.npz", "pipelines/assets/motions.npz", "space.yaml", "my_recipe.py"} <= packed.keys()
    others = {name for name in packed if not name.startswith((*(f"{p}/" for p in PACKAGES), "benchmarks/"))}
    assert others == {"pyproject.toml", "space.yaml", "my_recipe.py"}
    assert not [name for name in packed if name.endswith((".safetensors", ".pyc", ".mp4"))]


def test_the_size_is_that_of_the_file_that_ray_packs(submit: ModuleType, checkout: Path, tmp_path: Path) -> None:
    (checkout / "glot2").mkdir()
    (checkout / ".rayignore").unlink()
    (checkout / ".rayignore").write_text("/tests\n/docs\n/glot\n")
    (checkout / "körper").mkdir()
    (checkout / "körper" / "größe.txt").write_text("1,80 m")
    packed = packed_by_ray(checkout, tmp_path / "job.zip")
    files = submit.files_to_send(checkout)
    assert files == packed and "glot2/" in files and ".env" in files
    assert submit.package_bytes(files) == (tmp_path / "job.zip").stat().st_size


def folder_of(folder: Path, size: int) -> Path:
    (folder / "data" / "clip").mkdir(parents=True)
    (folder / "run.py").write_text("\n")
    with (folder / "data" / "clip" / "big.bin").open("wb") as file:
        file.truncate(size)
    return folder


def test_what_ray_would_refuse_is_refused_before_it_is_sent(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "submit", lambda *given: pytest.fail("something was sent"))
    folder = folder_of(tmp_path, 100 * 1024**2)
    with pytest.raises(SystemExit) as ended:
        submit.main(["--working-dir", str(folder), "--", "python", "run.py"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: 2 files, 104.9 MB of {folder} (the largest: data/clip/ 104.9 MB")
    assert "Ray takes 104.9 MB at most; name in" in said.err and ".rayignore what the job does not need" in said.err


def test_a_large_job_is_sent_with_a_warning(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(submit, "submit", lambda *given: sent.append(given) or (None, "job"))
    folder = folder_of(tmp_path, 11_000_000)
    command = ["python", "run.py", "--name", "a b", "--", "x"]
    code = submit.main(
        ["--no-wait", "--env", "A=b=c", "--address", "http://h:1", "--working-dir", str(folder), "--", *command]
    )
    assert code == 0 and sent == [("http://h:1", folder, {"A": "b=c"}, command)]
    said = capsys.readouterr()
    assert "takes along 2 files, 11.0 MB" in said.out and "warning: more than 10 MB" in said.err
    (folder / ".rayignore").write_text("/data\n")
    submit.main(["--no-wait", "--working-dir", str(folder), "--", *command])
    assert capsys.readouterr().err == ""


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("\n")
    command = [sys.executable, str(SUBMIT), "--address", "http://127.0.0.1:9", "--working-dir", str(tmp_path)]
    ended = subprocess.run([*command, "--", "python", "run.py"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 75 and "Traceback" not in ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: http://127.0.0.1:9: the job cannot be submitted now (")


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [("SUCCEEDED", 0, 0), ("FAILED", 75, 75), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_the_exit_code_is_the_commands(submit: ModuleType, status: str, code: int | None, wanted: int) -> None:
    info = SimpleNamespace(
        submission_id="job", status=SimpleNamespace(value=status), driver_exit_code=code, message="why"
    )
    assert submit.exit_code(info) == wanted


class Cluster:
    """A client whose first connection breaks in the middle of the log."""

    def __init__(self) -> None:
        self.connections = 0

    async def tail_job_logs(self, job: str) -> Any:
        self.connections += 1
        yield "one\ntw"
        if self.connections == 1:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "o\nthree"

    def get_job_info(self, job: str) -> Any:
        status = SimpleNamespace(value="FAILED", is_terminal=lambda: True)
        return SimpleNamespace(submission_id=job, status=status, driver_exit_code=3, message="")


def test_a_broken_connection_costs_no_line_of_the_log(
    submit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "PAUSE", 0)
    assert asyncio.run(submit.follow(Cluster(), "job")) == 3
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that wants a token: a Ray of one node, as the README starts it, on free ports."""
    folder = tempfile.mkdtemp(prefix="glot-ray-", dir="/tmp")  # short: sockets have paths of at most 107 bytes
    port, dashboard, agent = free_ports(3)
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "GLOT_HOME", "GLOT_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # a job's python is the head's
    command = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--object-store-memory", "200000000"]
    command += ["--port", str(port), "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    with (Path(folder) / "head.log").open("wb") as log:
        started = subprocess.Popen(
            [*command, "--temp-dir", folder],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "token",
                "RAY_worker_niceness": "0",
                "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
            },
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            limit = time.monotonic() + 90
            while time.monotonic() < limit and started.poll() is None:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", dashboard)) == 0:
                        break
                time.sleep(0.5)
            assert started.poll() is None, (Path(folder) / "head.log").read_text()[-2000:]
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_job_finds_its_networks_on_the_node_and_ends_with_the_commands_code(head: str, tmp_path: Path) -> None:
    """The job's copy has no networks: the README's head runs in a virtual environment in which glot is installed."""
    for seed in range(2):
        write_sequence(tmp_path / "data" / "3dpw", f"walk_{seed:02d}", frames=6, seed=seed)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        submitted = [sys.executable, str(SUBMIT), "--address", head, "--env", f"GLOT_HOME={tmp_path}", "--", *command]
        return subprocess.run(submitted, capture_output=True, text=True, timeout=300)

    extract = ("python", "pipelines/extract_features.py", "--dataset", "3dpw", "--split", "test")
    ended = run(*extract)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
    size = re.search(r"takes along (\d+) files, ([\d.]+) MB", ended.stdout)
    assert size and float(size[2]) < 10
    manifest = read_manifest(tmp_path / "features" / "3dpw" / "test")
    assert manifest.rows > 0 and manifest.backbone["weights"] == "resnet50_open.safetensors"
    assert manifest.backbone["hash"] == load_backbone().hash
    assert "(" not in manifest.code_version, "the code ran from the job's copy, which no repository tracks"

    random = run(*extract, "--weights", "random", "--out", str(tmp_path / "random"))
    assert random.returncode == 0, (random.stdout + random.stderr)[-4000:]
    backbone = json.loads((tmp_path / "random" / "3dpw" / "test" / "manifest.json").read_text())["backbone"]
    assert (backbone["weights"], backbone["seed"]) == ("random", 0)

    where = "import glot.shipped as s; print('found', s.shipped_folder('glot_open'), s.ASSETS)"
    plain = ["ray", "job", "submit", "--address", head, "--working-dir", str(ROOT), "--", "python", "-c", where]
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    ended = subprocess.run(plain, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    found = re.search(r"^found (\S+) (\S+)$", ended.stdout, re.MULTILINE)
    assert found and "working_dir_files" in found[2] and not found[1].startswith(found[2]), ended.stdout + ended.stderr

    mistaken = run(*extract, "--weights", "gone.pth")
    assert mistaken.returncode == 2 and "--weights gone.pth: there is no such file" in mistaken.stdout
