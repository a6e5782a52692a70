"""How many cores a process may use: limits of containers, of batch systems, and real ones of this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glot.cores import available_cores
from tests.fixtures.places import ROOT


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))


def cores(root: Path, files: dict[str, str], membership: str) -> int:
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "self").write_text(membership)
    return available_cores(cgroups=root / "cgroup", membership=root / "self")


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        # Docker, Kubernetes: the container's own cgroup is at the top.
        ({"cpu.max": "400000 100000\n"}, "0::/\n", 4),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 64),
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "300000 100000\n"}, "0::/../../kubepods/pod1\n", 3),
        # systemd, Slurm: a cgroup below that of the machine, or one above it, has the limit.
        ({"user.slice/job/cpu.max": "200000 100000"}, "0::/user.slice/job\n", 2),
        ({"user.slice/cpu.max": "800000 100000", "user.slice/job/cpu.max": "max 100000"}, "0::/user.slice/job\n", 8),
        ({"other/cpu.max": "200000 100000"}, "0::/user.slice/job\n", 64),
        # The first version; in a container, the path may be that of the machine.
        (
            {"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            6,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", 64),
        (
            {"cpu/job/cpu.cfs_quota_us": "300000\n", "cpu/job/cpu.cfs_period_us": "100000\n", "job/cpu.max": "1 1"},
            "4:cpu,cpuacct:/job\n3:cpuset:/\n1:name=systemd:/user.slice\n0::/\n",
            3,
        ),
    ],
)
def test_a_quota_of_time_counts(tmp_path: Path, files: dict[str, str], membership: str, expected: int) -> None:
    assert cores(tmp_path, files, membership) == expected


def test_the_least_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 9})
    assert cores(tmp_path, {"cpu.max": "400000 100000"}, "0::/\n") == 3
    assert available_cores(cgroups=tmp_path / "none", membership=tmp_path / "none") == 3


def test_a_process_that_is_bound_to_a_core_counts_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from glot.cores import available_cores; print(available_cores())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "1\n", ended.stderr


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_torch_starts_no_more_threads_than_the_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    (tmp_path / "self").write_text("0::/")
    code = (
        "import sys; from pathlib import Path; from glot.cores import limit_threads; top = Path(sys.argv[1]); "
        "limit_threads(cgroups=top, membership=top / 'self'); import torch; print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "1\n", ended.stderr
