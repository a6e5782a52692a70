"""How Ray is started on one machine: at the normal priority, quietly, and beside another Ray of the same user."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray

from glot.training import ray_session
from tests.fixtures.places import ROOT

ASK = """
import json, os
from glot.training.ray_session import connect
connect(cpus=1, training=True)
import ray
from ray.util.state import get_actor

@ray.remote(num_cpus=0)
class Asks:
    def alive(self, actor):
        state = get_actor(actor, timeout=10)  # as Ray Train's cleaner asks
        return bool(state) and state.state != "DEAD"
    def nice(self):
        return os.nice(0)

@ray.remote(num_cpus=0)
class Starts:
    def asks(self):
        asks = Asks.options(lifetime="detached", name="asks", namespace="test").remote()
        return ray.get([asks.alive.remote(ray.get_runtime_context().get_actor_id()), asks.nice.remote()])

print(json.dumps(ray.get(Starts.remote().asks.remote())))
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ray.init is called with; nothing is started."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session, "_print_notice_to_nobody", lambda: None)
    monkeypatch.setattr(ray, "init", lambda *names, **options: calls.append(options))
    environment = {name: value for name, value in os.environ.items() if name not in ray_session.LOCAL}
    monkeypatch.setattr(os, "environ", environment)
    return calls


def test_a_cluster_that_is_joined_keeps_its_own_settings(started: list[dict[str, Any]]) -> None:
    os.environ["RAY_ADDRESS"] = "auto"
    assert ray_session.connect(training=True)
    assert not {"runtime_env", "dashboard_port", "include_dashboard"} & set(started[0])
    assert not set(ray_session.LOCAL) & set(os.environ)


def test_two_trainings_on_one_machine_have_two_dashboards(started: list[dict[str, Any]]) -> None:
    assert ray_session.connect(training=True) and ray_session.connect(training=True) and ray_session.connect()
    ports = [options["dashboard_port"] for options in started[:2]]
    addresses = [options["runtime_env"]["env_vars"]["RAY_API_SERVER_ADDRESS"] for options in started[:2]]
    assert len(set(ports)) == 2 and addresses == [f"http://127.0.0.1:{port}" for port in ports]
    assert started[2]["include_dashboard"] is False and "runtime_env" not in started[2]


POOL = """
import logging, os, sys
from glot.training.ray_session import connect
connect(cpus=1)
import ray.data
logging.getLogger("ray.data").setLevel(logging.ERROR)
context = ray.data.DataContext.get_current()
context.enable_progress_bars = context.print_on_execution_start = False

class Work:
    def __call__(self, row):
        return {"nice": os.nice(0)}

rows = ray.data.from_items([1]).map(Work, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.5).take_all()
print(rows[0]["nice"])
print("a word on stderr", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_pool_of_ray_data_prints_nothing_and_runs_at_the_priority_of_the_command() -> None:
    ended = subprocess.run([sys.executable, "-c", POOL], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert ended.stdout.split("\n") == ["starting a local Ray", str(os.nice(0)), ""], ended.stdout + ended.stderr
    assert ended.stderr == "a word on stderr\n"


@pytest.mark.slow
def test_a_training_beside_another_ray_of_the_user_asks_its_own_dashboard() -> None:
    """The workers run at the priority of the command, too, and nothing but the command's own words is printed."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as folder:  # a socket's path must be short
        environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        other = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port=6487"]
        with subprocess.Popen(
            [*other, "--dashboard-port=8387", "--num-cpus=1", "--object-store-memory=100000000"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as head:  # fmt: skip
            try:
                assert head.stdout is not None
                assert any("Ray runtime started" in line for line in head.stdout)
                ended = subprocess.run(
                    [sys.executable, "-c", ASK], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180
                )
            finally:
                head.terminate()
                head.communicate(timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    assert lines[0] == "starting a local Ray" and len(lines) == 2, lines
    assert json.loads(lines[1]) == [True, os.nice(0)]
