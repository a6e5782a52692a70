"""What every test can count on: a cache of its own, quiet libraries, one thread a process."""

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fixtures.flaky_store import FlakyStore

# Set before anything imports ray, mlflow or torch.
os.environ["GLOT_CACHE"] = tempfile.mkdtemp(prefix="glot-test-cache-")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_AUTH_MODE"] = "disabled"  # on this machine only; a process that asked once keeps the mode it found
os.environ.pop("RAY_ADDRESS", None)

import torch

torch.set_num_threads(1)  # small tensors: contended OpenMP threads cost twenty times more than they give


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the machine without a Ray come before any that leaves the shared Ray running."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Real Ray with two CPUs, shared by the tests of a session."""
    import ray

    from glot.training.cluster.session import dashboard

    # "local": not whatever cluster an address file that was left behind speaks of. Without its dashboard, each run of
    # Ray Train would wait ten seconds for it.
    ray.init("local", num_cpus=2, logging_level="warning", object_store_memory=200_000_000, **dashboard())
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def networks() -> None:
    """BlazePose's networks, from the package index if they are not in the cache yet."""
    from glot.errors import InputError
    from glot.features.backbones.blazepose_files import LANDMARK_FILE, network_file

    try:
        network_file(LANDMARK_FILE)
    except InputError as error:
        pytest.skip(f"the package index is out of reach: {error}")


@pytest.fixture(scope="module")
def flaky_store() -> "Iterator[FlakyStore]":
    """An object store that counts its requests, and fails when it is told to: ``with flaky_store.failing(0.05)``."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from tests.fixtures.flaky_store import running_store

    with running_store() as store:
        yield store
