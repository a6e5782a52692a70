"""Kinds of failures of workers: what may pass is tried again, everything else is raised at once. Real faults."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from glot.errors import InputError, NotNowError
from glot.human.body import load_body
from glot.training import failures, loop
from glot.training.driver import fit
from glot.training.failures import TRIES, Tries, may_pass
from glot.training.run_state import read_state
from glot.training.spec import WorkerSpec
from glot.training.workers import RayWorkers, ThisProcess
from tests.fixtures.features import write_training_sets
from tests.fixtures.full_disk import full_disk
from tests.glot.training.test_driver import small_spec
from tests.glot.training.test_training_faults import same_weights


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "PAUSE_SECONDS", 0.01)


def test_only_failures_in_a_row_without_a_checkpoint_count(tmp_path: Path) -> None:
    tries, lost = Tries(tmp_path), NotNowError("the store is away")
    for step in range(1, 10):
        (tmp_path / "steps" / f"{step:08d}").mkdir(parents=True)
        assert tries.failed(lost) == "the store is away"
    for _ in range(TRIES - 1):
        tries.failed(lost)
    with pytest.raises(NotNowError, match="tries in a row failed: the store is away; .* after step 9"):
        tries.failed(lost)


@pytest.mark.parametrize(
    "error", [InputError("lr"), ZeroDivisionError(), RuntimeError("shape"), FileNotFoundError(2, "x")]
)
def test_what_would_come_again_is_raised_at_once(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        Tries(tmp_path).failed(error)
    assert raised.value is error


def test_a_disk_that_is_full_is_not_now(tmp_path: Path) -> None:
    assert "No space left" in Tries(tmp_path).failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def test_memory_of_a_gpu_is_a_matter_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set a larger accumulate"):
        Tries(tmp_path).failed(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))


def member(rank: int, meeting: Path, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    if rank:
        os._exit(9)
    for collective in (lambda: model(torch.ones(1, 2)).sum().backward(), lambda: dist.all_reduce(torch.ones(1))):
        try:
            collective()
        except Exception as error:
            results.put(error)


def test_the_worker_that_is_left_when_another_died_is_not_to_blame(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    started = [context.Process(target=member, args=(rank, tmp_path / "meeting", results)) for rank in (0, 1)]
    for process in started:
        process.start()
    for _ in range(2):
        error = results.get(timeout=100)
        assert type(error) is RuntimeError and may_pass(error)
    for process in started:
        process.join()


def test_a_disk_that_fills_ends_the_run_as_not_now_and_it_goes_on_when_there_is_room(
    features: Path, tmp_path: Path
) -> None:
    settings = ("epochs=2", "steps_per_epoch=3", "data.batch_size=4")
    fit(small_spec(features, tmp_path / "undisturbed", *settings, workers=0), ThisProcess(lambda metrics: None))
    with full_disk(tmp_path, megabytes=16) as (disk, fill):
        spec = small_spec(features, disk / "run", *settings, workers=0)

        def report(metrics: dict[str, float]) -> None:
            if metrics["epoch"] == 1:
                failures_of_disk.append(fill())
                failures_of_disk[-1].__enter__()

        failures_of_disk: list[Any] = []
        with pytest.raises(NotNowError, match="No space left on device"):
            fit(spec, ThisProcess(report))
        assert not [path.name for path in (disk / "run").rglob(".*") if path.name != ".lock"]
        for filling in failures_of_disk[:1]:
            filling.__exit__(None, None, None)
        fit(spec, ThisProcess(lambda metrics: None))
        assert same_weights(disk / "run" / "last", tmp_path / "undisturbed" / "last")


def failing(how: Callable[[], None], notes: Path) -> RayWorkers:
    """Workers that call ``how``, which may raise, and then train. ``notes`` gets a line for each start."""

    def train_after(worker: WorkerSpec, **options: Any) -> None:
        with notes.open("a") as file:
            file.write("started\n")
        how()
        loop.train(worker, **options)

    return RayWorkers(train=train_after)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_workers_of_ray_that_raise(
    features: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 2
    monkeypatch.setattr(failures, "TRIES", tries)
    monkeypatch.setattr(failures, "PAUSE_SECONDS", 0.1)
    spec = small_spec(features, tmp_path / "run", "epochs=1", "steps_per_epoch=2")
    notes = tmp_path / "notes"

    def ours() -> None:
        raise ZeroDivisionError("a mistake of ours")

    def not_now() -> None:
        if len(notes.read_text().splitlines()) < tries:
            raise NotNowError("the cache is full")

    def never() -> None:
        raise NotNowError("the cache is full")

    with pytest.raises(ZeroDivisionError) as raised:
        fit(spec, failing(ours, notes))
    assert notes.read_text() == "started\n"
    assert "in ours" in raised.value.__notes__[0]  # the worker's trace

    notes.unlink()
    with pytest.raises(NotNowError, match=f"{tries} tries in a row failed: the cache is full"):
        fit(spec, failing(never, notes))
    assert notes.read_text() == "started\n" * tries

    notes.unlink()
    fit(spec, failing(not_now, notes))
    assert read_state(tmp_path / "run")["status"] == "finished"
    printed = capfd.readouterr()
    assert "ZeroDivisionError" not in printed.out + printed.err  # it is raised, and printed by whoever catches it
