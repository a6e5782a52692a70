"""Several units at once give the rows of one after the other, bit for bit; failures, damage and leaving stay theirs."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError, NotNowError
from glot.features.schema import read_table
from glot.human.body import Body, load_body
from glot.human.crop import CROP_SIZE
from pipelines.decoders import unit_cuts
from pipelines.decoders.clips import Unit
from pipelines.decoders.registry import load_decoder
from pipelines.extraction import streaming
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.streaming import SMALLEST_BATCH
from pipelines.extraction.units import STARTED, OpenUnit, SplitJob, Tools, extract_unit
from pipelines.extraction.worker import ExtractUnits
from pipelines.jobs import pool_worker
from pipelines.jobs.bookkeeper import ALONE, DAMAGED, DONE, FAILED, GIVE_UP, NOT_NOW, OURS, PLAIN, Order, Result, Stop
from pipelines.jobs.pool_worker import Item, LeavingError, WorkerContext
from pipelines.sets.fragments import fragment_path
from pipelines.sets.settings import RECORDS
from tests.fixtures.gpu_node import VALUES, stand_in
from tests.fixtures.places import ROOT
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.video import write_film

SIZE = 12 * 12 * 3  # numbers in a feature: every 19th pixel of the crop
THREADS = 3


@dataclass
class Network:
    """A network whose features are pixels of the crops, each crop for itself. It notes what it gets."""

    seconds: float = 0.0
    at: Callable[[int], None] = lambda number: None  # called with the number of the batch
    size: int = SMALLEST_BATCH
    crops: list[int] = field(default_factory=list)  # of each batch, without those that fill it up

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.at(len(self.crops))
        time.sleep(self.seconds)
        assert crops.shape == (self.size, CROP_SIZE, CROP_SIZE, 3)
        there = crops.any((1, 2, 3))
        assert not there[np.count_nonzero(there) :].any()
        self.crops.append(int(there.sum()))
        return pixels(crops)


def pixels(crops: np.ndarray) -> np.ndarray:
    return crops[:, ::19, ::19].reshape(len(crops), SIZE).astype(np.float32)


class Worker(ExtractUnits):
    """A worker without Ray."""

    def __init__(self, job: SplitJob, network: Any, body: Body, *, threads: int = THREADS) -> None:
        self.context = WorkerContext(None, "gpu", threads, "cuda", None)
        self.jobs = {job.split: job}
        self.tools = Tools(network, body, None, threads)
        self.holding: dict[str, int] = {}
        self.stopped, self.leaving = None, False
        self.reports: list[dict[str, int]] = []
        self.opened: list[str] = []
        self.lock = threading.Lock()

    def report(self) -> None:
        self.reports.append(dict(self.holding))

    def open(self, item: Item) -> OpenUnit:
        assert self.reports[-1].get(item.key) is not None, "the bookkeeper knows who is open"
        with self.lock:
            self.opened.append(item.key)
        return super().open(item)

    def examine(self, item: Item) -> str:
        return ""


@dataclass(frozen=True)
class Case:
    """Units of a dataset."""

    job: SplitJob
    units: list[Unit]
    body: Body

    def to(self, folder: Path) -> "Case":
        """The same units, for another folder."""
        spec = DatasetSpec(
            dataset=self.job.spec.dataset, root=self.job.spec.root, out=folder, tracks=self.job.spec.tracks
        )
        return Case(SplitJob(spec, self.job.split, self.job.settings), self.units, self.body)

    def items(self) -> dict[str, Item]:
        return {unit.key: Item(unit.key, unit.frames, (self.job, unit.key, unit)) for unit in self.units}

    def run(self, worker: ExtractUnits, orders: Sequence[Order] = ()) -> list[Result]:
        items = self.items()
        found = []
        for result in worker.run(orders or [Order(key, PLAIN) for key in items], items):
            found.append(worker.finished(result, items[result.key]))
            worker.holding.pop(result.key)
        return found

    def one_by_one(self) -> None:
        for unit in self.units:
            extract_unit(self.job, unit.key, unit, Tools(pixels, self.body))

    def assert_same_rows(self, other: "Case", *, units: Sequence[str] = ()) -> None:
        for key in units or [unit.key for unit in self.units]:
            found, wanted = (fragment_path(case.job.folder, key) for case in (self, other))
            assert pq.read_table(found).equals(pq.read_table(wanted)), key
            assert found.read_bytes() == wanted.read_bytes()


def case_of(folder: Path, dataset: str, split: str, units: list[Unit], body: Body, tracks: Path | None = None) -> Case:
    spec = DatasetSpec(dataset=dataset, root=folder / "data", out=folder / "one by one", tracks=tracks)
    return Case(SplitJob(spec, split, {"backbone": {"feature_size": SIZE}, "crop": {"size": CROP_SIZE}}), units, body)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Case:
    """Many short sequences of pictures with two people."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(14):
        write_sequence(folder / "data", f"walk_{seed:02d}", frames=6 + seed, seed=seed)
    units = list(load_decoder("3dpw").find(folder / "data", "test"))
    case = case_of(folder, "3dpw", "test", units, body)
    case.one_by_one()
    return case


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, body: Body) -> Case:
    """Three videos with several people, one of them in several units."""
    folder = tmp_path_factory.mktemp("videos")
    people: dict[str, Any] = {}
    for number, frames in enumerate((150, 40, 60)):
        name = f"film{number}.mp4"
        (folder / "data").mkdir(exist_ok=True)
        write_film(folder / "data" / name, frames=frames)
        people[name] = {
            str(person): {
                "frames": list(range(3 * person, frames - person)),
                "bbox": [[10 + 20 * person, 8, 30, 60]] * (frames - 4 * person),
            }
            for person in range(1 + 2 * (number != 1))
        }
    (folder / "boxes.json").write_text(json.dumps(people))
    decoder = load_decoder("video", folder / "boxes.json")
    assert decoder.cut is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_cuts, "UNIT_FRAMES", 25)
        patch.setattr(unit_cuts, "LONGEST_WHOLE", 100)
        units = [
            unit for source in decoder.find(folder / "data", "test") for unit in decoder.cut(folder / "data", source)
        ]
    assert len(units) > 5
    case = case_of(folder, "video", "test", units, body, folder / "boxes.json")
    case.one_by_one()
    return case


