"""Training that is killed, out of time, or given broken data: it ends as an undisturbed run does, or says why not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from glot.cores import available_cores
from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.models.checkpoint import load_checkpoint
from glot.training import stepper
from glot.training.feature_sets import feature_lineage
from glot.training.loop import train
from glot.training.record.mlflow_store import default_uri
from glot.training.spec import WorkerSpec
from glot.training.step_checkpoints import newest_step, saved_steps
from tests.fixtures.features import write_feature_set, write_training_sets
from tests.fixtures.places import ROOT
from tests.glot.training.test_driver import SMALL, small

EPOCHS, STEPS = 4, 12  # of the runs that are interrupted; steps of an epoch


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_sets(tmp_path_factory.mktemp("features"), load_body())


def job(features: Path, out: Path, *settings: str, **changes: Any) -> WorkerSpec:
    recipe = small(f"epochs={EPOCHS}", *settings)
    lineage = feature_lineage(recipe, features)
    recipe = replace(recipe, model=replace(recipe.model, feature_size=lineage["backbone"]["feature_size"]))
    plain = WorkerSpec(recipe=recipe, features=features, lineage=lineage, out=out, save_every=5)
    return replace(plain, **changes)


def same_weights(one: Path, other: Path, *, tolerance: float = 0.0) -> bool:
    a, b = (load_checkpoint(folder).model.state_dict() for folder in (one, other))
    return all(bool((a[name] - b[name]).abs().max() <= tolerance) for name in a)


@pytest.fixture(scope="module")
def undisturbed(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    train(job(features, out))
    return out


class Killed(Exception):
    """Stands for the death of a process."""


@pytest.mark.parametrize("at", [3, 7, 12, 29])
def test_a_run_cut_at_any_step_ends_bitwise_the_same(
    features: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real = stepper.Stepper.__call__

    def dies(self: stepper.Stepper, step: int, *args: object, **options: object) -> object:
        if step == at:
            raise Killed
        return real(self, step, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stepper.Stepper, "__call__", dies)
        train(job(features, tmp_path))
    assert saved_steps(tmp_path) == [step for step in range(50, 0, -5) if step <= at][:2]
    train(job(features, tmp_path))
    assert same_weights(tmp_path / "last", undisturbed / "last") and same_weights(
        tmp_path / "best", undisturbed / "best"
    )
    ours, theirs = (json.loads((out / "epochs.json").read_text()) for out in (tmp_path, undisturbed))
    timed = ("windows_per_s", "data_wait")
    assert [{k: v for k, v in row.items() if k not in timed} for row in ours] == [
        {k: v for k, v in row.items() if k not in timed} for row in theirs
    ]


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(
    features: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.time()
    with pytest.raises(InputError, match="none of its checkpoints"):
        train(job(features, tmp_path, "steps_per_epoch=12", stop_at=start))  # one step, then stops with a checkpoint
        (path := tmp_path / "steps" / "00000001" / "training.pt").write_bytes(path.read_bytes()[:-100])
        train(job(features, tmp_path))
    capsys.readouterr()
    out = tmp_path / "two"
    for _ in range(2):
        train(job(features, out, stop_at=start))
    assert saved_steps(out) == [2, 1]
    weights = out / "steps" / "00000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    train(job(features, out))
    printed = capsys.readouterr()
    assert (
        "00000002/model.safetensors: damaged or cut short" in printed.err and "the checkpoint before it" in printed.err
    )
    assert "continues after step 1 of 48" in printed.out
    assert same_weights(out / "last", undisturbed / "last")


def test_a_batch_that_breaks_the_loss_is_named(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"the loss is \S+ .*at step \d+, its data is all finite: 3dpw .* frames"):
        train(job(features, tmp_path / "diverged", "lr=1e12"))
    broken = FeatureStore.open(features / "3dpw" / "train")
    monkeypatch.setattr(FeatureStore, "open", classmethod(lambda cls, folder: broken))
    spoiled = np.array(broken.keypoints2d)
    spoiled[100] = np.nan
    broken.keypoints2d = spoiled
    with pytest.raises(InputError, match=r"at step 1: numbers that are NaN or infinite in 3dpw \S+ frames \d+ to \d+"):
        train(job(features, tmp_path / "spoiled", "data.batch_size=300"))
    assert not saved_steps(tmp_path / "spoiled")


def test_parts_of_a_batch_make_the_same_step(features: Path, tmp_path: Path) -> None:
    exact = ["model.dropout=0", "model.drop_path=0", "model.regressor_dropout=0", "model.hscr_dropout=0"]
    recipe = [*exact, "data.batch_size=14", "data.sets_2d=3dpw", "epochs=1"]
    for parts in (1, 2, 4):
        train(job(features, tmp_path / str(parts), *recipe, f"accumulate={parts}"))
    rows = {n: json.loads((tmp_path / str(n) / "epochs.json").read_text())[0] for n in (1, 2, 4)}
    for parts in (2, 4):
        assert rows[parts]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=2e-5)
        assert same_weights(tmp_path / str(parts) / "last", tmp_path / "1" / "last", tolerance=5e-4)
    with pytest.raises(InputError, match="take 8 parts each"):
        train(job(features, tmp_path / "8", *recipe, "accumulate=8"))


def test_bfloat16_goes_nearly_the_same_way(features: Path, undisturbed: Path, tmp_path: Path) -> None:
    train(job(features, tmp_path, "precision=bfloat16"))
    ours, theirs = (json.loads((out / "epochs.json").read_text())[-1] for out in (tmp_path, undisturbed))
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.1)
    assert ours["train_loss"] != theirs["train_loss"]
    assert all(v.dtype == torch.float32 for v in load_checkpoint(tmp_path / "last").model.state_dict().values())


@pytest.mark.slow
def test_a_compiled_model_takes_the_same_steps(features: Path, tmp_path: Path) -> None:
    exact = ["model.dropout=0", "model.drop_path=0", "model.regressor_dropout=0", "model.hscr_dropout=0", "epochs=1"]
    for compiled in ("true", "false"):
        train(job(features, tmp_path / compiled, *exact, f"compile={compiled}"))
    assert same_weights(tmp_path / "true" / "last", tmp_path / "false" / "last", tolerance=5e-4)


def test_training_starts_from_a_given_checkpoint(features: Path, undisturbed: Path, tmp_path: Path) -> None:
    """With next to no learning rate the weights stay as they were."""
    train(job(features, tmp_path, "lr=1e-30", start=undisturbed / "best"))
    assert same_weights(tmp_path / "last", undisturbed / "best", tolerance=1e-20)
    with pytest.raises(InputError, match="the configuration says"):
        train(job(features, tmp_path / "other", "model.hidden=32", start=undisturbed / "best"))


def test_every_validation_set_has_its_own_metrics(features: Path, tmp_path: Path) -> None:
    root = tmp_path / "features"
    shutil.copytree(features, root)
    other = root / "mpi_inf_3dhp" / "validation"
    write_feature_set(other, tracks=[25], body=load_body(), seed=5, dataset="mpi_inf_3dhp", split="validation")
    train(job(root, tmp_path / "run", "epochs=1", "data.validation=3dpw,mpi_inf_3dhp"))
    (row,) = json.loads((tmp_path / "run" / "epochs.json").read_text())
    assert {"val_pa_mpjpe", "val_accel", "val_mpi_inf_3dhp_pa_mpjpe", "val_mpi_inf_3dhp_accel"} <= set(row)
    assert row["val_pa_mpjpe"] != row["val_mpi_inf_3dhp_pa_mpjpe"]


def command(features: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in (*SMALL, f"epochs={EPOCHS}") for part in ("--set", setting)]
    where = ["--features", str(features), "--out", str(out), "--save-every", "5", *settings]
    return [sys.executable, "-m", "glot.train_ray", *where, *more]


@pytest.fixture(scope="module")
def uninterrupted(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the command with two workers that was not interrupted."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    line = command(features, out, "--workers", "2", "--mlflow", "none")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(line, env=environment, check=True, capture_output=True, timeout=300, cwd=out.parent)
    return out


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while newest_step(out) < step:
        assert time.monotonic() < deadline and process.poll() is None, f"the run never came to step {step}"
        time.sleep(0.02)


def training_workers(mark: str) -> list[int]:
    """The process ids of the Ray training workers that have ``mark`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_text() and "RayTrainWorker" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


def history_of(uri: str) -> dict[str, list[tuple[int, float]]]:
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("glot").experiment_id])
    assert run.info.status == "FINISHED"
    names = ("step_loss", "val_pa_mpjpe", "lr")
    return {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)] for n in names}


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_do_not_change_the_result(
    features: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """Both are killed with SIGKILL at random steps; then the same command runs with --resume."""
    uri, out, draw = default_uri(tmp_path), tmp_path / "run", random.Random(2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOT_TEST": str(tmp_path)}
    run = command(features, out, "--workers", "2", "--mlflow", uri)
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(run, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        wait_for_step(out, draw.randrange(5, 15), first)
        os.kill(draw.choice(training_workers(f"GLOT_TEST={tmp_path}")), signal.SIGKILL)
        wait_for_step(out, draw.randrange(25, 35), first)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    log_text = (tmp_path / "log").read_text()
    assert "a worker was lost" in log_text and "continues after step" in log_text

    refused = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert refused.returncode == 2 and "holds an unfinished run; --resume goes on" in refused.stderr
    ended = subprocess.run(
        [*run, "--resume"], env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    # With two workers the order in which gradients are summed can vary. (For one, see the tests of runs that are cut.)
    assert same_weights(out / "last", uninterrupted / "last", tolerance=1e-4)
    assert not (out / "steps").exists() and not (out / "ray").exists()
    history = history_of(uri)
    assert [step for step, _ in history["val_pa_mpjpe"]] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert [step for step, _ in history["lr"]] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert [step for step, _ in history["step_loss"]] == list(range(10, STEPS * EPOCHS + 1, 10))


@pytest.mark.slow
def test_a_run_that_is_out_of_time_is_continued(features: Path, tmp_path: Path) -> None:
    out, environment = tmp_path / "run", {**os.environ, "PYTHONPATH": str(ROOT)}
    run = command(features, out, "--workers", "1", "--mlflow", "none", "--resume")
    stopped = subprocess.run(
        [*run, "--max-seconds", "0.1"], env=environment, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert stopped.returncode == 75, stopped.stderr
    assert "stopped after step 1 of 48; the same command with --resume continues it" in stopped.stdout
    assert saved_steps(out) == [1] and not (out / "best").exists()
    ended = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    train(job(features, tmp_path / "whole", threads=available_cores()))  # as many as the only worker has
    assert same_weights(out / "last", tmp_path / "whole" / "last")


CLUSTER = """
from pathlib import Path
from glot.training.step_checkpoints import newest_step
from tests.fixtures.lost_node import losing_a_node
out = Path({out!r})
with losing_a_node(lambda: newest_step(out) >= 10):
    from glot.training.cluster import preflight
    from glot.training.driver import fit
    from tests.glot.training.test_driver import small_spec
    from tests.glot.training.test_training_faults import EXACT
    preflight.NODE_SECONDS = 8.0
    fit(small_spec(Path({features!r}), out, *EXACT, workers=2, save_every=5))
    print("ENDED", flush=True)
"""


# Settings without dropout, which each worker draws for itself.
EXACT = [
    f"epochs={EPOCHS}",
    *(f"model.{part}=0" for part in ("dropout", "drop_path", "regressor_dropout", "hscr_dropout")),
]


@pytest.mark.slow
def test_a_run_goes_on_without_a_node_that_does_not_come_back(features: Path, tmp_path: Path) -> None:
    """Two workers on two nodes; the one that is left takes the same steps."""
    code = CLUSTER.format(out=str(tmp_path / "run"), features=str(features))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert "ENDED" in ended.stdout, (ended.stdout + ended.stderr)[-3000:]
    assert "1 of 2 continue after step" in ended.stdout
    train(job(features, tmp_path / "whole", *EXACT))
    assert same_weights(tmp_path / "run" / "last", tmp_path / "whole" / "last", tolerance=2e-3)
