"""The job runner with real Ray: items that are damaged, fail for a while, crash their worker, or come twice."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError, NotNowError
from pipelines.jobs import pool_worker
from pipelines.jobs.bookkeeper import (
    ALONE,
    DAMAGED,
    DONE,
    FAILED,
    GIVE_UP,
    MOST_FAILURES,
    MOST_TRIES,
    NOT_NOW,
    OURS,
    PLAIN,
    USERS,
    Bookkeeper,
    Me,
    Result,
)
from pipelines.jobs.job_progress import Counts, Display
from pipelines.jobs.pool_worker import Item, PoolWorker
from pipelines.jobs.worker_pool import PoolJob, plan_pools, ray_session, run_pool, tasks_of


class Clerk(PoolWorker):
    """Does what the name of an item says, and counts in a folder how often it was tried."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        pool_worker.WAITS = (0.0, 0.0)
        self.folder, self.shared = arguments["folder"], shared
        if "broken" in arguments:
            raise InputError(arguments["broken"])

    def items(self, task: Mapping[str, Any]) -> list[Item]:
        return [Item(str(key), 10, None) for key in task["keys"]]

    def work(self, item: Item) -> Result:
        note = self.folder / f"{item.key}-{os.getpid()}-{len(list(self.folder.iterdir()))}"
        note.write_text(self.context.device)
        tried = len(list(self.folder.glob(f"{item.key}-*")))
        what = item.key.split("_")[0]
        if what == "damaged":
            raise InputError("no picture in it")
        if what == "stale" and tried < 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        if what == "down":
            raise NotNowError("the store says 503")
        if what == "missing":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if what == "bug":
            raise IndexError("list index out of range")
        if what == "killed" and tried < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if what in ("crash", "hungry"):
            ctypes.string_at(0)
        return Result(item.key, DONE, 10, 0, self.shared)

    def examine(self, item: Item) -> str:
        if not item.key.startswith("crash"):
            return ""
        ended = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"])
        return signal.Signals(-ended.returncode).name


def tasks(*groups: Sequence[str]) -> list[dict[str, Any]]:
    return [{"keys": list(keys)} for keys in groups]


@pytest.fixture(scope="module")
def session(local_ray: None) -> Any:
    with ray_session() as ray:
        yield ray


def run(folder: Path, *groups: Sequence[str], **options: Any) -> dict[str, Result]:
    job = PoolJob(
        worker=Clerk,
        arguments={"folder": folder, **options},
        tasks=tasks(*groups),
        frames=10 * sum(map(len, groups)),
        what="count",
        shared="of all",
    )
    return {result.key: result for result in run_pool(job).results}


def test_every_item_gets_its_own_result(session: Any, tmp_path: Path) -> None:
    found = run(
        tmp_path,
        ["one", "damaged", "stale", "two"],
        ["down", "missing", "bug", "three"],
        ["killed", "crash", "four"],
        ["hungry", "five"],
    )
    kinds = {key: result.kind for key, result in found.items()}
    assert kinds == {
        **dict.fromkeys(("one", "two", "three", "four", "five", "stale", "killed"), DONE),
        **dict.fromkeys(("damaged", "crash"), DAMAGED),
        **dict.fromkeys(("down", "missing", "bug", "hungry"), FAILED),
    }
    assert found["one"].value == "of all"
    assert "SIGSEGV" in found["crash"].reason and "503" in found["down"].reason
    assert found["missing"].fault == NOT_NOW, "it may be a folder to which something was to be written"
    assert found["bug"].fault == OURS and "IndexError" in found["bug"].reason and found["down"].fault == NOT_NOW
    tries = {name: len(list(tmp_path.glob(f"{name}-*"))) for name in kinds}
    assert tries["hungry"] == MOST_TRIES and tries["killed"] == 2 and tries["crash"] == 1 and tries["stale"] == 3
    assert all(tries[name] == 1 for name in ("one", "two", "three", "four", "five", "damaged")), "nothing is done twice"


