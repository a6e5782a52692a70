"""What a cluster can hold is known before anything starts: on real nodes, small, stopped, at zero, and growing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from glot.errors import InputError, NotNowError
from glot.training.cluster import nodes, preflight
from glot.training.cluster.preflight import available_slots, check_room, choose_device, free_cores_each, say_what_waits
from glot.training.spec import TrainSpec
from tests.fixtures.autoscaling import autoscaling_cluster
from tests.fixtures.places import ROOT

CORE = {"CPU": 1}


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that says which nodes the cluster has; it cannot grow, and Ray is not needed."""

    def nodes_are(*there: dict[str, float], free: list[dict[str, float]] | None = None, grows: bool = False) -> None:
        monkeypatch.setattr(nodes, "resources", lambda: list(there))
        monkeypatch.setattr(nodes, "answering_resources", lambda: list(there))
        monkeypatch.setattr(nodes, "free_resources", lambda: list(there) if free is None else free)
        monkeypatch.setattr(nodes, "can_grow", lambda: grows)
        for name in ("FREE_SECONDS", "NODE_SECONDS"):
            monkeypatch.setattr(preflight, name, 0.01)

    return nodes_are


def test_a_worker_is_on_one_node(has: Any) -> None:
    has({"CPU": 1}, {"CPU": 1})
    check_room(2, CORE)
    with pytest.raises(InputError, match="--workers 1: the cluster has room for 0 workers with 2 cores each .2 CPU"):
        check_room(1, {"CPU": 2})
    with pytest.raises(InputError, match="--workers 3: .* room for 2 workers with 1 core each .* ask for fewer$"):
        check_room(3, CORE)
    has({"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 2})
    check_room(3, {"GPU": 1})
    with pytest.raises(InputError, match="--gpus 4: the cluster has room for 3 .*, or use --workers N on CPUs"):
        check_room(4, {"GPU": 1})


def test_workers_share_the_cores_that_are_free(has: Any, capsys: pytest.CaptureFixture[str]) -> None:
    has({"CPU": 0}, {"CPU": 8}, {"CPU": 8})
    assert [free_cores_each(workers) for workers in (1, 2, 3, 4, 16)] == [8, 8, 4, 4, 1]
    has({"CPU": 8}, {"CPU": 8}, free=[{"CPU": 8}, {"CPU": 3}])
    assert free_cores_each(2) == 4 and free_cores_each(1) == 8
    say_what_waits(2, {"CPU": 3})
    assert not capsys.readouterr().out
    has({"CPU": 2}, free=[{}])
    assert free_cores_each(1) == 2
    say_what_waits(1, {"CPU": 2})
    assert capsys.readouterr().out == "waiting for room for 1 x 2 cores, which other work occupies\n"


def test_after_a_loss_only_what_fits_one_node_counts(has: Any) -> None:
    has({"CPU": 1}, {"CPU": 3})
    assert available_slots(2, {"CPU": 2}) == 1 and available_slots(9, CORE) == 4


@pytest.mark.parametrize(
    ("options", "gpus", "chosen", "said"),
    [
        ({}, 4, 1, "training on 1 of 4 GPUs (--gpus N takes N of them, --gpus 0 the CPU)\n"),
        ({}, 0, 0, ""),
        ({"gpus": 0}, 4, 0, ""),
        ({"gpus": 3}, 4, 3, ""),
        ({"workers": 2}, 4, 0, ""),
    ],
)
def test_a_gpu_is_taken_where_the_user_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    gpus: int,
    chosen: int,
    said: str,
) -> None:
    monkeypatch.setattr(preflight, "usable_gpus", lambda: gpus)
    spec = choose_device(TrainSpec(features=Path("f"), **options))
    assert spec.gpus == chosen and capsys.readouterr().out == said


def run(program: str, **environment: str) -> list[Any]:
    """What a program of its own prints: its lines, and what is after RESULT, as JSON."""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    said, _, result = ended.stdout.partition("RESULT ")
    return [said.splitlines(), json.loads(result.splitlines()[0])]


SMALL_NODES = """
import json, os, signal, time
from pathlib import Path
from glot.training.cluster import session
from ray.cluster_utils import Cluster

store = {"object_store_memory": 80_000_000}
made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
small = [made.add_node(num_cpus=1, **gpus, **store) for gpus in ({}, {"num_gpus": 2})]
os.environ["RAY_ADDRESS"] = made.address
from glot.training.cluster import nodes, preflight
from glot.training.cluster.preflight import available_slots, check_nodes, check_room, free_cores_each, usable_gpus
import ray

preflight.connect(workers=2, gpus=0)
begun, errors = time.monotonic(), []

def error_of(call, *arguments):
    try:
        return call(*arguments)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"

for workers, cores in ((1, 2), (2, 1), (3, 1)):
    errors.append(error_of(check_room, workers, {"CPU": cores}))
errors.append(error_of(check_room, 3, {"GPU": 1}))
seconds = time.monotonic() - begun
counts = [nodes.can_grow(), free_cores_each(2), available_slots(2, {"CPU": 1}), usable_gpus()]

# Ray agrees: of three shares of 0.6 GPU, two run at a time on two GPUs. Each runs until it may end.
place, shares = Path(OUT), Path(OUT + "-shares")
shares.mkdir()

@ray.remote(num_cpus=0, num_gpus=0.6)
def share(name):
    (shares / name).touch()
    while not (shares / "end").exists():
        time.sleep(0.1)

def running():
    return len(list(shares.iterdir()))

asked = [share.remote(str(number)) for number in range(3)]
patience = time.monotonic() + 60
while running() < 2 and time.monotonic() < patience:
    time.sleep(0.1)
time.sleep(3)
at_a_time = running()
(shares / "end").touch()
ray.get(asked, timeout=60)

check_nodes(place, place)
preflight.LOOK_SECONDS = 8.0
raylets = [node.all_processes["raylet"][0].process.pid for node in small]
for raylet in raylets:
    os.kill(raylet, signal.SIGSTOP)
begun = time.monotonic()
silent = error_of(check_nodes, place, place)
looked = time.monotonic() - begun
for raylet in raylets:
    os.kill(raylet, signal.SIGCONT)
found = [errors, seconds, counts, at_a_time, silent, looked, list(map(str, place.iterdir()))]
print("RESULT", json.dumps(found), flush=True)
for node in (*small, made.head_node):
    node.kill_all_processes(check_alive=False)
os._exit(0)
"""


@pytest.mark.slow
def test_small_nodes_and_nodes_that_do_not_answer(tmp_path: Path) -> None:
    said, found = run(SMALL_NODES.replace("OUT", repr(str(tmp_path))))
    errors, seconds, counts, at_a_time, silent, looked, left = found
    on_nodes = "(2 CPU cores and 2 GPUs on 3 nodes)"
    assert errors == [
        f"InputError: --workers 1: the cluster has room for 0 workers with 2 cores each {on_nodes}; ask for fewer",
        None,
        f"InputError: --workers 3: the cluster has room for 2 workers with 1 core each {on_nodes}; ask for fewer",
        f"InputError: --gpus 3: the cluster has room for 2 workers with 1 GPU each {on_nodes}; ask for fewer, or use "
        "--workers N on CPUs",
    ]
    assert seconds < 5 and counts == [False, 1, 2, 2 if torch.cuda.is_available() else 0]
    assert (
        said == []
        if torch.cuda.is_available()
        else said == ["training on the CPU: Ray finds 2 GPUs, but torch does not; install torch's CUDA build"]
    )
    assert at_a_time == 2
    assert silent.startswith("NotNowError: after 8 s there is no answer from ") and "\n" not in silent
    assert looked < 15, "both nodes are asked at the same time"
    assert not left


GROWING = """
import json
from glot.training.cluster import nodes, preflight
from glot.training.cluster.preflight import available_slots, check_room, free_cores_each
import ray

preflight.connect(workers=3, gpus=0)
grows = nodes.can_grow()
nodes.GROW_SECONDS = 90
check_room(3, {"CPU": 1})
counts = [sorted(node.get("CPU", 0) for node in nodes.resources()), free_cores_each(3)]
nodes.GROW_SECONDS = preflight.NODE_SECONDS = 3
try:
    check_room(1, {"CPU": 16})
except RuntimeError as error:
    late = f"{type(error).__name__}: {error}"
slots = available_slots(9, {"CPU": 1})
groups = [group["state"] for group in ray.util.placement_group_table().values()]
print("RESULT", json.dumps([grows, counts, late, slots, groups]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, True])
def test_a_cluster_at_zero_nodes_is_asked_to_grow(second: bool) -> None:
    with autoscaling_cluster(second=second) as address:
        said, found = run(GROWING, RAY_ADDRESS=address)
    assert said[0] == (
        "the cluster has 0 CPU cores and 0 GPUs on 1 node; asking it for nodes for 3 workers with 1 core each"
    )
    grows, counts, late, slots, groups = found
    assert grows and counts == [[0, 2, 2], 1] and slots == 4
    assert late.startswith("NotNowError: --workers 1: the cluster has room for 0 workers with 16 cores each")
    assert set(groups) == {"REMOVED"}, "nothing is left that would hold nodes"


def test_a_cluster_that_has_not_grown_is_not_now(has: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    has({"CPU": 1}, grows=True)
    monkeypatch.setattr(nodes, "grown_resources", lambda count, claim: [{"CPU": 1}])
    with pytest.raises(NotNowError, match="--workers 2: .* it has not grown; try again later"):
        check_room(2, CORE)
