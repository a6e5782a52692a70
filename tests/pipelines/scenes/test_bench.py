"""make_sample --bench: the people of the test are new, and a killed run is continued with the same files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glot.human.body import load_body
from pipelines.decoders.threedpw import THREEDPW
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.scenes import sequence
from pipelines.scenes.people_splits import PeopleSplits, split_people
from pipelines.scenes.render_processes import RenderSource
from pipelines.scenes.sample_dataset import build_sample
from pipelines.scenes.sequence_plan import hash_of_clips, plan_bench
from pipelines.scenes.spec import BENCH, MakeSampleSpec, SampleSettings
from tests.fixtures.places import ROOT
from tests.fixtures.several_people import SUBJECTS, clips_of_people, hashes, write_motions

SIZE = 64
SEQUENCES = 10


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motions")
    write_motions(folder / "cmu.npz", clips_of_people(load_motions()))
    return folder


@pytest.fixture(scope="module")
def clips(motions: Path) -> dict[str, MotionClip]:
    return load_motions(motions)


@pytest.fixture(scope="module")
def people(motions: Path, clips: dict[str, MotionClip]) -> PeopleSplits:
    return split_people(motions, clips)


def settings(clips: dict[str, MotionClip], people: PeopleSplits, **changes: Any) -> SampleSettings:
    values: dict[str, Any] = {
        "seed": 3,
        "sequences": 4,
        "image_size": SIZE,
        "every": BENCH.every,
        "look": BENCH.look,
    } | changes
    return SampleSettings(**values, motions=hash_of_clips(clips), body=load_body().file_hash, people=people.hash)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of 18 frames."""
    monkeypatch.setattr(sequence, "FRAMES", (18, 19))


def test_the_options_of_a_bench(motions: Path) -> None:
    assert MakeSampleSpec(bench=True, motions=motions).recipe == BENCH
    assert MakeSampleSpec(bench=True, motions=motions, every=(2,), sequences=40).recipe.every == (2,)
    assert MakeSampleSpec().recipe.sequences == 40 and MakeSampleSpec().recipe.look == "plain"


def test_every_clip_begins_a_sequence_and_long_clips_begin_more(
    clips: dict[str, MotionClip], people: PeopleSplits
) -> None:
    lengths = {name: len(clip) for name, clip in clips.items()}
    lengths[people.clips["train"][2]] *= 20
    planned = plan_bench(settings(clips, people, sequences=300), people.clips, lengths=lengths)
    assert Counter(s.split for s in planned) == {"train": 240, "validation": 18, "test": 42}
    assert len({s.name for s in planned}) == 300 and [s.index for s in planned] == list(range(300))
    firsts = Counter(s.first for s in planned)
    assert set(firsts) == set(clips)
    assert firsts.most_common(1)[0][0] == people.clips["train"][2] and firsts.most_common(1)[0][1] > 100
    for s in planned:
        assert {people.people[clip] for clip in s.clips} == {SUBJECTS[s.split]} and s.first in s.clips


def test_the_summary_counts_what_extraction_keeps(
    tmp_path: Path, clips: dict[str, MotionClip], people: PeopleSplits, short: None
) -> None:
    planned = build_sample(tmp_path, settings(clips, people), RenderSource(None, clips), people=people)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["sequences"] == len(planned) and summary["pictures"] == 18 * len(planned)
    body, rows = load_body(), Counter[str]()
    for split in ("train", "validation", "test"):
        for unit in THREEDPW.find(tmp_path, split):
            for clip in THREEDPW.decode(tmp_path, unit, body, "corrected").clips:
                rows[split] += len(clip.frame_index)
                rows["valid"] += int(clip.valid.sum())
                assert clip.fps in (30, 15, 10)
        assert summary["splits"][split]["rows"] == rows[split]
        assert summary["splits"][split]["people"] == [SUBJECTS[split]]
    assert summary["valid"] == rows["valid"] and rows["train"] > 0
    files = [f for name in ("imageFiles", "sequenceFiles") for f in (tmp_path / name).rglob("*") if f.is_file()]
    assert summary["bytes"] == sum(f.stat().st_size for f in files) and summary["core_seconds"] > 0
    command = "find imageFiles sequenceFiles -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert printed.split()[0] == summary["sha256"]
    assert not (tmp_path / ".building").exists()


class Killed(BaseException):
    """Nobody catches it."""