@pytest.fixture(params=["pictures", "videos"])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "WAITS", (0.0, 0.0))


def test_rows_are_those_of_one_unit_after_the_other_and_all_batches_but_the_last_are_full(
    case: Case, tmp_path: Path
) -> None:
    network = Network()
    ours, worker = case.to(tmp_path), Worker(case.job, network, case.body)
    results = ours.run(worker)
    assert {result.key: result.kind for result in results} == {unit.key: DONE for unit in case.units}
    ours.assert_same_rows(case)
    rows = sum(result.value.counts["rows"] for result in results)
    assert sum(network.crops) == rows and len(network.crops) > 1
    assert set(network.crops[:-1]) == {SMALLEST_BATCH}
    assert not worker.holding


def test_few_units_are_read_by_several_threads_each(videos: Case, tmp_path: Path) -> None:
    one = Case(videos.job, videos.units[:1], videos.body)
    threads: list[int] = []
    worker = Worker(one.job, Network(), one.body, threads=4)
    plain = OpenUnit.frames
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenUnit, "frames", lambda opened, number, **options: (
            threads.append(number), plain(opened, number, **options)
        )[1])  # fmt: skip
        one.to(tmp_path).run(worker)
    assert threads == [4]
    one.to(tmp_path).assert_same_rows(videos)


class Broken(Worker):
    """A worker whose units fail as ``faults`` say: {key: the errors of its tries}, in the middle of reading."""

    faults: dict[str, list[Exception]]

    def open(self, item: Item) -> OpenUnit:
        opened = super().open(item)
        plain, faults = opened.frames, self.faults.get(item.key)

        def frames(*arguments: Any, **options: Any) -> Any:
            for number, frame in enumerate(plain(*arguments, **options)):
                if number == 4 and faults:
                    raise faults.pop(0)
                yield frame

        opened.frames = frames  # type: ignore[method-assign]
        return opened


def broken(case: Case, **faults: list[Exception]) -> Broken:
    worker = Broken(case.job, Network(), case.body)
    worker.faults = faults
    return worker


