"""The cache of local copies is bounded; what is in use is never removed; what killed processes leave is; never half."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from glot.errors import InputError, NotNowError
from glot.features import copy_cache, copy_writing
from glot.features.copy_cache import INDEX, LIMIT_VARIABLE, copies, is_in_use, remove_unused
from glot.features.schema import read_manifest, write_manifest
from glot.features.store import FeatureStore
from tests.fixtures.features import write_feature_set
from tests.fixtures.full_disk import full_disk
from tests.fixtures.places import ROOT

SETS = "abcd"


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A folder of four feature sets of the same size."""
    for seed, name in enumerate(SETS):
        write_feature_set(tmp_path / name, tracks=[20, 10], feature_size=8, seed=seed)
    return tmp_path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(folder: Path, cache: Path, *, used: float | None = None) -> FeatureStore:
    store = FeatureStore.open(folder, cache=cache)
    if used is not None:
        os.utime(store.copy / INDEX, (used, used))
    return store


def size_of(copy: Path) -> int:
    return sum(path.stat().st_size for path in copy.iterdir())


def limit(monkeypatch: pytest.MonkeyPatch, copy: Path, times: float) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, str(int(times * size_of(copy))))


# Opens the sets one after another in another process, says so, and keeps the last one open.
OPEN = """
import os, sys, time
from pathlib import Path
from glot.features import copy_writing, copy_cache
from glot.features.store import FeatureStore
features, cache, slow, fatal = sys.argv[1:]
batches = copy_writing.batches
def waiting(part, *args):
    print("building", flush=True)
    time.sleep(float(slow))
    yield from batches(part, *args)
copy_writing.batches = waiting
if fatal:
    copy_cache.shutil.rmtree = lambda folder, **_: os.path.basename(folder).startswith(".") and os.kill(os.getpid(), 9)
for name in features.split(":"):
    store = FeatureStore.open(Path(name), cache=Path(cache))
    print("open", flush=True)
time.sleep(600)
"""