def killed_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """From now on, Killed is raised instead of the change ``number`` (from 1) of a name in the file system."""
    changes = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes == number:
                raise Killed
            return real(*arguments, **options)

        return call

    for name in ("rename", "replace", "mkdir", "rmdir"):
        patch.setattr(os, name, counted(getattr(os, name)))


def test_a_run_that_ends_at_any_change_of_a_file_is_continued(
    tmp_path: Path, clips: dict[str, MotionClip], people: PeopleSplits, short: None
) -> None:
    wanted, source = settings(clips, people, look="plain"), RenderSource(None, clips)
    build_sample(tmp_path / "whole", wanted, source, people=people)
    whole, out, ends = hashes(tmp_path / "whole"), tmp_path / "out", 0
    for number in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            killed_at(number, patch)
            try:
                build_sample(out, wanted, source, people=people)
                break
            except Killed:
                ends += 1
        if number % 3 == 0:  # most runs are continued after one end; these after several
            continue
        for file in (out / "sequenceFiles").rglob("*.pkl"):
            assert len(list((out / "imageFiles" / file.stem).iterdir())) == 18
        build_sample(out, wanted, source, people=people)
        assert hashes(out) == whole, number
        shutil.rmtree(out)
    assert ends > 15 and hashes(out) == whole


def workers_of(parent: int) -> list[int]:
    """Processes whose parent is ``parent``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(folder.name))
    return found


def is_running(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def run_and_kill(command: list[str], out: Path, *, done: int, later: float) -> None:
    """Kills the main process ``later`` seconds after ``done`` sequences are there, and waits for its workers' end."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: len(list(out.glob("sequenceFiles/*/*.pkl"))) >= done or process.poll() is not None)
        time.sleep(later)
        assert process.poll() is None, "the command ended too early to be killed"
        workers = workers_of(process.pid)
        assert len(workers) >= 2
        os.kill(process.pid, signal.SIGKILL)  # no worker, as where the kernel runs out of memory
        process.wait()
        wait_for(lambda: not any(map(is_running, workers)), seconds=20)
    finally:
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_command_that_is_killed_twice_makes_the_same_files_and_leaves_no_process(
    tmp_path: Path, motions: Path, clips: dict[str, MotionClip], people: PeopleSplits
) -> None:
    out = tmp_path / "bench"
    command = [
        *(sys.executable, "-m", "pipelines.make_sample", "--bench", "--look", "plain", "--motions", str(motions)),
        *("--sequences", str(SEQUENCES), "--image-size", str(SIZE), "--workers", "2", "--out", str(out)),
    ]
    draw = random.Random(5)
    for done in (1, 4):
        run_and_kill(command, out, done=done, later=draw.uniform(0, 0.5))
        kept = {file: file.stat().st_mtime_ns for file in out.glob("sequenceFiles/*/*.pkl")}
        assert len(kept) >= done
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0 and f"{len(kept)} of {SEQUENCES} sequences exist already" in ended.stderr
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())
    wanted = settings(
        clips, people, seed=0, sequences=SEQUENCES, look="plain", as_recorded=BENCH.as_recorded,
        highest_camera=BENCH.highest_camera, largest=BENCH.largest,
    )  # fmt: skip
    build_sample(tmp_path / "whole", wanted, RenderSource(None, clips), people=people)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_help_names_the_bench() -> None:
    shown = subprocess.run(
        [sys.executable, "pipelines/make_sample.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    for words in ("--bench", "--look", "1500 for a bench", "people who are not"):
        assert words in shown.stdout


def test_a_bench_without_motions_is_a_mistake_of_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "pipelines/make_sample.py", "--bench"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2 and ended.stderr.startswith("error: --bench: needs --motions")
    assert len(ended.stderr.splitlines()) == 1


def test_frame_rates_and_splits_are_in_the_file_of_the_sample(
    tmp_path: Path, clips: dict[str, MotionClip], people: PeopleSplits, short: None
) -> None:
    wanted = settings(clips, people, look="plain")
    planned = build_sample(tmp_path, wanted, RenderSource(None, clips), people=people)
    made = json.loads((tmp_path / "sample.json").read_text())
    assert {k: tuple(v) for k, v in made["clips"].items()} == people.clips
    assert made["fps"] == {s.name: 30 / BENCH.every[s.index % 3] for s in planned}
    assert made["people"] == people.hash and np.isfinite(list(made["fps"].values())).all()