def test_failures_and_damage_stay_those_of_their_unit(pictures: Case, tmp_path: Path) -> None:
    ours = pictures.to(tmp_path)
    stale = [OSError(errno.ESTALE, "Stale file handle") for _ in range(2)]
    down = [NotNowError("the store says 503") for _ in range(9)]
    worker = broken(
        pictures, walk_01=stale, walk_03=down, walk_05=[IndexError("list index out of range")],
        walk_07=[InputError("its annotation is damaged")],
    )  # fmt: skip
    results = {result.key: result for result in ours.run(worker)}
    kinds = {key: result.kind for key, result in results.items()}
    bad = {"walk_03": FAILED, "walk_05": FAILED, "walk_07": DAMAGED}
    assert kinds == {**dict.fromkeys((unit.key for unit in pictures.units), DONE), **bad}
    assert results["walk_03"].fault == NOT_NOW and "503" in results["walk_03"].reason
    assert results["walk_05"].fault == OURS and "test_streaming.py" in results["walk_05"].reason
    assert worker.opened.count("walk_01") == worker.opened.count("walk_03") == 3
    assert worker.opened.count("walk_05") == worker.opened.count("walk_07") == 1
    ours.assert_same_rows(pictures, units=[key for key, kind in kinds.items() if kind == DONE])
    assert not any(fragment_path(ours.job.folder, key).exists() for key in bad)


