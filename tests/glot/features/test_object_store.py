"""Feature sets in S3 (a local server): the same rows as in a folder, each once, for everything that reads sets."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, open_part, parts, read_manifest, read_table, schema
from glot.features.store import FeatureStore
from glot.location import is_remote, location, write_whole
from pipelines.check_features import main as check
from pipelines.checks.spec import CheckSpec
from pipelines.sets import lease
from pipelines.sets.lease import hold
from pipelines.sets.settings import LOCK, RECORDS
from tests.fixtures.places import ROOT
from tests.fixtures.threedpw import write_sequence


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """s3://features, empty; sets the environment variables that make it reachable."""
    boto3 = pytest.importorskip("boto3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "glot", "AWS_SECRET_ACCESS_KEY": "glot",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    log = subprocess.DEVNULL
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None and time.monotonic() < limit, "the server did not come up"
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="features")
        yield "s3://features"
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def extract(root: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "pipelines" / "extract_features.py"),
        "--dataset",
        "3dpw",
        "--root",
        str(root),
    ]
    command += ["--split", "test", "--out", out, "--workers", "2", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def both(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(dataset, set in S3, the same set in a folder)."""
    folder = tmp_path_factory.mktemp("local")
    for seed in range(3):
        write_sequence(folder / "3dpw", f"walk_{seed:02d}", frames=6, seed=seed)
    for out in (f"{bucket}/some/where", str(folder)):
        ended = extract(folder / "3dpw", out)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "3dpw", location(f"{bucket}/some/where") / "3dpw" / "test", folder / "3dpw" / "test"


def test_the_rows_are_those_of_a_folder_and_a_second_run_adds_none(
    both: tuple[Path, Path, Path], bucket: str, tmp_path: Path
) -> None:
    root, remote, local = both
    assert is_remote(remote) and not is_remote(local)
    assert read_table(remote).equals(read_table(local))
    assert read_manifest(remote).parts == read_manifest(local).parts
    before = {path.name: path.stat().st_mtime for path in remote.glob("part-*")}
    ended = extract(root, f"{bucket}/some/where")
    assert ended.returncode == 0 and "all of them done before" in ended.stdout, ended.stdout + ended.stderr
    assert {path.name: path.stat().st_mtime for path in remote.glob("part-*")} == before
    for name in before:  # as if somebody had removed them
        (remote / name).unlink()
    ended = extract(root, f"{bucket}/some/where")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert read_table(remote).equals(read_table(local))
    assert len(list(remote.glob("part-*"))) == len(before)
    assert {path.name for path in (remote / RECORDS).rglob("*") if path.is_file()} == {
        path.name for path in (local / RECORDS).rglob("*") if path.is_file() and path.name != LOCK
    }  # nothing of the work is left, nor the note that says that a run is at work
    ended = extract(root, f"{bucket}/some/where", "--preprocessing", "reference")
    assert ended.returncode == 2 and "started with crop" in ended.stderr


def test_readers_of_sets_read_them_there(
    both: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, remote, local = both
    assert check(CheckSpec(folder=remote)) == 0 and "fine" in capsys.readouterr().out
    here, there = (FeatureStore.open(folder, cache=tmp_path) for folder in (local, remote))
    assert here.tracks == there.tracks and (here.features == there.features).all()
    with pytest.raises(InputError, match="no such feature folder"):
        read_manifest(remote.parent / "train")


def test_a_set_is_whole_or_not_there(bucket: str) -> None:
    folder = location(f"{bucket}/small")
    write_whole(folder / MANIFEST, b"{}")
    with pytest.raises(InputError, match="not a manifest of this project"):
        read_manifest(folder)
    manifest = Manifest("3dpw", "test", 1, 1, {}, {}, {}, [{"name": "part-a.parquet", "rows": 1, "bytes": 7}])
    with pytest.raises(InputError, match="missing or not of the size"):
        parts(folder, manifest)
    write_whole(folder / "part-a.parquet", b"garbage")
    with pytest.raises(InputError, match="Parquet"), open_part(parts(folder, manifest)[0], schema()):
        pass


def test_a_second_run_is_refused_and_a_dead_one_is_replaced(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = location(f"{bucket}/held")
    with (
        hold(folder / "lock", folder),
        pytest.raises(InputError, match=f"another extraction is writing it .*process {os.getpid()}"),
        hold(folder / "lock", folder),
    ):
        pass
    assert not (folder / "lock").exists()
    monkeypatch.setattr(lease, "EXPIRE_SECONDS", 2)
    write_whole(folder / "lock", json.dumps({"run": "dead", "time": time.time()}).encode())
    with hold(folder / "lock", folder):
        assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()


def test_unknown_kinds_of_places_are_refused_in_one_line(tmp_path: Path) -> None:
    assert location(tmp_path) == tmp_path and location("features/a") == Path("features/a")
    with pytest.raises(InputError, match="no such kind of place"):
        location("nowhere://bucket/x")
