"""Extraction under faults: a lost node, killed workers, a full disk. The rows stay the same."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from glot.features.schema import MANIFEST, read_manifest, read_table
from pipelines.extract_features import main
from pipelines.extraction.ledger import RECORDS
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures.places import ROOT
from tests.fixtures.threedpw import write_sequence

torch.set_num_threads(1)
SEQUENCES = 6


@pytest.fixture(scope="module")
def ray(local_ray: None) -> None:
    """Only for tests that do not start a cluster themselves."""


def extract(root: Path, out: Path) -> int:
    return main(ExtractSpec(dataset="3dpw", root=root, out=out, split="test", workers=2))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray: None) -> tuple[Path, Path]:
    """(root, out) of an extraction without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for seed in range(SEQUENCES):
        write_sequence(folder / "3dpw", f"walk_{seed:02d}", frames=10, seed=seed)
    assert extract(folder / "3dpw", folder / "features") == 0
    return folder / "3dpw", folder / "features"


def assert_same(out: Path, wanted: Path) -> None:
    found, expected = (folder / "3dpw" / "test" for folder in (out, wanted))
    assert read_table(found).equals(read_table(expected))
    ours, theirs = read_manifest(found), read_manifest(expected)
    assert (ours.parts, ours.sources, ours.rows, ours.tracks) == (
        theirs.parts, theirs.sources, theirs.rows, theirs.tracks,
    )  # fmt: skip
    assert not ours.skipped and not list(found.glob(".part-*"))


CLUSTER = """
import json, os, sys, threading, time
from pathlib import Path
sys.path.insert(0, {root!r})
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "object_store_memory": 100_000_000}})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
os.environ["RAY_ADDRESS"] = cluster.address
records = Path({out!r}) / "3dpw" / "test" / {records!r}

def remove():
    while not [path for path in records.glob("walk_*.json")]:
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    print("REMOVED", len(list(records.glob("walk_*.json"))), flush=True)

threading.Thread(target=remove, daemon=True).start()
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
code = main(ExtractSpec(dataset="3dpw", root=Path({data!r}), out=Path({out!r}), split="test", workers=3))
print("ENDED", code, flush=True)
cluster.head_node.kill_all_processes(check_alive=False)
nodes[1].kill_all_processes(check_alive=False)
os._exit(0)  # cluster.shutdown() would wait for the lost node
"""


@pytest.mark.slow
def test_a_lost_node_costs_no_row(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    data, wanted = undisturbed
    code = CLUSTER.format(root=str(ROOT), out=str(tmp_path), data=str(data), records=RECORDS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert "ENDED 0" in ended.stdout, (ended.stdout + ended.stderr)[-3000:]
    removed = int(ended.stdout.split("REMOVED")[1].split()[0])
    assert 1 <= removed < SEQUENCES, "the node was lost before the end"
    assert_same(tmp_path, wanted)


def test_a_killed_worker_costs_no_row(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    data, wanted = undisturbed
    records, killed = tmp_path / "3dpw" / "test" / RECORDS, list[str]()

    def kill() -> None:
        limit = time.monotonic() + 120
        while len(killed) < 2 and time.monotonic() < limit:
            for note in records.glob("*.try-*"):
                done = (records / f"{note.name.partition('.try-')[0]}.json").is_file()
                text = "" if done else note.read_text()
                if text and text not in killed and len(killed) < 2:
                    os.kill(int(text.split()[0]), signal.SIGKILL)
                    killed.append(text)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    assert extract(data, tmp_path) == 0
    killer.join()
    assert len(killed) == 2
    assert_same(tmp_path, wanted)


def command(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process that starts a local Ray."""
    line = [sys.executable, str(ROOT / "pipelines" / "extract_features.py"), "--dataset", "3dpw", "--split", "test"]
    line += ["--root", str(root), "--out", str(out), "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB; skipped where mounting is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_extraction_continues_with_more_space(
    undisturbed: tuple[Path, Path], small_disk: Path
) -> None:
    data, wanted = undisturbed
    ended = command(data, small_disk)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert re.search("error: .*No space left on device.*what is done is kept, run the same command again", ended.stderr)
    folder = small_disk / "3dpw" / "test"
    assert not (folder / MANIFEST).exists()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    for record in (folder / RECORDS).glob("walk*.json"):
        assert json.loads(record.read_text())["part"]["name"] in {path.name for path in before}
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert command(data, small_disk).returncode == 0
    assert_same(small_disk, wanted)