def test_a_full_disk_ends_the_worker(pictures: Case, tmp_path: Path) -> None:
    worker = broken(pictures, walk_03=[OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(OSError, match="No space left"):
        pictures.to(tmp_path).run(worker)


def test_a_network_that_fails_costs_the_units_of_its_batch(pictures: Case, tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 0:
            network.crops.append(0)
            raise RuntimeError("CUDA error: out of memory")

    network = Network(at=fail)
    ours = pictures.to(tmp_path)
    results = ours.run(Worker(pictures.job, network, pictures.body))
    failed = [result.key for result in results if result.kind == FAILED]
    assert 0 < len(failed) < len(pictures.units) == len(results)
    assert all("CUDA error" in result.reason for result in results if result.kind == FAILED)
    ours.assert_same_rows(pictures, units=[result.key for result in results if result.kind == DONE])


def test_suspects_are_examined_and_read_alone_before_the_others(pictures: Case, tmp_path: Path) -> None:
    class Examiner(Worker):
        def examine(self, item: Item) -> str:
            return "SIGSEGV" if item.key == "walk_04" else ""

    how = {"walk_02": ALONE, "walk_04": ALONE, "walk_06": GIVE_UP, "walk_08": ALONE}
    orders = [Order(unit.key, how.get(unit.key, PLAIN)) for unit in pictures.units]
    worker, ours = Examiner(pictures.job, Network(), pictures.body), pictures.to(tmp_path)
    results = ours.run(worker, orders)
    kinds = {result.key: result.kind for result in results if result.kind != DONE}
    assert kinds == {"walk_04": DAMAGED, "walk_06": FAILED}
    assert worker.opened[:2] == ["walk_02", "walk_08"] and not {"walk_04", "walk_06"} & set(worker.opened)
    assert [set(report) for report in worker.reports[:4]] == [{"walk_02"}, {"walk_04"}, {"walk_06"}, {"walk_08"}]
    ours.assert_same_rows(pictures, units=[result.key for result in results if result.kind == DONE])


def test_a_worker_that_leaves_keeps_its_features_and_the_next_one_goes_on(case: Case, tmp_path: Path) -> None:
    def leave(number: int) -> None:
        worker.leaving = number == 1

    first, second, ours = Network(at=leave), Network(), case.to(tmp_path)
    worker = Worker(case.job, first, case.body)
    ended: list[Result] = []
    with pytest.raises(LeavingError):
        for result in worker.run([Order(unit.key, PLAIN) for unit in case.units], ours.items()):
            ended.append(result)
    assert list((ours.job.folder / RECORDS / STARTED).iterdir())
    rest = Case(ours.job, [unit for unit in case.units if unit.key not in {result.key for result in ended}], case.body)
    rest.run(Worker(case.job, second, case.body))
    ours.assert_same_rows(case)
    rows = sum(pq.read_metadata(fragment_path(case.job.folder, unit.key)).num_rows for unit in case.units)
    assert sum(first.crops) + sum(second.crops) == rows, "no feature is made twice"
    assert not list((ours.job.folder / RECORDS / STARTED).iterdir())


def test_a_job_that_stops_ends_the_stream(pictures: Case, tmp_path: Path) -> None:
    worker = Worker(pictures.job, Network(), pictures.body)
    for count, _ in enumerate(
        worker.run([Order(unit.key, PLAIN) for unit in pictures.units], pictures.to(tmp_path).items())
    ):
        assert count < 3
        worker.stopped = Stop(NOT_NOW, "another run took it over")


@pytest.mark.parametrize("size", [8, SMALLEST_BATCH])
def test_few_units_and_crops_are_in_memory_at_once(
    videos: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    class Counter(Worker):
        now = most = read = 0

        def open(self, item: Item) -> OpenUnit:
            opened = super().open(item)
            plain, close = opened.frames, opened.__exit__
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)

            def frames(*arguments: Any, **options: Any) -> Any:
                for frame in plain(*arguments, **options):
                    with self.lock:
                        self.read += len(frame.people)
                    assert self.read - sum(network.crops) <= 4 * size + 3 * THREADS
                    yield frame

            def exit(*details: object) -> None:
                with self.lock:
                    self.now -= 1
                close(*details)

            opened.frames, opened.__exit__ = frames, exit  # type: ignore[method-assign]
            return opened

    monkeypatch.setattr(streaming, "SMALLEST_BATCH", size)
    monkeypatch.setattr(streaming, "MOST_UNWRITTEN", 1)
    network = Network(seconds=0.0005 * size, size=size)
    worker = Counter(videos.job, network, videos.body)
    results = videos.to(tmp_path).run(worker)
    assert [result.kind for result in results] == [DONE] * len(videos.units), results
    assert worker.now == 0
    if size == 8:  # fewer crops than in a unit
        assert worker.most <= THREADS + 2 < len(videos.units)


def test_the_next_units_are_read_while_rows_are_written_and_the_network_runs(pictures: Case, tmp_path: Path) -> None:
    class Slow(Worker):
        seen = 0

        def finish(self, item: Item, opened: OpenUnit) -> Result:
            before, end = len(self.opened), time.monotonic() + 5
            while len(self.opened) == before < len(pictures.units) and time.monotonic() < end:
                time.sleep(0.01)
            self.seen += len(self.opened) > before
            return super().finish(item, opened)

    def wait(number: int) -> None:
        before, end = len(worker.opened), time.monotonic() + 5
        while number == 0 and len(worker.opened) == before and time.monotonic() < end:
            time.sleep(0.01)
        overlaps.append(len(worker.opened) > before)

    overlaps: list[bool] = []
    worker = Slow(pictures.job, Network(at=wait), pictures.body)
    pictures.to(tmp_path).run(worker)
    assert overlaps[0] and worker.seen


@pytest.mark.slow
def test_nodes_with_and_without_a_gpu_share_the_units_and_a_killed_worker_costs_no_row(tmp_path: Path) -> None:
    names = [f"walk_{seed:02d}" for seed in range(24)]
    for seed, name in enumerate(names):
        write_sequence(tmp_path / "data", name, frames=20 + seed, seed=seed)
    code = [sys.executable, "-m", "tests.fixtures.gpu_node", str(tmp_path / "data"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(code, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert "ENDED 0" in ended.stdout, (ended.stdout + ended.stderr)[-3000:]
    lines = [line.rsplit(maxsplit=2) for line in (tmp_path / "out-notes" / "ended").read_text().splitlines()]
    kinds = {key.rpartition("/")[2]: kind for key, _, kind in lines}
    assert kinds == dict.fromkeys(names, DONE)
    assert {device for _, device, _ in lines} == {"cpu", "cuda"}
    assert (tmp_path / "out-notes" / "killed").read_text()
    table = read_table(tmp_path / "out" / "3dpw" / "test")
    wanted = []
    for unit in load_decoder("3dpw").find(tmp_path / "data", "test"):
        spec = DatasetSpec(dataset="3dpw", root=tmp_path / "data", out=tmp_path / "one by one")
        job = SplitJob(spec, "test", {"backbone": {"feature_size": VALUES}, "crop": {"size": CROP_SIZE}})
        extract_unit(job, unit.key, unit, Tools(stand_in, load_body()))
        wanted.append(pq.read_table(fragment_path(job.folder, unit.key)))
    by_track = [("track_id", "ascending"), ("frame_index", "ascending")]
    assert table.sort_by(by_track).equals(pa.concat_tables(wanted).sort_by(by_track))
