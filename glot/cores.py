"""How many CPU cores this process may use, where a container or a batch system limits them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # lines "number:controllers:path", the path below CGROUPS


def available_cores(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Whole cores, at least 1. The least of several numbers counts:

    - the cores that the process is bound to, by taskset, Slurm, or Docker's --cpuset-cpus;
    - its share of CPU time, by Docker's --cpus, Kubernetes' limits, or systemd's CPUQuota.

    os.cpu_count() knows neither, os.process_cpu_count() only the first, and Ray only the second.
    """
    return max(1, int(min([_bound_cores(), *_quotas(cgroups, membership)])))


def limit_threads(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> None:
    """Sets the threads of numerical libraries that are loaded later to the quota, if one is below the cores in sight.

    They count cores themselves and do not know quotas. With more threads than time, each waits for the others.
    """
    cores = available_cores(cgroups=cgroups, membership=membership)
    if cores < _bound_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def _bound_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's cgroup and of those above it."""
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _limits(cgroups, path, ("cpu.max",))
            elif "cpu" in controllers.split(","):
                yield from _limits(cgroups / "cpu", path, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def _limits(top: Path, path: str, files: tuple[str, ...]) -> Iterator[float]:
    """The quotas of a cgroup and those above it, up to ``top``: time a period, the second version's in one file.

    In a container, the folder of the path may be missing, and ``top`` is the container's own.
    """
    folder = top.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
    while folder.is_relative_to(top):
        with suppress(OSError, ValueError):  # ValueError: "max", which is no limit
            quota, period = (float(number) for file in files for number in (folder / file).read_text().split())
            if quota > 0:
                yield quota / period
        folder = folder.parent
