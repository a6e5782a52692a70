"""Trainings where people run them: beside others on one machine, in folders with any name, with a long TMPDIR."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glot.human.body import load_body
from tests.fixtures.another_ray import another_ray
from tests.fixtures.features import write_training_sets
from tests.fixtures.places import ROOT
from tests.glot.training.test_driver import SMALL

# What a training says, line by line, in any order; nothing else may be printed.
SAID = (
    "starting a local Ray",
    r"16 windows per step, \d+ per worker; .*",
    r"\d.* are few: .*",
    r"local copy of 3dpw/\w+: .*",
    r"epoch \d/\d  step \d+/\d+  .*",
    r"best epoch \d: .*",
    r"checkpoint: .*",
    r"MLflow: .*",
)


@pytest.mark.slow
def test_two_trainings_at_once_and_another_ray(tmp_path: Path) -> None:
    """Each knows which Ray is its own, and says no more than it would alone."""
    features = write_training_sets(tmp_path / "a%20set#1?", load_body())
    long = tmp_path / "scratch" / "/".join(["temporary-files-of-a-job"] * 3)
    for folder in (long, home := tmp_path / "home"):
        folder.mkdir(parents=True)
    assert len(str(long)) > 70
    left_out = ("RAY_AUTH_MODE", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED", "RAY_DATA_DISABLE_PROGRESS_BARS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"TMPDIR": str(long), "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    settings = [*SMALL, "epochs=4", "steps_per_epoch=50"]
    command = [sys.executable, "-m", "glot.train_ray", "--features", str(features.relative_to(tmp_path))]
    command += [part for setting in settings for part in ("--set", setting)]
    runs = [
        subprocess.Popen(
            [*command, "--workers", workers, "--out", out], env=environment, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for workers, out in (("2", "my%20runs?/first"), ("1", "my%20runs?/#2"))
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 150
        while len(list(tmp_path.glob("my*/*/steps/*"))) < 1 and time.monotonic() < deadline:
            assert not any(run.poll() for run in runs), [run.communicate()[0] for run in runs if run.poll()]
            time.sleep(0.2)
        with another_ray(6488):
            assert not all(run.poll() == 0 for run in runs), "too short: both had ended before"
            said = [run.communicate(timeout=240)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    for run, text in zip(runs, said, strict=True):
        assert run.returncode == 0, text
        unexpected = [line for line in text.splitlines() if not any(re.fullmatch(line_, line) for line_ in SAID)]
        assert not unexpected, text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a%20set#1?", "home", "my%20runs?", "scratch"]
    folder = tmp_path / "my%20runs?"
    assert sorted(path.name for path in folder.iterdir()) == ["#2", "first", "mlartifacts", "mlflow.db"]
    assert all((out / "best").is_dir() and (out / "epochs.png").is_file() for out in (folder / "first", folder / "#2"))
    assert len(list(folder.glob("mlartifacts/*/artifacts/best"))) == 2
    assert not [path for path in home.rglob("*") if ".ray" in path.parts]
