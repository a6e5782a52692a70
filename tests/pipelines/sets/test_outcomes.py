"""Outcomes survive whatever ends the process that appends them; a unit that is done stays done."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.jobs.bookkeeper import DAMAGED, DONE, FAILED
from pipelines.sets.outcomes import Outcome, OutcomeLog, merge, read_outcomes
from pipelines.sets.settings import list_set
from tests.fixtures.places import ROOT


def outcome(id: str, kind: str = DONE, code: str = "1.0") -> Outcome:
    fragment = {"name": f"{id[5:]}.parquet", "rows": 3, "tracks": 1, "bytes": 99} if kind == DONE else None
    skipped = [] if kind == DONE else [{"what": id, "reason": f"it is {kind} \udcff", "frames": 7}]
    return Outcome(id, kind, fragment, {"rows": 3} if kind == DONE else {}, skipped, 7, code)


def append(folder: Path, run: str, *batches: list[Outcome]) -> None:
    log = OutcomeLog(folder, run)
    for batch in batches:
        log.append(batch)
    log.close()


def test_outcomes_come_back_as_they_went_in(tmp_path: Path) -> None:
    wanted = [outcome("0000/a"), outcome("0000/b@0002000", DAMAGED), outcome("0001/c", FAILED)]
    append(tmp_path, "run", wanted[:2], wanted[2:])
    found = read_outcomes(tmp_path)
    assert list(found.values()) == wanted
    merge(tmp_path, found)
    assert [name for name in list_set(tmp_path) if "outcomes" in name] == [".extraction/outcomes.parquet"]
    assert read_outcomes(tmp_path) == found
    append(tmp_path, "next", [outcome("0001/c")])
    assert read_outcomes(tmp_path) == found | {"0001/c": outcome("0001/c")}


def test_a_unit_that_is_done_stays_done(tmp_path: Path) -> None:
    for kinds, kept in (
        ((DONE, FAILED), DONE), ((DONE, DAMAGED), DONE), ((FAILED, DAMAGED), DAMAGED), ((DAMAGED, FAILED), FAILED),
        ((DAMAGED, DONE), DONE), ((FAILED, DONE, FAILED), DONE),
    ):  # fmt: skip
        folder = tmp_path / "-".join(kinds)
        for kind in kinds:
            append(folder, "run", [outcome("0000/a", kind)])
        assert read_outcomes(folder)["0000/a"].kind == kept
        merge(folder, read_outcomes(folder))
        append(folder, "next", [outcome("0000/a", FAILED)])
        assert read_outcomes(folder)["0000/a"].kind == (DONE if kept == DONE else FAILED)


def test_the_order_of_runs_is_that_of_time_not_of_their_names(tmp_path: Path) -> None:
    append(tmp_path, "zzz", [outcome("0000/a", FAILED)])
    append(tmp_path, "aaa", [outcome("0000/a", DAMAGED)])
    assert read_outcomes(tmp_path)["0000/a"].kind == DAMAGED


def test_done_again_counts_as_the_later_one(tmp_path: Path) -> None:
    append(tmp_path, "run", [outcome("0000/a")], [outcome("0000/a", code="2.0")])
    assert read_outcomes(tmp_path)["0000/a"].code == "2.0"


WRITER = """
import sys
from pathlib import Path
from pipelines.sets.outcomes import Outcome, OutcomeLog
log = OutcomeLog(Path(sys.argv[1]), "run")
start = int(sys.argv[2])
for number in range(start, start + 1_000_000):
    log.append([Outcome(f"0000/{number:07d}", "done", counts={"rows": number})])
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_had_appended(tmp_path: Path) -> None:
    start = 0
    for seed in range(2):  # the second process goes on in the same run, as a bookkeeper that was started again does
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(start)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(random.Random(seed).uniform(0.05, 0.2))
            os.kill(writer.pid, signal.SIGKILL)
            said = writer.stdout.read().split()
        last = int(said[-1]) if said else start
        found = read_outcomes(tmp_path)
        assert all(f"0000/{number:07d}" in found for number in range(last + 1))
        start = last + 1
        (log,) = (tmp_path / ".extraction" / "outcomes").glob(f"run-{seed:05d}.jsonl")
        with log.open("ab") as file:
            file.write(b'{"id": "0000/half')  # killed while it wrote


def test_half_a_line_of_a_full_disk_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = OutcomeLog(tmp_path, "run")
    log.append([outcome("0000/a")])

    def full(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 5)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.append([outcome("0000/b"), outcome("0000/c")])
    log.append([outcome("0000/b"), outcome("0000/c")])
    log.append([outcome("0000/d")])
    log.close()
    assert sorted(read_outcomes(tmp_path)) == ["0000/a", "0000/b", "0000/c", "0000/d"]
