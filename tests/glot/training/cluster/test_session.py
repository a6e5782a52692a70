"""How Ray is started on one machine: at the normal priority, quietly, and beside another Ray of the same user."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import ray

from glot.errors import InputError
from glot.training.cluster import session
from tests.fixtures.another_ray import another_ray
from tests.fixtures.places import ROOT

ASK = """
import json, os
from glot.training.cluster.session import connect
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
    monkeypatch.setattr(session, "_print_notice_to_nobody", lambda: None)
    monkeypatch.setattr(ray, "init", lambda *names, **options: calls.append(options))
    own = {*session.LOCAL, "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_ADDRESS"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    monkeypatch.setattr(os, "environ", environment)
    return calls


@pytest.mark.parametrize(
    ("address", "job", "told"),
    [
        ("10.0.0.7:6379", {}, {"RAY_ADDRESS": "10.0.0.7:6379"}),
        ("127.0.0.1:6379", {}, {"RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:6379"}),  # other nodes know that one
        ("10.0.0.7:6379", {"runtime_env": {"working_dir": "gcs://x.zip"}}, {"RAY_ADDRESS": "10.0.0.7:6379"}),
        ("10.0.0.7:6379", {"runtime_env": {"env_vars": {"RAY_ADDRESS": "10.0.0.7:6379"}}}, None),  # Ray takes only one
        ("ray://10.0.0.7:10001", {}, None),
    ],
)
def test_processes_of_a_cluster_know_which_it_is(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str, job: dict[str, Any], told: Any
) -> None:
    """With two Rays on a machine, they would not know; the cluster's other settings are its own."""
    monkeypatch.setattr(session, "_answers", lambda address: None)
    os.environ["RAY_ADDRESS"] = address
    if job:
        os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(job)
    assert session.connect(training=True) and session.connect()
    assert started[0].get("runtime_env", {}).get("env_vars") == told and "runtime_env" not in started[1]
    assert not {"dashboard_port", "include_dashboard", "num_cpus"} & set(started[0])
    assert not set(session.LOCAL) & set(os.environ)


LONG = "/" + "/".join(["scratch"] * 9)  # 72 characters


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"TMPDIR": LONG}, "/tmp"),
        ({"TMPDIR": LONG + LONG}, "/tmp"),
        ({"RAY_TMPDIR": "/scratch/me", "TMPDIR": LONG + LONG}, "/scratch/me"),
        ({"TMPDIR": "/" + "ä" * 20}, "/tmp"),  # 41 bytes
        ({"TMPDIR": "/scratch/me"}, None),
        ({}, None),
        ({"RAY_TMPDIR": "/scratch/me", "TMPDIR": LONG}, "/scratch/me"),
    ],
)
def test_a_short_folder_for_sockets(started: list[Any], given: dict[str, str], chosen: str | None) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        os.environ.pop(name, None)
    os.environ.update(given)
    with session.short_folders():
        assert os.environ.get("RAY_TMPDIR") == chosen
        python_too = len(given.get("TMPDIR", "")) > 75
        assert os.environ.get("TMPDIR") == (chosen if python_too else given.get("TMPDIR"))
    assert os.environ.get("TMPDIR") == given.get("TMPDIR")


def test_a_folder_that_is_too_long_is_named_if_the_user_chose_it_or_there_is_no_other(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["RAY_TMPDIR"] = LONG
    with pytest.raises(InputError, match=f"RAY_TMPDIR {LONG}: is too long .*; set RAY_TMPDIR to .* at most 37 bytes"):
        session.choose_folder()
    del os.environ["RAY_TMPDIR"]
    os.environ["TMPDIR"] = LONG
    (tmp_path / "ray").write_text("another user's: nothing can be made in it")
    monkeypatch.setattr(session, "SHORT_FOLDERS", (str(tmp_path), str(tmp_path / "missing")))
    with pytest.raises(InputError, match=f"^TMPDIR {LONG}: is too long .*; set RAY_TMPDIR"):
        session.choose_folder()


def test_a_new_ray_has_a_token_of_its_own_unless_the_user_has_one(started: list[Any], tmp_path: Path) -> None:
    """Ray would write one into the home folder, which cannot be written, or which another Ray writes now."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path)
    for given in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/mine"}):
        os.environ.update(given)
        session.choose_token()
        assert os.environ.get("RAY_AUTH_TOKEN") == given.get("RAY_AUTH_TOKEN")
        for name in given:
            del os.environ[name]
    session.choose_token()
    assert len(os.environ.pop("RAY_AUTH_TOKEN")) == 64 and not list(tmp_path.iterdir())
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a cluster's")
    session.choose_token()
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_two_trainings_on_one_machine_have_two_dashboards(started: list[dict[str, Any]]) -> None:
    assert session.connect(training=True) and session.connect(training=True) and session.connect()
    ports = [options["dashboard_port"] for options in started[:2]]
    addresses = [options["runtime_env"]["env_vars"]["RAY_API_SERVER_ADDRESS"] for options in started[:2]]
    assert len(set(ports)) == 2 and addresses == [f"http://127.0.0.1:{port}" for port in ports]
    assert started[2]["include_dashboard"] is False and "runtime_env" not in started[2]


POOL = """
import logging, os, sys
from glot.training.cluster.session import connect
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
@pytest.mark.parametrize("joined", [False, True])
def test_a_training_beside_another_ray_of_the_user_asks_its_own_dashboard(joined: bool) -> None:
    """In a Ray that it starts, or in one that it joins; nothing but the command's own words is printed.

    The workers of a Ray that it starts run at the priority of the command.
    """
    with ExitStack() as stack:
        address = stack.enter_context(another_ray(6486)) if joined else ""
        stack.enter_context(another_ray(6487))
        ended = subprocess.run(
            [sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, timeout=180,
            env={**os.environ, "RAY_ADDRESS": address},
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    alive, nice = json.loads(lines.pop())
    assert lines == ([] if joined else ["starting a local Ray"]) and alive
    assert joined or nice == os.nice(0)