class Other:
    """Another process that opens sets, which is killed at the end."""

    def __init__(self, cache: Path, *features: Path, slow: float = 0, fatal: bool = False) -> None:
        words = [
            sys.executable,
            "-c",
            OPEN,
            ":".join(map(str, features)),
            str(cache),
            str(slow),
            "yes" if fatal else "",
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def wait_for(self, word: str) -> None:
        assert self.process.stdout
        while (line := self.process.stdout.readline().strip()) != word:
            assert line or self.process.poll() is None, f"ended before it was {word}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Other":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def test_the_least_recently_used_go_and_what_is_open_stays(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(sets / "a", cache)  # stays open
    os.utime(first.copy / INDEX, (1, 1))
    limit(monkeypatch, first.copy, 3.5)
    names = {name: opened(sets / name, cache, used=used).copy for name, used in (("b", 2), ("c", 3))}
    assert opened(sets / "b", cache).copy == names["b"]  # used now
    opened(sets / "d", cache)
    there = {copy.folder for copy in copies(cache)}
    assert len(there) == 3 and {first.copy, names["b"]} < there and names["c"] not in there
    assert (first.copy / INDEX).stat().st_mtime > 1e9  # it counts as used for as long as it is open
    np.testing.assert_array_equal(first.features, opened(sets / "a", cache).features)


def test_extractions_one_after_another_do_not_fill_the_disk(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, opened(sets / "a", cache).copy, 2.5)
    for seed in range(10, 14):
        write_feature_set(sets / "a", tracks=[20, 10], feature_size=8, seed=seed)
        opened(sets / "a", cache)
    assert len(copies(cache)) == 2


def test_what_another_process_has_open_is_kept_until_it_is_killed(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = opened(sets / "a", cache).copy
    limit(monkeypatch, copy, 1.5)
    with Other(cache, sets / "a") as other:
        other.wait_for("open")
        os.utime(copy / INDEX, (1, 1))
        assert [is_in_use(found) for found in copies(cache)] == [True]
        with pytest.raises(NotNowError, match=rf"train needs .*{LIMIT_VARIABLE}.*in use by other processes; try again"):
            opened(sets / "b", cache)
        assert remove_unused(cache) == 0 and [found.folder for found in copies(cache)] == [copy]
        other.kill()
    assert len(opened(sets / "b", cache)) == 30
    assert not copy.exists()


def test_a_command_that_needs_more_than_is_allowed_is_told_so_and_nothing_is_removed(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = opened(sets / "a", cache).copy
    first = opened(sets / "b", cache)
    limit(monkeypatch, first.copy, 1.5)
    with pytest.raises(InputError, match=rf"may take 0\.0 GB \({LIMIT_VARIABLE}\); allow more"):
        opened(sets / "c", cache)  # "b" is open in this process, so a later try would end the same way
    del first
    limit(monkeypatch, unused, 0.5)
    with pytest.raises(InputError, match="allow more"):
        opened(sets / "c", cache)
    assert len(copies(cache)) == 2 and unused.exists()
    monkeypatch.setenv(LIMIT_VARIABLE, "20GB")
    with pytest.raises(InputError, match="20GB: must be a number of bytes"):
        opened(sets / "c", cache)


class Usage:
    free = 0


def test_by_default_what_is_unused_takes_half_of_the_space(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(opened(sets / "a", cache, used=1).copy)
    monkeypatch.setattr(copy_cache.shutil, "disk_usage", lambda _: Usage)
    Usage.free = 5 * size
    opened(sets / "b", cache, used=2)
    opened(sets / "c", cache, used=3)
    Usage.free = int(2.2 * size)  # of 5.2, so that half is 2.6
    kept = opened(sets / "d", cache)
    assert len(copies(cache)) == 2
    others = [opened(sets / name, cache) for name in "ab"]  # which are needed now, so they may take more
    assert len({store.copy for store in (kept, *others)}) == len(copies(cache)) == 3


def test_a_full_disk_is_the_users_unless_copies_in_use_fill_it(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(opened(sets / "a", cache).copy)
    monkeypatch.setattr(copy_cache.shutil, "disk_usage", lambda _: Usage)
    Usage.free = size // 2
    with Other(cache, sets / "a") as other:
        other.wait_for("open")
        with pytest.raises(NotNowError, match="are free, and .* in use by other processes"):
            opened(sets / "b", cache)
        Usage.free = -size
        with pytest.raises(InputError, match="GLOT_CACHE to a larger disk"):
            opened(sets / "b", cache)
    Usage.free = size // 2
    opened(sets / "b", cache)
    assert len(copies(cache)) == 1


def test_on_a_full_disk_what_nobody_uses_goes_and_a_disk_that_fills_is_not_now(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_disk(tmp_path, megabytes=1) as (disk, fill):
        unused = opened(sets / "a", disk / "cache").copy
        with fill():
            kept = opened(sets / "b", disk / "cache")  # in the place of the first
            assert not unused.exists()
            with pytest.raises(InputError, match="point GLOT_CACHE to a larger disk"):
                opened(sets / "c", disk / "cache")
        batches = copy_writing.batches
        with ExitStack() as filling:
            monkeypatch.setattr(
                copy_writing, "batches", lambda *given: filling.enter_context(fill()) or batches(*given)
            )
            with pytest.raises(NotNowError, match="No space left on device.*set GLOT_CACHE"):
                opened(sets / "c", disk / "cache")
        assert [copy.folder for copy in copies(disk / "cache")] == [kept.copy] == list((disk / "cache").iterdir())
        monkeypatch.setattr(copy_writing, "batches", batches)
        assert len(opened(sets / "c", disk / "cache")) == 30


def test_a_build_has_its_room_from_the_start(sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = opened(sets / "a", cache).copy
    limit(monkeypatch, copy, 1.5)
    with Other(cache, sets / "b", slow=600) as other:
        other.wait_for("building")
        assert not copy.exists()
        with pytest.raises(NotNowError, match="in use by other processes"):
            opened(sets / "c", cache)
        other.kill()
    assert list(cache.glob(".*.building-*"))
    opened(sets / "c", cache)  # what was left of another set is gone, with its lock
    assert [path.name for path in cache.iterdir()] == [copies(cache)[0].folder.name]


def test_a_removal_that_was_killed_leaves_nothing_that_looks_whole(
    sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = opened(sets / "a", cache).features.copy()
    copy = copies(cache)[0].folder
    limit(monkeypatch, copy, 1.5)
    with Other(cache, sets / "b", fatal=True) as other:
        assert other.process.wait(timeout=60) == -signal.SIGKILL
    assert not copy.exists() and list(cache.glob(".*.removing-*"))
    np.testing.assert_array_equal(opened(sets / "a", cache).features, features)
    assert not list(cache.glob(".*.removing-*"))
    assert not list(cache.glob(".*.building-*"))


def test_removing_all_leaves_what_is_open_or_being_built(sets: Path, cache: Path) -> None:
    assert remove_unused(cache) == 0  # there is no cache yet
    copy = opened(sets / "a", cache).copy
    kept = opened(sets / "b", cache)
    size = size_of(copy)
    with Other(cache, sets / "c", slow=1) as other:
        other.wait_for("building")
        assert remove_unused(cache) == size
        other.wait_for("open")
    assert len(kept) == 30 and kept.copy.exists() and not copy.exists()
    assert len(copies(cache)) == 2
    del kept
    assert remove_unused(cache) > 1.9 * size
    assert list(cache.iterdir()) == []


def touched(folder: Path) -> None:
    for part in folder.glob("part-*"):
        os.utime(part, (5, 5))


def test_a_set_with_the_same_parts_is_not_copied_again(sets: Path, cache: Path) -> None:
    first = opened(sets / "a", cache)
    touched(sets / "a")  # copied to another disk, or checked out again
    assert os.path.samefile(opened(sets / "a", cache).copy, first.copy)
    manifest = read_manifest(sets / "a")
    write_manifest(sets / "a", type(manifest)(**{**vars(manifest), "code_version": "another"}))  # extracted again
    again = opened(sets / "a", cache)
    np.testing.assert_array_equal(again.features, first.features)
    assert os.path.samefile(again.copy, first.copy) and len(copies(cache)) == 1
    other = opened(sets / "b", cache)  # as large, but with other features
    assert len(copies(cache)) == 2 and not np.array_equal(other.features, first.features)
    del first
    assert remove_unused(cache) == 0 or len(copies(cache)) == 2  # both are open, one under its second name
    second_name = again.copy
    del again, other
    remove_unused(cache)
    assert not second_name.is_symlink() and list(cache.iterdir()) == []
    second_name.symlink_to("gone")
    assert len(opened(sets / "a", cache)) == 30


def test_parts_are_not_compared_where_the_manifest_says_something_else(sets: Path, cache: Path) -> None:
    opened(sets / "a", cache)
    manifest = read_manifest(sets / "a")
    write_manifest(sets / "a", type(manifest)(**{**vars(manifest), "rows": 31}))
    with pytest.raises(InputError, match="the manifest has 31"):
        opened(sets / "a", cache)


def test_copies_of_earlier_code_are_used_and_removed(sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = opened(sets / "a", cache).copy
    index = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps({name: index[name] for name in ("tracks", "bytes")}))
    before = (copy / "feature.npy").stat().st_ino
    assert len(opened(sets / "a", cache)) == 30 and (copy / "feature.npy").stat().st_ino == before
    damaged = cache / ("0" * 16 + "-" + "0" * 8 + "-0")
    damaged.mkdir()  # somebody deleted its index
    (damaged / "feature.npy").write_bytes(bytes(100))
    (cache / f".{copy.name}.lock").touch()
    limit(monkeypatch, copy, 1.5)
    opened(sets / "b", cache)
    assert not copy.exists() and not damaged.exists() and len(copies(cache)) == len(list(cache.iterdir())) == 1


def test_on_a_disk_without_locks_nothing_is_removed(sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    copy = opened(sets / "a", cache).copy
    limit(monkeypatch, copy, 1.5)
    with pytest.raises(NotNowError):
        opened(sets / "b", cache)
    assert remove_unused(cache) == 0
    assert len(opened(sets / "a", cache)) == 30


# Opens sets at random for some seconds, while the room is only for some of them, and checks what it reads.
CHURN = """
import random, sys, time
from pathlib import Path
import numpy as np
from glot.errors import NotNowError
from glot.features.copy_cache import remove_unused
from glot.features.store import FeatureStore
root, cache, seed, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
wanted = {name: np.load(root / f"{name}.npy") for name in "abcd"}
draw, done, refused, end = random.Random(seed), 0, 0, time.monotonic() + seconds
while time.monotonic() < end:
    name = draw.choice("abcd")
    try:
        store = FeatureStore.open(root / name, cache=cache)
    except NotNowError:
        refused += 1
        continue
    for _ in range(3):
        np.testing.assert_array_equal(store.features_of(slice(None)), wanted[name])
        assert store.copy.exists()
    done += 1
    del store
    if draw.random() < 0.2:
        remove_unused(cache)
print(done, refused)
"""


def test_many_processes_open_build_and_remove_at_once(sets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETS:
        store = opened(sets / name, cache)
        np.save(sets / f"{name}.npy", store.features)
    limit(monkeypatch, store.copy, 2.5)
    del store
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CHURN, str(sets), str(cache), str(seed), "3"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    time.sleep(2.5)
    started[0].kill()  # somewhere in the middle
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started[1:]] == [0] * 3, [errors for _, errors in ended]
    assert all(int(out.split()[0]) > 5 for out, _ in ended[1:])
    opened(sets / "a", cache)
    assert sum(copy.bytes for copy in copies(cache)) <= int(os.environ[LIMIT_VARIABLE])
    remove_unused(cache)
    assert list(cache.iterdir()) == []