@pytest.mark.parametrize(
    ("keys", "options", "error"),
    [(["full"], {}, "No space left.*what is done is kept"), (["one"], {"broken": "not the same file"}, "not the same")],
)
def test_what_every_item_would_meet_ends_the_job_with_one_line(
    session: Any, tmp_path: Path, keys: list[str], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        run(tmp_path, keys, **options)


def test_a_store_that_is_down_stops_the_job(session: Any, tmp_path: Path) -> None:
    names = [f"down_{number}" for number in range(3 * MOST_FAILURES)]
    with pytest.raises(NotNowError, match=f"{MOST_FAILURES} failures in a row.*503"):
        run(tmp_path, names[::2], names[1::2])
    assert len(list(tmp_path.iterdir())) < 3 * len(names)


HERE, THERE = Me("a", "node1"), Me("b", "node2")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The nodes that stay."""
    staying = {"node1", "node2"}
    monkeypatch.setattr("pipelines.jobs.bookkeeper.staying_nodes", lambda: staying)
    return staying


def test_an_item_that_has_ended_is_never_given_out_again_and_stays_done(nodes: set[str]) -> None:
    books = Bookkeeper()
    assert [order.how for order in books.begin(HERE, ["x", "y"])] == [PLAIN, PLAIN]
    books.report(HERE, {}, [Result("x", DONE, 5, 0)])
    books.report(HERE, {}, [Result("x", DONE, 5, 0)])  # a report that comes twice
    books.report(THERE, {}, [Result("x", FAILED, 5, 5), Result("y", FAILED, 5, 5)])
    assert books.begin(THERE, ["x", "y"]) == []
    books.report(HERE, {}, [Result("y", DONE, 5, 0)])
    assert books.read()[0][:2] == (10, 0)
    assert {result.key: result.kind for result in books.close().results} == {"x": DONE, "y": DONE}


def test_only_deaths_on_nodes_that_stay_count(nodes: set[str]) -> None:
    books = Bookkeeper()
    for number in range(20):
        gone = Me(f"w{number}", f"gone{number}")
        (order,) = books.begin(gone, ["x"])
        assert order.how == PLAIN
        books.report(gone, {"x": number})
    for number in range(MOST_TRIES):
        (order,) = books.begin(Me(f"here{number}", "node1"), ["x"])
        assert order.how == (ALONE if number else PLAIN)
        books.report(Me(f"here{number}", "node1"), {"x": 0})
    assert books.begin(THERE, ["x"])[0].how == GIVE_UP
    nodes.discard("node1")  # that it was going, too, is noticed later
    assert books.begin(THERE, ["x"])[0].how == PLAIN


def test_frames_of_items_at_work_count_once(nodes: set[str]) -> None:
    books = Bookkeeper()
    books.report(HERE, {"x": 7})
    books.report(HERE, {"x": 8})
    assert books.read()[0].frames == 8
    books.begin(THERE, ["x"])
    assert books.read()[0].frames == 0
    books.report(THERE, {"x": 2})
    books.report(THERE, {}, [Result("x", DONE, 10, 1)])
    assert books.read()[0][:2] == (10, 1)


def test_two_pools_share_the_items(nodes: set[str]) -> None:
    books = Bookkeeper()
    gpu, cpu = Me("a", "node1", "gpu"), Me("b", "node2", "cpu")
    books.report(gpu, {"x": 0})
    assert [order.key for order in books.begin(cpu, ["x", "y"])] == ["y"]
    books.heard["a"] -= 1000.0  # the other worker is silent
    assert [order.key for order in books.begin(cpu, ["x"])] == ["x"]


class Slate:
    """A log in memory that fails when it is told to."""

    pause = 0.0

    def __init__(self) -> None:
        self.lines: list[Result] = []
        self.error: OSError | None = None

    def read(self) -> dict[str, tuple[str, int, int]]:
        return {line.key: (line.kind, line.frames, line.skipped) for line in self.lines}

    def append(self, results: Sequence[Result]) -> None:
        if self.error:
            raise self.error
        self.lines += results


def test_a_bookkeeper_that_is_started_again_knows_what_ended(nodes: set[str]) -> None:
    slate = Slate()
    Bookkeeper(slate).report(HERE, {"y": 3}, [Result("x", DONE, 5, 1)])
    again = Bookkeeper(slate)
    assert [order.key for order in again.begin(THERE, ["x", "y"])] == ["y"]
    assert again.read()[0][:2] == (5, 1)


def test_results_wait_while_the_log_cannot_be_written(nodes: set[str]) -> None:
    slate = Slate()
    books = Bookkeeper(slate)
    slate.error = OSError(errno.EIO, "Input/output error")
    assert books.report(HERE, {}, [Result("x", DONE, 5, 0)])[::2] == (None, False)
    slate.error = None
    books.report(HERE, {}, [Result("y", DONE, 5, 0)])
    assert [line.key for line in slate.lines] == ["x", "y"]
    slate.error = OSError(errno.ENOSPC, "No space left on device")
    stop, _, _ = books.report(HERE, {}, [Result("z", DONE, 5, 0)])
    assert stop and stop.fault == USERS
    slate.error = OSError(errno.EIO, "Input/output error")
    books = Bookkeeper(slate)
    books.written -= 1000.0
    stop, _, _ = books.report(HERE, {}, [Result("z", DONE, 5, 0)])
    assert stop and stop.fault == NOT_NOW


def node(**resources: float) -> dict[str, Any]:
    return {"Alive": True, "Resources": resources}


def job(**options: Any) -> PoolJob:
    return PoolJob(worker=Clerk, arguments={}, tasks=tasks(*[["x"]] * 1000), frames=1000, what="count", **options)


def test_pools_fit_the_cluster_and_grow_with_it() -> None:
    (pool,) = plan_pools([node(CPU=2.0)], job(), fixed=True)
    assert (pool.smallest, pool.resources, pool.threads) == (2, {"num_cpus": 0.9, "num_gpus": 0}, 1)
    assert pool.largest > pool.smallest, "nodes that come later are used"
    (pool,) = plan_pools([], job(), fixed=False)
    assert pool.smallest == 1 and pool.device == "cpu"
    mixed = [node(CPU=8.0, GPU=2.0)] + [node(CPU=8.0)] * 50
    (pool,) = plan_pools(mixed, job(), fixed=False)
    assert (pool.device, pool.smallest, pool.threads) == ("cuda", 2, 4)
    (pool,) = plan_pools(mixed, job(gpu_share=0.5), fixed=False)
    assert (pool.smallest, pool.resources["num_gpus"], pool.threads) == (4, 0.5, 2)
    gpu, cpu = plan_pools(mixed, job(devices="both"), fixed=False)
    assert (gpu.device, cpu.device, cpu.smallest) == ("cuda", "cpu", 400)
    for nodes in (mixed[:1], [node(CPU=0.0), *mixed[:1]]):
        for fixed in (True, False):
            (pool,) = plan_pools(nodes, job(devices="both"), fixed=fixed)
            assert pool.device == "cuda", "all cores feed GPUs"
    assert [pool.device for pool in plan_pools([], job(devices="both"), fixed=False)] == ["cuda", "cpu"]
    (pool,) = plan_pools(mixed, job(devices="cpu"), fixed=False)
    assert pool.device == "cpu"
    # Ray Data waits for the smallest number: a part of a GPU is on one of them, and a core is claimed, too.
    (pool,) = plan_pools([node(CPU=8.0, GPU=2.0)], job(gpu_share=0.6), fixed=True)
    assert pool.smallest == 2
    (pool,) = plan_pools([node(CPU=2.0, GPU=4.0), node(CPU=0.0, GPU=1.0)], job(), fixed=False)
    assert pool.smallest == 2
    with pytest.raises(InputError, match="no GPU"):
        plan_pools([node(CPU=2.0)], job(devices="gpu"), fixed=True)
    with pytest.raises(InputError, match="--workers 3: this machine has 2 CPUs"):
        plan_pools([node(CPU=2.0)], job(workers=3), fixed=True)


@pytest.mark.parametrize("items", [0, 1, 40, 5000])
def test_tasks_hold_every_item_once_and_end_small(items: int) -> None:
    frames = [(number * 37) % 2000 + 1 for number in range(items)]
    cut = list(tasks_of(frames, slots=16))
    assert [number for task in cut for number in task] == list(range(items))
    assert all(len(task) <= 100 for task in cut)
    if items == 5000:
        assert len(cut[0]) > 10 and len(cut[-1]) == 1 and len(cut) < 500


def test_progress_lines_in_a_log_have_speed_time_left_and_skips(capsys: pytest.CaptureFixture[str]) -> None:
    counts = iter([Counts(0, 0, 0, 0.0), Counts(60, 2, 2, 3.0)])
    with Display(lambda: next(counts), total=240, what="extract 3dpw"):
        time.sleep(1.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("extract 3dpw: 0/240 frames") and "waiting for workers" in first
    assert "60/240 frames" in second and second.endswith("20.0 frames/s, about 9 s left, 2 skipped")


def test_the_progress_line_outlives_the_process_that_counts(capsys: pytest.CaptureFixture[str]) -> None:
    calls = iter([Counts(60, 2, 2, 3.0)])  # every later call raises
    with Display(lambda: next(calls), total=240, what="extract 3dpw"):
        pass
    assert "extract 3dpw: 60/240 frames" in capsys.readouterr().err
